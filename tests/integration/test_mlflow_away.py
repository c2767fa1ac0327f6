"""A search whose driver never saw MLflow, and what `hopetune sync` makes of it afterwards."""

import dataclasses
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from cluster.settings import Settings
from tuning.exits import ExitReason
from tuning.manifest import MANIFEST, PARTS, manifest_of
from tuning.mlflow_client import EXPERIMENT, MlflowRuns, artifact_place, connect
from tuning.objects import Objects
from tuning.places import checkpoints
from tuning.projection import END_TAGS, run_states
from tuning.records import EpochRecord
from tuning.spec import load_spec
from tuning.storage import Storage
from tuning.study import Study

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

OWN = {
    *("hopetune.search", "hopetune.created_ms", "mlflow.runName", "mlflow.parentRunId"),
    "hopetune.node",
}
"""Tags in which two searches differ."""


def all_runs(client: MlflowClient, search: str) -> list[Run]:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return client.search_runs([experiment.experiment_id], f"tags.`hopetune.search` = '{search}'")


def by_trial(client: MlflowClient, search: str) -> dict[str, Run]:
    runs = all_runs(client, search)
    found = {run.data.tags.get("hopetune.trial", "search"): run for run in runs}
    assert len(found) == len(runs), "no trial has two runs"
    return found


def shown(client: MlflowClient, run: Run) -> dict[str, Any]:
    """All that a run shows, but for times and ids."""
    run_id = run.info.run_id
    files = [f.path for f in client.list_artifacts(run_id, "checkpoint")]
    return {
        "status": run.info.status,
        "params": run.data.params,
        "tags": {k: v for k, v in run.data.tags.items() if k not in OWN},
        "metrics": {
            key: sorted((p.step, p.value) for p in client.get_metric_history(run_id, key))
            for key in run.data.metrics
        },
        "artifacts": files,
    }


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_runs_written_afterwards_equal_those_of_an_undisturbed_search(
    servers: Settings, storage: Storage, hopetune: Callable, search_file: Callable[..., Path]
) -> None:
    # One at a time: who is compared with whom does not depend on the clock.
    path = str(
        search_file(
            stopping="{rule: promotion, rungs: [1], factor: 2}",
            budget="{trials: 3, epochs: 2}",
            resources="{parallel_trials: 1}",
        )
    )
    done = hopetune("run", path, "--name", "away-seen")
    assert done.returncode == 0, done.stderr
    away = {"HOPETUNE_MLFLOW_URI": f"http://127.0.0.1:{closed_port()}"}
    done = hopetune("run", path, "--name", "away-unseen", **away)
    assert done.returncode == 0, done.stderr
    assert "MLflow is behind; run `hopetune sync away-unseen`" in done.stderr
    client = connect(servers)
    assert all_runs(client, "away-unseen") == []

    assert hopetune("sync", "away-unseen").returncode == 0
    seen, unseen = by_trial(client, "away-seen"), by_trial(client, "away-unseen")
    assert set(seen) == set(unseen)
    assert len(seen) == 4
    for trial, run in seen.items():
        assert shown(client, unseen[trial]) == shown(client, run), trial
    check_times(client, storage, unseen)

    before = {t: shown(client, run) for t, run in unseen.items()}
    assert hopetune("sync", "away-unseen").returncode == 0
    again = by_trial(client, "away-unseen")
    assert {t: shown(client, run) for t, run in again.items()} == before
    assert {r.info.run_id for r in again.values()} == {r.info.run_id for r in unseen.values()}


def check_times(client: MlflowClient, storage: Storage, runs: dict[str, Run]) -> None:
    """Every time is the one at which it happened, not that of the writing."""
    for trial in storage.open("away-unseen").record().trials:
        run = runs[str(trial.number)]
        assert run.info.start_time == trial.started_ms
        assert run.info.end_time == trial.ended_ms
        points = client.get_metric_history(run.info.run_id, "val_mae")
        assert {p.step: p.timestamp for p in points} == {e.epoch: e.at_ms for e in trial.epochs}
        assert run.data.tags["mlflow.parentRunId"] == runs["search"].info.run_id


