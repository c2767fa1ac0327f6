"""Each way in which a trial ends badly, to its stated end in the study and in MLflow.

The servers, the study, the decisions and the projection are real; the trainings are curves, for
nothing on a CPU runs out of a GPU's memory.
"""

import numpy as np
import pytest
from mlflow.entities import Run

from cluster.settings import Settings
from tuning.conductor import Conductor
from tuning.exits import ExitReason
from tuning.mlflow_client import MlflowRuns
from tuning.objects import Objects
from tuning.places import checkpoints
from tuning.projection import run_states
from tuning.records import SearchRecord, TrialRecord
from tuning.simulation.clock import VirtualClock
from tuning.simulation.simulator import Silent, Simulator
from tuning.simulation.surrogates import Curve
from tuning.space import Choices
from tuning.spec import Budget, Data, Resources, Sampler, SearchSpec, Stopping
from tuning.storage import Storage
from tuning.storing import AtOnce

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

NAME = "small-fates"
FLAT, BETTER = np.full(3, 9.0), np.full(3, 8.0)
CURVES = {
    "resnet18": Curve(FLAT, np.array([9.0, np.nan, 9.0]), 100),
    "resnet34": Curve(FLAT, FLAT, 100, crashes_in=2),
    "resnet50": Curve(FLAT, FLAT, 100, out_of_memory=True),
    "resnet101": Curve(BETTER, BETTER, 100),
}


@pytest.fixture(scope="module")
def ended(servers: Settings, storage: Storage) -> tuple[SearchRecord, dict[int | None, Run]]:
    search = SearchSpec(
        name="fates",
        data=Data(train="simulated"),
        parameters={"backbone": Choices(choices=tuple(CURVES))},
        stopping=Stopping(rule="none"),
        sampler=Sampler(name="random", seed=2),
        budget=Budget(trials=8, epochs=3),
        resources=Resources(retries=1),
    )
    clock = VirtualClock()
    study = storage.create(NAME, search, "simulated", clock)
    conductor = Conductor(study, Silent(), AtOnce(), clock)
    Simulator(conductor, lambda s: CURVES[str(s["backbone"])], clock, 1).run()
    study.finish_running(ExitReason.SEARCH_ENDED, conductor.ended_by)
    study.end(conductor.ended_by)
    objects = Objects(servers)
    objects.put(checkpoints(servers) / "simulated/weights.safetensors", b"made up")
    record = study.record()
    MlflowRuns(servers, objects).bring(NAME, run_states(record))
    found = MlflowRuns(servers, objects)._found(NAME, record.created_ms)
    return record, {trial: run for trial, (run,) in found.items()}


@pytest.mark.parametrize(
    ("backbone", "state", "reason", "epochs", "status"),
    [
        ("resnet18", "PRUNED", "diverged", 2, "FAILED"),
        ("resnet34", "FAIL", "crashed", 1, "FAILED"),
        ("resnet50", "PRUNED", "out_of_memory", 0, "FAILED"),
        ("resnet101", "COMPLETE", "completed", 3, "FINISHED"),
    ],
)
def test_it_ends_as_stated(
    ended: tuple[SearchRecord, dict[int | None, Run]],
    backbone: str,
    state: str,
    reason: str,
    epochs: int,
    status: str,
) -> None:
    record, runs = ended
    trial = first_of(record, backbone)
    run = runs[trial.number]
    assert (trial.state, trial.exit_reason, len(trial.epochs)) == (state, reason, epochs)
    assert (run.info.status, run.data.tags["hopetune.exit_reason"]) == (status, reason)
    assert run.info.end_time == trial.ended_ms


def test_a_crash_is_tried_again_and_memory_is_not(
    ended: tuple[SearchRecord, dict[int | None, Run]], storage: Storage
) -> None:
    record, _ = ended
    crashed, too_big = first_of(record, "resnet34"), first_of(record, "resnet50")
    assert [a.cause for a in crashed.attempts] == [ExitReason.CRASHED] * 2
    assert not [a for a in too_big.attempts if a.cause], "an attempt that is tried again has one"
    entries = storage.open(NAME)._study.get_trials()
    assert entries[too_big.entry].constraints == {"fits_into_memory": 1.0}


def test_a_duplicate_ends_like_its_twin_and_trains_nothing(
    ended: tuple[SearchRecord, dict[int | None, Run]],
) -> None:
    """Eight trials in a space of four configurations."""
    record, runs = ended
    assert len(record.trials) == 8
    assert set(runs) == {None, *(t.number for t in record.trials)}
    twins = [t for t in record.trials if t.number != first_of(record, name_of(t)).number]
    assert len(twins) == 4
    for twin in twins:
        assert twin.exit_reason == first_of(record, name_of(twin)).exit_reason
        if twin.exit_reason == ExitReason.COMPLETED:
            assert all(epoch.restored for epoch in twin.epochs)
        assert runs[twin.number].info.status != "RUNNING"


def first_of(record: SearchRecord, backbone: str) -> TrialRecord:
    return next(t for t in record.trials if name_of(t) == backbone)


def name_of(trial: TrialRecord) -> str:
    return str(trial.parameters["backbone"])
