"""Drivers that are killed or stopped, and what goes on after them: real processes and servers."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cluster import jobs
from cluster.settings import Settings
from tuning.cli import control
from tuning.datasets import manifest_of
from tuning.driver import drive
from tuning.mlflow_client import EXPERIMENT, connect
from tuning.objects import Objects
from tuning.spec import load_spec
from tuning.storage import Storage

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

SearchFile = Callable[..., Path]
SEED = os.getpid()  # nothing is stored of it yet, even on servers that are kept
SLOW = "{backbone: squeezenet1_1, image_px: 32, batch_size: 8}"
EPOCH = re.compile(r"^trial +(\d+) epoch (\d+)/\d+ .*\((.*)\)$", re.MULTILINE)


class Terminal:
    """``hopetune run`` in a process that may be killed."""

    def __init__(self, servers: Settings, file: Path, name: str, out: Path) -> None:
        self.out = out
        with out.open("w") as lines:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", "from tuning.cli.main import main; main()"),
                    *("run", str(file), "--name", name),
                ],
                env=os.environ | {"HOPETUNE_STATE_DIR": str(servers.state_dir)},
                stdout=lines,
                stderr=subprocess.STDOUT,
            )

    def wait_for(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 200
        while not condition():
            assert self.process.poll() is None, self.out.read_text()
            assert time.monotonic() < until, self.out.read_text()
            time.sleep(0.1)

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(timeout=100)


def trained(text: str) -> Counter[tuple[int, int]]:
    """How often each epoch of each trial was trained, by the lines of drivers."""
    found = EPOCH.findall(text)
    return Counter((int(t), int(e)) for t, e, how in found if how != "stored earlier")


def runs_of(settings: Settings, search: str) -> list[tuple[str | None, str]]:
    client: MlflowClient = connect(settings)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.`hopetune.search` = '{search}'")
    return [(run.data.tags.get("hopetune.trial"), run.info.status) for run in found]


def state_of(hopetune: Callable, name: str) -> str:
    listed = json.loads(hopetune("ls", "--json").stdout)
    return next(str(entry["state"]) for entry in listed if entry["name"] == name)


def test_a_search_goes_on_after_its_driver_was_killed(
    servers: Settings, storage: Storage, hopetune: Callable, search_file: SearchFile, tmp_path: Path
) -> None:
    file = search_file(
        stopping="{rule: none}",
        budget="{trials: 3, epochs: 8}",
        sampler=f"{{name: random, seed: {SEED}}}",
        fixed=SLOW,
    )
    name = f"small-killed-{SEED}"
    driver = Terminal(servers, file, name, tmp_path / "out")
    driver.wait_for(lambda: len(trained(driver.out.read_text())) >= 4)
    assert storage.drivers()[name].pid == driver.process.pid
    driver.end(signal.SIGKILL)
    assert state_of(hopetune, name) == "interrupted"
    before = storage.open(name).record()
    assert before.count("RUNNING") > 0

    done = hopetune("resume", name, "--foreground")
    assert done.returncode == 0, done.stderr
    record = storage.open(name).record()
    assert record.ended == "all trials done"
    assert [t.number for t in record.trials] == [0, 1, 2]
    assert {t.state for t in record.trials} == {"COMPLETE"}
    for earlier in before.trials:
        later = record.trial(earlier.number)
        assert later is not None
        assert later.epochs[: len(earlier.epochs)] == earlier.epochs
    both = trained(driver.out.read_text() + done.stdout)
    every = {(trial, epoch) for trial in range(3) for epoch in range(1, 9)}
    again = {key for key, count in both.items() if count > 1}
    # A worker outlives its driver for a moment: what it stored then, nobody trains again, and what
    # it did not store is trained twice.
    in_flight = again | (every - set(both))
    assert set(both) <= every
    assert max(both.values()) <= 2
    assert len({trial for trial, _ in in_flight}) == len(in_flight) <= 2, both
    assert sorted(runs_of(servers, name), key=str) == [
        ("0", "FINISHED"),
        ("1", "FINISHED"),
        ("2", "FINISHED"),
        (None, "FINISHED"),
    ]
    nothing = hopetune("resume", name)
    assert nothing.returncode == 2
    assert "nothing is left to train" in nothing.stderr
    assert "hopetune extend" in nothing.stderr


def test_a_stop_before_its_driver_begins_stands(
    servers: Settings, storage: Storage, hopetune_here: Callable, search_file: SearchFile
) -> None:
    """A driver takes seconds to begin, and a busy cluster starts its job hours later."""
    spec = load_spec(search_file())
    fingerprint = manifest_of(spec.data.train, Objects(servers)).fingerprint
    study = storage.create(f"small-stopped-{SEED}", spec, fingerprint)
    assert "it is stopped" in hopetune_here("stop", study.name).stdout
    record = drive(study.name, None, servers)
    assert (record.ended, record.trials) == ("stopped by its user", ())
    assert storage.open(study.name).stop_wanted()

    unknown = f"small-pending-{SEED}"
    jobs.submit(servers, submission_id=unknown, entrypoint="sleep 300")
    assert "is not in the study yet; its job is ended" in hopetune_here("stop", unknown).stdout
    until = time.monotonic() + 60
    while not jobs.get(servers, unknown).finished and time.monotonic() < until:
        time.sleep(0.2)
    assert jobs.status(servers, unknown) == "STOPPED"
    assert "no such search" in hopetune_here("stop", unknown).stderr


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.2)


def test_a_search_that_lacks_only_its_end_gets_it(
    servers: Settings,
    storage: Storage,
    hopetune_here: Callable,
    search_file: SearchFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its driver died, and its time is over by now."""
    spec = load_spec(search_file(budget="{trials: 2, epochs: 3, wall_clock_minutes: 0.001}"))
    study = storage.create(f"small-endless-{SEED}", spec, "fingerprint")
    study.ask()
    time.sleep(0.1)
    jobs.submit(servers, submission_id=study.name, entrypoint="sleep 300")
    wait_for(lambda: jobs.status(servers, study.name) == "RUNNING")
    monkeypatch.setattr(control, "JOB_S", 2.0)
    beside = hopetune_here("resume", study.name)
    assert "a job of this search is starting or ending" in beside.stderr, "it may drive it soon"
    jobs.stop(servers, study.name)
    monkeypatch.setattr(control, "JOB_S", 60.0)

    done = hopetune_here("resume", study.name)
    assert done.returncode == 0, done.stderr
    assert f"hopetune sync {study.name}" in done.stdout
    record = storage.open(study.name).record()
    assert "wall-clock minutes used" in str(record.ended)
    assert record.count("RUNNING") == 0
    again = hopetune_here("resume", study.name)
    assert (again.returncode, "its budget is used up" in again.stderr) == (2, True)


