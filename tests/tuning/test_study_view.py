"""What samplers are shown: a trained trial counts before its last checkpoint is stored."""

import optuna

from tuning.exits import ExitReason
from tuning.records import EpochRecord
from tuning.space import Range
from tuning.spec import Budget, Data, Sampler, SearchSpec
from tuning.storage import Storage
from tuning.study import Study


def searched() -> Study:
    spec = SearchSpec(
        name="s",
        data=Data(train="x"),
        parameters={"learning_rate": Range(low=1e-5, high=1e-3, log=True)},
        budget=Budget(trials=9, epochs=2),
        sampler=Sampler(name="tpe", startup_trials=1, seed=1),
    )
    return Storage.in_memory().create("s", spec, "")


def train(study: Study, value: float) -> int:
    asked = study.ask()
    assert asked is not None
    for epoch, mae in ((1, value + 1), (2, value)):
        record = EpochRecord(epoch, 0, {"val_mae": mae}, "", restored=False)
        study.record_epoch(asked[0], record)
    return asked[0]


def proposed(*, stored_at_once: bool) -> list[object]:
    study = searched()
    for value in (9.0, 7.0, 8.0, 6.5):
        number = train(study, value)
        if stored_at_once:
            study.finish(number, ExitReason.COMPLETED)
    return [trial.parameters["learning_rate"] for trial in study.record().trials]


def test_proposals_do_not_depend_on_when_checkpoints_are_stored() -> None:
    assert proposed(stored_at_once=False) == proposed(stored_at_once=True)


def test_a_trial_that_still_trains_is_not_told() -> None:
    study = searched()
    asked = study.ask()
    assert asked is not None
    study.record_epoch(asked[0], EpochRecord(1, 0, {"val_mae": 3.0}, "", restored=False))
    view = study._sampled_from
    view.look()
    assert [t.state for t in view.get_trials()] == [optuna.trial.TrialState.RUNNING]
