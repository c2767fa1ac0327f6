"""A whole search through the real servers, from the command line to the registry."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from cluster.settings import Settings
from tuning.manifest import weights_place
from tuning.mlflow_client import EXPERIMENT, connect
from tuning.objects import Objects, parse_place
from tuning.records import SearchRecord
from tuning.storage import Storage

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

SearchFile = Callable[..., Path]


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.5)


def runs_of(settings: Settings, search: str) -> dict[int | None, Run]:
    client: MlflowClient = connect(settings)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.`hopetune.search` = '{search}'")
    keys = [run.data.tags.get("hopetune.trial") for run in found]
    return {None if key is None else int(key): run for key, run in zip(keys, found, strict=True)}


@pytest.fixture(scope="module")
def finished(
    servers: Settings, storage: Storage, published: tuple[str, str], tmp_path_factory
) -> SearchRecord:  # type: ignore[no-untyped-def]
    """A search that was submitted from a terminal which was closed at once."""
    name = "small-closed-terminal"
    path = tmp_path_factory.mktemp("search") / "small.yaml"
    path.write_text(
        f"""
name: small
data: {{train: {published[0]}, test: {published[1]}, validation_fraction: 0.2}}
parameters:
  alpha: {{low: 0.01, high: 1.0, log: true}}
  learning_rate: {{low: 1e-4, high: 3e-3, log: true}}
  unfreeze_epoch: {{low: 0, high: 2}}