HUNG = "with Storage(load_settings().require('study_url')).driving('{}', print): time.sleep(300)"


def test_a_driver_that_does_not_answer_is_ended_and_so_is_its_search(
    servers: Settings,
    storage: Storage,
    hopetune_here: Callable,
    search_file: SearchFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"small-hung-{SEED}"
    storage.create(name, load_spec(search_file()), "fingerprint").ask()
    imports = "import time; from cluster.settings import load_settings"
    code = f"{imports}; from tuning.storage import Storage\n{HUNG.format(name)}"
    jobs.submit(servers, submission_id=name, entrypoint=shlex.join([sys.executable, "-c", code]))
    wait_for(lambda: name in storage.drivers())
    monkeypatch.setattr(control, "STOP_GRACE_S", 1.0)
    stopped = hopetune_here("stop", name)
    assert stopped.returncode == 0, stopped.stderr
    assert jobs.status(servers, name) == "STOPPED"
    record = storage.open(name).record()
    assert (record.ended, record.count("RUNNING")) == ("stopped by its user", 0)


def test_a_file_begins_a_search_anew_that_somebody_wanted_to_stop(
    servers: Settings, storage: Storage, hopetune: Callable, search_file: SearchFile
) -> None:
    file = search_file(budget="{trials: 2, epochs: 3, wall_clock_minutes: 0.001}")
    spec = load_spec(file)
    fingerprint = manifest_of(spec.data.train, Objects(servers)).fingerprint
    study = storage.create(f"small-again-{SEED}", spec, fingerprint)
    study.want_stop()  # and whoever drove it died without a word
    hopetune("run", str(file), "--name", study.name)
    assert "wall-clock minutes used" in str(storage.open(study.name).record().ended)


def test_ctrl_c_ends_in_good_order_and_a_job_goes_on(
    servers: Settings, storage: Storage, hopetune: Callable, search_file: SearchFile, tmp_path: Path
) -> None:
    file = search_file(
        stopping="{rule: none}",
        budget="{trials: 2, epochs: 10}",
        sampler=f"{{name: random, seed: {SEED + 1}}}",
        fixed=SLOW,
    )
    name = f"small-ctrl-c-{SEED}"
    driver = Terminal(servers, file, name, tmp_path / "out")
    driver.wait_for(lambda: len(trained(driver.out.read_text())) >= 2)
    assert driver.end(signal.SIGINT) == 130
    said = driver.out.read_text()
    assert "Traceback" not in said
    assert f"hopetune resume {name}" in said
    record = storage.open(name).record()
    assert (record.ended, record.count("RUNNING")) == ("stopped by Ctrl-C", 0)
    assert name not in storage.drivers()

    jobs.submit(servers, submission_id=name, entrypoint="true")  # as if a job had been its driver
    followed = hopetune("resume", name, "--follow")
    assert followed.returncode == 0, followed.stderr
    assert f"goes on as job {name}.r2" in followed.stdout
    record = storage.open(name).record()
    assert record.ended == "all trials done"
    assert [t.number for t in record.trials] == [0, 1]
    assert all(sorted(t.curve) == list(range(1, 11)) for t in record.trials)
    assert "all trials done" in hopetune("logs", name).stdout
