"""What trials need is replaced or lacking: a search keeps to its own, or ends and goes on later."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_lost_workers import SearchFile, at_work, check_whole, ended, long, running
from torchvision import models

from cluster.settings import Settings
from headpose.data.manifest import PrepareSettings
from headpose.data.prepared import prepare
from tuning.datasets import fingerprint_of, publish
from tuning.exits import ExitReason
from tuning.objects import Objects
from tuning.places import data_cache
from tuning.prefix import DataIdentity, prefix_keys
from tuning.records import SearchRecord
from tuning.storage import Storage

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

Hopetune = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def first(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set that the searches begin with, in a folder."""
    folder = tmp_path_factory.mktemp("first") / "set"
    settings = PrepareSettings(stored_px=40, policy="visible-landmarks")
    prepare("300w-lp", faces / "300W_LP", folder, settings)
    return folder


@pytest.fixture(scope="module")
def other(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another set, in a folder."""
    folder = tmp_path_factory.mktemp("other") / "set"
    prepare("300w-lp", faces / "300W_LP", folder, PrepareSettings(stored_px=48))
    return folder


@contextmanager
def hit(storage: Storage, name: str, *trials: int) -> Iterator[None]:
    """The workers of these trials, once they have trained an epoch: they get no further however
    long what is done meanwhile takes, and are killed after it."""
    workers: list[int] = []
    try:
        for trial in trials:
            worker = at_work(storage, name, trial).pid
            assert worker is not None
            os.kill(worker, signal.SIGSTOP)
            workers.append(worker)
        yield
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)


def check_trained_on(record: SearchRecord, fingerprint: str) -> None:
    """Keys of checkpoints follow from the data, too."""
    data = DataIdentity(fingerprint, record.spec.data.validation_fraction, 0)
    for trial in record.trials:
        keys = prefix_keys(record.spec.train_config(trial.parameters), data, 12)
        assert [epoch.checkpoint_key for epoch in trial.epochs] == list(keys)


def test_it_goes_on_with_the_set_it_was_begun_with(
    servers: Settings,
    storage: Storage,
    search_file: SearchFile,
    first: Path,
    other: Path,
    hopetune: Hopetune,
) -> None:
    place, objects = "s3://hopetune/data/replaced", Objects(servers)
    publish(first, place, objects)
    fingerprint = fingerprint_of(place, objects)
    path = search_file(data=f"{{train: {place}, validation_fraction: 0.2}}", **long(seed=81))
    with running(servers, path, "small-replaced") as driver:
        with hit(storage, "small-replaced", 0):
            publish(other, place, objects, replace=True)
        ended(driver)
    record = storage.open("small-replaced").record()
    check_whole(record)
    check_trained_on(record, fingerprint)
    assert any(len(trial.attempts) > 1 for trial in record.trials)
    again = hopetune("run", str(path), "--name", "small-replaced")
    assert again.returncode == 2
    assert "small-replaced: was begun with other data" in again.stderr


def test_where_no_node_has_that_set_the_search_ends_and_can_go_on_later(
    servers: Settings,
    storage: Storage,
    search_file: SearchFile,
    first: Path,
    other: Path,
    hopetune: Hopetune,
) -> None:
    place, objects = "s3://hopetune/data/lost", Objects(servers)
    publish(first, place, objects)
    fingerprint = fingerprint_of(place, objects)
    path = search_file(data=f"{{train: {place}, validation_fraction: 0.2}}", **long(seed=82))
    with running(servers, path, "small-lost") as driver:
        with hit(storage, "small-lost", 0, 1):
            publish(other, place, objects, replace=True)
            shutil.rmtree(data_cache(servers) / fingerprint)
        printed, _ = driver.communicate(timeout=240)
    assert driver.returncode == 2, printed
    assert "no node has what a training needs" in printed
    assert "another prepared set lies here than the search was begun with" in printed
    ended_early = storage.open("small-lost").record()
    reasons = {trial.exit_reason for trial in ended_early.trials}
    assert reasons == {ExitReason.SEARCH_ENDED}, "not the configurations' fault"
    trained = {t.number: t.epochs for t in ended_early.trials}
    publish(first, place, objects, replace=True)
    gone_on = hopetune("run", str(path), "--name", "small-lost")
    assert gone_on.returncode == 0, gone_on.stdout + gone_on.stderr
    record = storage.open("small-lost").record()
    check_whole(record)
    check_trained_on(record, fingerprint)
    for trial in record.trials:
        before = trained[trial.number]
        assert trial.epochs[: len(before)] == before


def test_without_its_imagenet_weights_a_search_ends_before_it_has_spent_its_trials(
    storage: Storage, search_file: SearchFile, hopetune: Hopetune, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    fixed = f"{{backbone: squeezenet1_1, image_px: 32, batch_size: 16, imagenet: {weights}}}"
    path = search_file(fixed=fixed, budget="{trials: 6, epochs: 1}", stopping="{rule: none}")
    ran = hopetune("run", str(path), "--name", "small-lacking")
    assert ran.returncode == 2, ran.stdout
    assert f"cannot go on: {weights}: no such file or folder" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr
    begun = storage.open("small-lacking").record().trials
    assert len(begun) <= 2, "as many as run at a time"
    assert {trial.exit_reason for trial in begun} == {ExitReason.SEARCH_ENDED}
    weights.mkdir()
    state = models.get_model("squeezenet1_1", weights=None).state_dict()
    torch.save(state, weights / "squeezenet1_1-b8a52dc0.pth")
    gone_on = hopetune("run", str(path), "--name", "small-lacking")
    assert gone_on.returncode == 0, gone_on.stdout + gone_on.stderr
    trials = storage.open("small-lacking").record().trials
    assert [trial.exit_reason for trial in trials] == [ExitReason.COMPLETED] * 6


QUEUED = """
import os, sys
from pathlib import Path
from cluster.settings import load_settings
settings = load_settings()
os.environ.update(settings.client_environment())
from tuning import ray_nodes, ray_tune
from tuning.events import Idle, Work
from tuning.spec import load_spec

class Events:
    ends = []
    handed_out = False

    def next_trial(self):
        if self.handed_out:
            return Idle.DONE if self.ends else Idle.WAIT
        self.handed_out = True
        return Work(0, {"alpha": 1.0}, avoid=tuple(ray_nodes.living(1.0)))

    def on_end(self, *end):
        self.ends.append(end)

    def has_place(self, avoid):
        return not set(ray_nodes.living(1.0)) <= set(avoid)

    def hung(self):
        return []

    def must_end(self):
        return False

ray_nodes.connect(settings.require("ray_address"), namespace="queued")
ray_tune.run_trials(Events(), load_spec(Path(sys.argv[1])), "0" * 64, 1.0, lambda: 1)
print(*Events.ends[0])
"""


def test_a_queued_trial_is_taken_back_when_the_last_node_that_it_may_go_to_has_left(
    servers: Settings, search_file: SearchFile
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", QUEUED, str(search_file())],
        env=os.environ | {"HOPETUNE_STATE_DIR": str(servers.state_dir)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    told = "0 1 preempted no node is left that it may go to\n"
    assert done.stdout.endswith(told), done.stdout + done.stderr