def test_orphans_are_ended_and_twins_become_one(
    servers: Settings, storage: Storage, hopetune: Callable, search_file: Callable[..., Path]
) -> None:
    path = str(search_file(stopping="{rule: none}", budget="{trials: 1, epochs: 1}"))
    assert hopetune("run", path, "--name", "small-twins").returncode == 0
    client, record = connect(servers), storage.open("small-twins").record()
    elder = by_trial(client, "small-twins")["0"]
    for trial, started_ms in (("0", record.created_ms + 10**7), ("99", record.created_ms)):
        tags = {"hopetune.search": "small-twins", "hopetune.trial": trial}
        client.create_run(elder.info.experiment_id, started_ms, tags)
    assert hopetune("sync", "small-twins").returncode == 0
    runs = by_trial(client, "small-twins")
    assert runs["0"].info.run_id == elder.info.run_id
    assert runs["99"].info.status == "KILLED"


def test_the_run_of_a_trial_that_goes_on_says_and_has_what_it_comes_to(
    servers: Settings, storage: Storage, search_file: Callable[..., Path]
) -> None:
    """An extended search: it had ended, and a better epoch comes later."""
    spec = load_spec(search_file(stopping="{rule: none}"))
    study = storage.create("small-better", spec, "abc")
    objects, client = Objects(servers), connect(servers)
    runs = MlflowRuns(servers, objects)
    for key in ("before", "after"):
        made_up = manifest_of(
            f"made-up/{key}", [{"val_mae": 9.0}], dict.fromkeys(PARTS, key.encode())
        )
        folder = checkpoints(servers) / made_up.key
        objects.put(folder / made_up.parts["weights"].name, key.encode())
        objects.put(folder / MANIFEST, made_up.to_bytes())

    def train(epoch: int, mae: float, key: str) -> None:
        record = EpochRecord(epoch, epoch, {"val_mae": mae}, f"made-up/{key}", restored=False)
        study.record_epoch(0, record)

    def seen() -> tuple[bytes, set[str]]:
        runs.bring(study.name, run_states(study.record()))
        run = by_trial(client, study.name)["0"]
        folder = artifact_place(run.info.artifact_uri, servers.mlflow_artifact_root)
        parent = by_trial(client, study.name)["search"]
        tags = run.data.tags.keys() | parent.data.tags.keys()
        return objects.get(folder / "checkpoint/weights.safetensors"), END_TAGS & tags

    study.ask()
    train(1, 9.0, "before")
    study.finish(0, ExitReason.COMPLETED)
    study.end("all trials done")
    assert seen() == (b"before", END_TAGS)
    study.reopen()
    study.take_up(0)
    assert seen() == (b"before", set())
    train(2, 5.0, "after")
    study.finish(0, ExitReason.COMPLETED)
    assert seen() == (b"after", END_TAGS - {"hopetune.ended"})


def test_runs_go_where_their_search_is_and_files_into_s3_where_no_server_passes_them_on(
    servers: Settings, storage: Storage, hopetune: Callable, search_file: Callable[..., Path]
) -> None:
    study, client = trained_once(storage, "small-direct", search_file), connect(servers)
    place = f"s3://{servers.s3_bucket}/direct"
    elsewhere = client.create_experiment("renamed", artifact_location=place)
    tags = {"hopetune.search": "small-direct"}
    parent = client.create_run(elsewhere, study.record().created_ms, tags)
    assert hopetune("sync", "small-direct").returncode == 0
    runs = client.search_runs([elsewhere], order_by=["attributes.start_time ASC"])
    assert len(runs) == 2
    assert runs[0].info.run_id == parent.info.run_id

    done = hopetune("report", "small-direct", "--to", str(search_file().parent))
    assert done.returncode == 0, done.stderr
    assert "not logged" not in done.stdout
    folder = artifact_place(f"{place}/{parent.info.run_id}/artifacts", None)
    assert Objects(servers).exists(folder / "report/report.md")
    away = {"MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{closed_port()}"}
    done = hopetune("report", "small-direct", "--to", str(search_file().parent), **away)
    assert done.returncode == 0, done.stderr
    assert "not logged to MLflow" in done.stdout
    assert "the S3 server where it has its artifacts cannot be used" in done.stdout


