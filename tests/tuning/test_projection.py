"""What MLflow must show is a pure function of the study."""

import dataclasses
import threading
import time

import pytest

from tuning.exits import ExitReason
from tuning.mlflow_client import artifact_place, pinned, requirements_of
from tuning.projection import Projection, RunState, run_states
from tuning.records import Attempt, EpochRecord, SearchRecord, TrialRecord
from tuning.space import Choices
from tuning.spec import Budget, Data, SearchSpec
from tuning.storage import Storage
from usererror import UserError

SPEC = SearchSpec(
    name="small",
    data=Data(train="/data/train"),
    parameters={"alpha": Choices(choices=(1.0, 2.0))},
    fixed={"batch_size": 16},
    budget=Budget(trials=3, epochs=2),
)


def epoch(number: int, mae: float) -> EpochRecord:
    return EpochRecord(number, 1000 + number, {"val_mae": mae}, f"key{number}", restored=False)


def trial(number: int, reason: ExitReason | None, *maes: float) -> TrialRecord:
    epochs = tuple(epoch(i, mae) for i, mae in enumerate(maes, start=1))
    state = {ExitReason.COMPLETED: "COMPLETE", ExitReason.STOPPED_EARLY: "PRUNED", None: "RUNNING"}
    return TrialRecord(
        number=number,
        state=state[reason],  # type: ignore[arg-type]
        parameters={"alpha": 1.0},
        epochs=epochs,
        started_ms=1000,
        ended_ms=2000 if reason else None,
        exit_reason=reason,
        detail="after epoch 1" if reason == ExitReason.STOPPED_EARLY else None,
        node="127.0.0.1",
    )


def search(*trials: TrialRecord, ended: str | None = None) -> SearchRecord:
    return SearchRecord("small-1", SPEC, "abc", 900, ended, 3000 if ended else None, trials)


def test_parent_and_children_carry_the_same_search_tags() -> None:
    states = run_states(search(trial(0, None, 9.0)))
    assert [s.trial for s in states] == [None, 0]
    assert all(s.tags["hopetune.search"] == "small-1" for s in states)
    assert [s.status for s in states] == ["RUNNING", "RUNNING"]


def test_a_completed_trial_has_curves_its_best_value_and_its_best_checkpoint() -> None:
    child = run_states(search(trial(0, ExitReason.COMPLETED, 6.0, 7.0), ended="done"))[1]
    assert child.status == "FINISHED"
    assert child.checkpoint_key == "key1"
    assert child.params == {"alpha": "1.0", "batch_size": "16"}
    best = [(p.step, p.value) for p in child.points if p.name == "best_val_mae"]
    assert best == [(1, 6.0), (2, 6.0)]
    assert {p.at_ms for p in child.points} == {1001, 1002}


def test_a_stopped_trial_is_killed_with_its_reason() -> None:
    child = run_states(search(trial(0, ExitReason.STOPPED_EARLY, 9.0)))[1]
    assert (child.status, child.ended_ms, child.checkpoint_key) == ("KILLED", 2000, None)
    assert child.tags["hopetune.exit_reason"] == "stopped_early"
    assert child.tags["hopetune.exit_detail"] == "after epoch 1"


def test_the_parent_ends_with_the_search_and_names_the_best_trial() -> None:
    trials = trial(0, ExitReason.COMPLETED, 6.0), trial(1, ExitReason.COMPLETED, 5.0)
    parent = run_states(search(*trials, ended="all trials done"))[0]
    assert parent.status == "FINISHED"
    assert parent.tags["hopetune.best_trial"] == "1"
    assert parent.points[0].value == 5.0


def test_a_paused_trial_is_scheduled_until_the_search_ends() -> None:
    paused = dataclasses.replace(
        trial(0, ExitReason.STOPPED_EARLY, 9.0), exit_reason=ExitReason.PAUSED
    )
    child = run_states(search(paused))[1]
    assert (child.status, child.ended_ms) == ("SCHEDULED", None)
    child = run_states(search(paused, ended="all trials done"))[1]
    assert (child.status, child.ended_ms) == ("KILLED", 2000)
    assert child.tags["hopetune.exit_reason"] == "stopped_early"


def test_what_was_said_of_a_pause_does_not_outlive_it() -> None:
    completed = dataclasses.replace(
        trial(0, ExitReason.COMPLETED, 9.0, 8.0), detail="after epoch 1"
    )
    assert run_states(search(completed))[1].tags["hopetune.exit_detail"] == "-"


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (ExitReason.DIVERGED, "FAILED"),
        (ExitReason.CRASHED, "FAILED"),
        (ExitReason.OUT_OF_MEMORY, "FAILED"),
        (ExitReason.SEARCH_ENDED, "KILLED"),
    ],
)
def test_every_end_has_its_run_status(reason: ExitReason, status: str) -> None:
    ended = dataclasses.replace(trial(0, ExitReason.STOPPED_EARLY, 9.0), exit_reason=reason)
    child = run_states(search(ended))[1]
    assert (child.status, child.tags["hopetune.exit_reason"]) == (status, reason.value)