fixed: {{backbone: squeezenet1_1, image_px: 32, batch_size: 16, seed: 148}}
try_first: [{{learning_rate: 1e-3}}]
sampler: {{name: random, seed: 4}}
stopping: {{rule: stopping, first_rung: 1, factor: 2}}
budget: {{trials: 6, epochs: 3}}
resources: {{parallel_trials: 2}}
checkpoints: {{keep_top: 6}}
""",
        encoding="utf-8",
    )
    # Whoever runs the tests under nohup has SIGHUP ignored; a terminal's programs have not.
    default = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    command = f"{default}; from tuning.cli.main import main; main()"
    terminal = subprocess.Popen(
        [sys.executable, "-c", command, "submit", str(path), "--name", name, "--follow"],
        env=os.environ | {"HOPETUNE_STATE_DIR": str(servers.state_dir)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert terminal.stdout is not None
    assert "is submitted" in terminal.stdout.readline()
    os.killpg(terminal.pid, signal.SIGHUP)
    assert terminal.wait(timeout=100) == -signal.SIGHUP
    terminal.stdout.close()
    wait_for(lambda: name in storage.names(), 200)
    wait_for(lambda: storage.open(name).record().ended is not None, 200)
    return storage.open(name).record()


def test_the_search_goes_on_without_its_terminal(finished: SearchRecord) -> None:
    assert finished.ended == "all trials done"
    assert len(finished.trials) == 6
    assert finished.count("COMPLETE", "PRUNED") == 6
    assert finished.trials[0].parameters["learning_rate"] == 1e-3


def test_pruned_trials_are_pruned_with_their_intermediate_values(finished: SearchRecord) -> None:
    pruned = [t for t in finished.trials if t.state == "PRUNED"]
    assert pruned, "six random configurations at factor 2 stop at least one"
    for trial in pruned:
        assert trial.exit_reason == "stopped_early"
        assert sorted(trial.curve) == list(range(1, len(trial.curve) + 1))
        assert len(trial.curve) < 3
    for trial in finished.trials:
        if trial.state == "COMPLETE":
            assert sorted(trial.curve) == [1, 2, 3]


def test_mlflow_holds_a_parent_and_every_child(servers: Settings, finished: SearchRecord) -> None:
    wait_for(lambda: runs_of(servers, finished.name)[None].info.status == "FINISHED", 120)
    runs = runs_of(servers, finished.name)
    parent = runs.pop(None)
    assert sorted(key for key in runs if key is not None) == [0, 1, 2, 3, 4, 5]
    for trial in finished.trials:
        run = runs[trial.number]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        expected = {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}[trial.state]
        assert run.info.status == expected
        assert run.data.tags["hopetune.exit_reason"] == trial.exit_reason
        assert float(run.data.params["alpha"]) == trial.parameters["alpha"]
        assert run.data.params["backbone"] == "squeezenet1_1"
        history = connect(servers).get_metric_history(run.info.run_id, "val_mae")
        assert {point.step: point.value for point in history} == pytest.approx(trial.curve)
        assert run.data.metrics["best_val_mae"] == pytest.approx(trial.value)


def test_every_completed_trial_has_its_best_checkpoint_in_s3(
    servers: Settings, finished: SearchRecord
) -> None:
    objects = Objects(servers)
    artifacts = parse_place(servers.require("mlflow_artifact_root"))
    runs = runs_of(servers, finished.name)
    for trial in finished.trials:
        if trial.state != "COMPLETE":
            continue
        run = runs[trial.number]
        listed = connect(servers).list_artifacts(run.info.run_id, "checkpoint")
        assert [entry.path for entry in listed] == ["checkpoint/weights.safetensors"]
        key = f"{run.info.experiment_id}/{run.info.run_id}/artifacts/checkpoint/weights.safetensors"
        copied = objects.get(artifacts / key)
        best = trial.best_epoch
        assert best is not None
        root = parse_place(f"s3://{servers.s3_bucket}/checkpoints")
        assert copied == objects.get(weights_place(objects, root, best.checkpoint_key))


def test_what_was_trained_before_is_not_trained_again(
    storage: Storage, hopetune: Callable, search_file: SearchFile
) -> None:
    def run(epochs: int, name: str) -> str:
        path = search_file(
            stopping="{rule: none}",
            budget=f"{{trials: 2, epochs: {epochs}}}",
            # Of this seed no other test has stored anything.
            fixed="{backbone: squeezenet1_1, image_px: 32, batch_size: 16, seed: 147}",
        )
        done = hopetune("run", str(path), "--name", name)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(1, "small-short")
    assert "2 epochs trained, 2 taken from the store" in run(2, "small-longer")
    assert "0 epochs trained, 4 taken from the store" in run(2, "small-again")
    longer, again = (storage.open(f"small-{name}").record().trials for name in ("longer", "again"))
    assert [t.parameters for t in longer] == [t.parameters for t in again]
    assert [t.curve for t in longer] == [t.curve for t in again]


def test_a_diverging_trial_ends_at_once(
    servers: Settings, storage: Storage, hopetune: Callable, search_file: SearchFile
) -> None:
    path = search_file(parameters="{alpha: {choices: [1e38]}}", budget="{trials: 1, epochs: 3}")
    done = hopetune("run", str(path), "--name", "small-diverged")
    assert done.returncode == 2
    assert (
        "small-diverged: every trial failed; got '1 of 1, the last one: in epoch 1'" in done.stderr
    )
    trial = storage.open("small-diverged").record().trials[0]
    assert (trial.exit_reason, trial.state, len(trial.epochs)) == ("diverged", "PRUNED", 1)
    assert runs_of(servers, "small-diverged")[0].info.status == "FAILED"


def test_stop_ends_a_search_and_its_runs(
    servers: Settings, storage: Storage, hopetune: Callable, search_file: SearchFile
) -> None:
    path = search_file(stopping="{rule: none}", budget="{trials: 50, epochs: 50}")
    name = "small-stopped"
    submitted = hopetune("submit", str(path), "--name", name, "--json")
    assert json.loads(submitted.stdout)["name"] == name
    wait_for(lambda: name in storage.names(), 200)
    wait_for(lambda: any(t.epochs for t in storage.open(name).record().trials), 200)
    stopped = hopetune("stop", name)
    assert f"search {name} is stopped" in stopped.stdout, stopped.stderr
    record = storage.open(name).record()
    assert record.ended == "stopped by its user"
    assert record.count("RUNNING") == 0
    wait_for(lambda: runs_of(servers, name)[None].info.status == "FINISHED", 120)
    assert all(run.info.status != "RUNNING" for run in runs_of(servers, name).values())
    assert "stopped by its user" in hopetune("logs", name).stdout


def test_show_and_ls_tell_people_and_programs(hopetune: Callable, finished: SearchRecord) -> None:
    assert finished.name in hopetune("ls").stdout
    shown = json.loads(hopetune("show", finished.name, "--json").stdout)
    best = finished.best()
    assert best is not None
    assert shown["best_trial"] == best.number
    assert len(shown["trials"]) == 6
    assert "stopped_early" in hopetune("show", finished.name).stdout


def test_paused_trials_go_on_from_their_checkpoints_and_exist_once(
    servers: Settings, storage: Storage, hopetune: Callable, search_file: SearchFile
) -> None:
    path = search_file(
        stopping="{rule: promotion, rungs: [1, 2], factor: 2}", budget="{trials: 5, epochs: 3}"
    )
    done = hopetune("run", str(path), "--name", "small-paused")
    assert done.returncode == 0, done.stderr
    assert "goes on" in done.stdout
    study = storage.open("small-paused")
    record = study.record()
    assert len(record.trials) == 5
    assert len(study._trials()) > 5, "a trial that was taken up has several entries"
    assert record.count("COMPLETE") >= 1
    assert {t.exit_reason for t in record.trials} == {"completed", "paused"}
    runs = runs_of(servers, "small-paused")
    assert sorted(key for key in runs if key is not None) == [t.number for t in record.trials]
    for trial in record.trials:
        expected = {"completed": "FINISHED", "paused": "KILLED"}[str(trial.exit_reason)]
        assert runs[trial.number].info.status == expected
        history = connect(servers).get_metric_history(runs[trial.number].info.run_id, "val_mae")
        assert {point.step: point.value for point in history} == pytest.approx(trial.curve)


def test_its_report_lies_in_files_and_in_the_parent_run(
    servers: Settings,
    finished: SearchRecord,
    hopetune: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    done = hopetune("report", finished.name, "--test", "--to", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "| measured on | Yaw | Pitch | Roll | MAE |" in done.stdout
    assert done.stdout.count("| test |") == finished.count("COMPLETE")
    assert "not logged" not in done.stdout
    written = {path.name for path in (tmp_path / finished.name).iterdir()}
    assert written == {"report.md", "report.csv", "report.png"}
    parent = runs_of(servers, finished.name)[None]
    listed = connect(servers).list_artifacts(parent.info.run_id, "report")
    assert {entry.path.removeprefix("report/") for entry in listed} == written