def trained_once(storage: Storage, name: str, search_file: Callable[..., Path]) -> Study:
    """A search with a trial of one epoch that nobody goes on with."""
    study = storage.create(name, load_spec(search_file()), "abc")
    study.ask()
    study.record_epoch(0, EpochRecord(1, 1, {"val_mae": 9.0}, "made-up/1", restored=False))
    return study


def test_a_search_of_the_same_name_has_runs_of_its_own(
    servers: Settings, storage: Storage, search_file: Callable[..., Path]
) -> None:
    study, client = trained_once(storage, "small-anew", search_file), connect(servers)
    runs = MlflowRuns(servers, Objects(servers))
    runs.bring(study.name, run_states(study.record()))
    earlier = by_trial(client, study.name)
    later = dataclasses.replace(
        study.record(),
        created_ms=study.record().created_ms + 1,
        spec=load_spec(search_file(budget="{trials: 2, epochs: 1}")),
    )
    MlflowRuns(servers, Objects(servers)).bring(study.name, run_states(later))
    assert len(all_runs(client, study.name)) == 4
    for run in earlier.values():
        assert client.get_run(run.info.run_id).data.params == run.data.params


def test_one_search_that_cannot_be_brought_keeps_no_other_from_it(
    storage: Storage, hopetune: Callable, search_file: Callable[..., Path], servers: Settings
) -> None:
    first, second = (
        trained_once(storage, f"small-{name}", search_file) for name in ("mixed", "whole")
    )
    client = connect(servers)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    number = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
    mixed = client.create_run(number, first.record().created_ms, {"hopetune.search": first.name})
    client.log_param(mixed.info.run_id, "sampler", "another one")
    done = hopetune("sync", "--all")
    assert done.returncode == 2
    assert f"2 runs of {second.name} are up to date" in done.stdout
    assert f"{first.name} is behind: " in done.stdout
    assert "searches are not up to date; got 'small-mixed'" in done.stderr
    client.delete_run(mixed.info.run_id)
    assert hopetune("sync", "--all").returncode == 0


def test_an_experiment_that_was_deleted_is_said_with_the_way_back(
    servers: Settings, storage: Storage, hopetune: Callable, search_file: Callable[..., Path]
) -> None:
    study = storage.create("small-deleted", load_spec(search_file()), "abc")
    study.ask()
    study.record_epoch(0, EpochRecord(1, 1, {"val_mae": 9.0}, "made-up/1", restored=False))
    study.finish(0, ExitReason.COMPLETED)
    study.end("all trials done")
    assert hopetune("sync", "small-deleted").returncode == 0
    client = connect(servers)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    try:
        for command in ("sync", "promote"):
            done = hopetune(command, "small-deleted")
            assert done.returncode == 2
            assert "the experiment 'hopetune': was deleted" in done.stderr
            assert f"mlflow experiments restore -x {experiment.experiment_id}`" in done.stderr
            assert "evaluating" not in done.stdout + done.stderr
    finally:
        client.restore_experiment(experiment.experiment_id)
    assert hopetune("sync", "small-deleted").returncode == 0
    assert len(by_trial(client, "small-deleted")) == 2


def test_a_search_without_a_driver_leaves_no_run_running(
    servers: Settings, storage: Storage, search_file: Callable[..., Path]
) -> None:
    study = storage.create("small-left", load_spec(search_file()), "abc")
    study.ask()
    runs, client = MlflowRuns(servers, Objects(servers)), connect(servers)

    def statuses(*, driven: bool) -> set[str]:
        runs.bring("small-left", run_states(study.record(), driven=driven))
        return {run.info.status for run in all_runs(client, "small-left")}

    assert statuses(driven=True) == {"RUNNING"}
    assert statuses(driven=False) == {"KILLED"}
    assert statuses(driven=True) == {"RUNNING"}, "a new driver takes it up"