# -- the thread ------------------------------------------------------------------------------------


class Hanging:
    """An MLflow that takes requests and never answers."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def bring(self, search: str, states: list[RunState]) -> None:  # noqa: ARG002
        self.asked.set()
        threading.Event().wait(60)


class Away:
    """An MLflow that refuses."""

    def bring(self, search: str, states: list[RunState]) -> None:  # noqa: ARG002
        raise ConnectionError("refused")


class Broken:
    """A writer with a fault of its own."""

    def bring(self, search: str, states: list[RunState]) -> None:  # noqa: ARG002
        raise IndexError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("runs", [Hanging(), Away(), Broken()])
def test_an_mlflow_that_is_away_or_hangs_does_not_keep_a_driver_from_its_end(
    runs: Hanging | Away | Broken, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tuning.projection.GOODBYE_S", 0.5)
    study = Storage.in_memory().create("small-1", SPEC, "abc")
    projection = Projection(study, runs)
    projection.start()
    if isinstance(runs, Hanging):
        assert runs.asked.wait(20)
    began = time.monotonic()
    projection.finish()
    assert time.monotonic() - began < 30, "it would hang for a minute and more"
    assert "run `hopetune sync small-1` when it is back" in caplog.text


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("s3://other/1/run/artifacts", "s3://other/1/run/artifacts"),
        ("mlflow-artifacts:/1/run/artifacts", "s3://bucket/mlflow/1/run/artifacts"),
        ("mlflow-artifacts://host:5000/1/run/artifacts", "s3://bucket/mlflow/1/run/artifacts"),
        ("/mlruns/1/run/artifacts", None),
        ("file:///mlruns/1/run/artifacts", None),
        ("gs://bucket/1/run/artifacts", None),
    ],
)
def test_artifacts_lie_in_s3_or_it_is_said(uri: str, place: str | None) -> None:
    if place is None:
        with pytest.raises(UserError, match=rf"{uri}: an artifact place outside S3"):
            artifact_place(uri, "s3://bucket/mlflow")
    else:
        assert str(artifact_place(uri, "s3://bucket/mlflow")) == place


def test_a_served_network_is_told_what_its_backbone_comes_from() -> None:
    assert "timm" in requirements_of("inception_v4")
    assert "timm" not in requirements_of("resnet18")


def test_a_served_network_asks_for_versions_that_an_index_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = {"torch": "2.10.0+cu130", "numpy": "2.3.1"}
    monkeypatch.setattr("importlib.metadata.version", installed.__getitem__)
    assert pinned(["torch", "numpy"]) == ["torch==2.10.0", "numpy==2.3.1"]


def test_runs_of_a_search_without_a_driver_do_not_run() -> None:
    record = search(trial(0, None, 9.0), trial(1, ExitReason.COMPLETED, 8.0))
    states = run_states(record, driven=False)
    assert [s.status for s in states] == ["KILLED", "KILLED", "FINISHED"]
    assert states[1].ended_ms == 1001


def test_the_run_of_a_search_that_lost_its_driver_ends_with_its_last_trial() -> None:
    record = search(trial(0, None, 9.0, 8.0))
    assert run_states(record, driven=False)[0].ended_ms == 1002
    ended = search(trial(0, None, 9.0), trial(1, ExitReason.COMPLETED, 8.0))
    assert run_states(ended, driven=False)[0].ended_ms == 2000
    assert run_states(search(), driven=False)[0].ended_ms == 900


def test_lost_attempts_and_avoided_nodes_are_tags() -> None:
    lost = Attempt(1, 1000, "10.0.0.7", 4711, 1500, ExitReason.CRASHED, "it died")
    record = dataclasses.replace(
        search(
            dataclasses.replace(
                trial(0, ExitReason.COMPLETED, 9.0), attempts=(lost, Attempt(2, 1600, "10.0.0.8"))
            )
        ),
        avoided_nodes={"10.0.0.7": "all failed"},
    )
    parent, child = run_states(record)
    assert child.tags["hopetune.attempts"] == "2"
    assert child.tags["hopetune.lost_attempts"] == "1: crashed on 10.0.0.7 (it died)"
    assert parent.tags["hopetune.avoided_nodes"] == "10.0.0.7: all failed"
