"""The contract of a study, on each database that may hold it."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.settings import Settings
from tuning.exits import FATES, ExitReason
from tuning.pareto import front
from tuning.records import Attempt, EpochRecord
from tuning.space import Choices, Range, Value
from tuning.spec import Budget, Data, Sampler, SearchSpec
from tuning.storage import Storage
from tuning.study import Study
from usererror import UserError

SPEC = SearchSpec(
    name="small",
    data=Data(train="/data/train"),
    parameters={
        "learning_rate": Range(low=1e-5, high=1e-3, log=True),
        "unfreeze_epoch": Range(low=0, high=3),
        "backbone": Choices(choices=("resnet18", "squeezenet1_1")),
    },
    try_first=({"learning_rate": 1e-4},),
    sampler=Sampler(startup_trials=2, seed=5),
    budget=Budget(trials=6, epochs=3),
)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    url = f"sqlite:///{tmp_path}/study.db"
    if request.param == "postgresql":
        settings: Settings = request.getfixturevalue("servers")
        url = settings.require("study_url")
    opened = Storage(url)
    yield opened
    opened.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"study-{abs(hash(request.node.name))}"


def epoch(number: int, mae: float) -> EpochRecord:
    return EpochRecord(number, 1000 + number, {"val_mae": mae}, f"key{number}", restored=False)


def asked(study: Study) -> tuple[int, dict[str, Value]]:
    found = study.ask()
    assert found is not None
    return found


def test_a_search_comes_back_as_it_was_written(storage: Storage, name: str) -> None:
    storage.create(name, SPEC, "abc")
    record = storage.open(name).record()
    assert (record.spec, record.fingerprint, record.ended) == (SPEC, "abc", None)
    assert name in storage.names()


def test_the_same_search_is_opened_and_another_one_refused(storage: Storage, name: str) -> None:
    storage.create(name, SPEC, "abc")
    assert storage.create(name, SPEC, "abc").name == name
    with pytest.raises(UserError, match="another search has this name"):
        storage.create(name, SPEC.model_copy(update={"name": "another"}), "abc")
    with pytest.raises(UserError, match=r"was begun with other data; got 'other data'.*abc"):
        storage.create(name, SPEC, "other data")


def test_an_unknown_search_is_a_clear_error(storage: Storage) -> None:
    with pytest.raises(UserError, match="no such search"):
        storage.open("absent")


def test_known_good_settings_are_tried_first(storage: Storage, name: str) -> None:
    number, parameters = asked(storage.create(name, SPEC, "abc"))
    assert number == 0
    assert parameters["learning_rate"] == 1e-4
    assert parameters["unfreeze_epoch"] in (0, 1, 2, 3)


@pytest.mark.parametrize("reason", list(ExitReason))
def test_every_exit_reason_has_its_one_fate(
    storage: Storage, name: str, reason: ExitReason
) -> None:
    study = storage.create(name, SPEC, "abc")
    number, _ = asked(study)
    study.record_epoch(number, epoch(1, 9.0))
    study.record_epoch(number, epoch(2, 7.0))
    study.finish(number, reason, "because")
    trial = storage.open(name).record().trials[number]
    assert (trial.state, trial.exit_reason) == (FATES[reason].study_state, reason)
    assert trial.curve == {1: 9.0, 2: 7.0}
    assert trial.value == 7.0
    assert trial.detail == "because"


@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_trial_that_waits_only_to_be_stored_holds_no_worker(
    storage: Storage, name: str, is_resumed: bool
) -> None:
    study = storage.create(name, SPEC, "abc")
    number, _ = asked(study)
    study.record_attempt(number, Attempt(1, 100, "10.0.0.7", 4711))
    study.record_epoch(number, epoch(1, 9.0))
    assert study.trial(number).held_since_ms == 100
    study.record_epoch(number, epoch(3, 7.0))
    if is_resumed:  # a second worker only says again what is known
        study.record_attempt(number, Attempt(2, 1003, "10.0.0.8", 4712))
        assert not study.record_epoch(number, replace(epoch(3, 7.0), at_ms=1500))
    trial = storage.open(name).record().trials[number]
    assert (trial.state, trial.held_since_ms) == ("RUNNING", None)
    assert trial.seconds(now_ms=10**6) == (1.4 if is_resumed else 0.903)
    study.finish(number, ExitReason.COMPLETED)
    assert study.trial(number).attempts == trial.attempts


def test_a_nan_is_kept_and_is_no_value(storage: Storage, name: str) -> None:
    study = storage.create(name, SPEC, "abc")
    number, _ = asked(study)
    study.record_epoch(number, epoch(1, math.nan))
    study.finish(number, ExitReason.DIVERGED)
    trial = storage.open(name).record().trials[number]
    assert math.isnan(trial.curve[1])
    assert trial.value is None
    assert asked(storage.open(name))[0] == number + 1


def test_an_epoch_counts_as_it_was_first_reported(storage: Storage, name: str) -> None:
    study = storage.create(name, SPEC, "abc")
    number, _ = asked(study)
    assert study.record_epoch(number, epoch(1, 9.0))
    assert not study.record_epoch(number, epoch(1, 8.0))
    assert study.record().trials[number].curve == {1: 9.0}


def test_the_best_checkpoint_is_known_after_a_pause_and_to_the_next_driver(
    storage: Storage, name: str
) -> None:
    study = storage.create(name, SPEC, "abc")
    number, _ = asked(study)
    assert study.best_checkpoint(number) is None
    for record in (epoch(1, math.nan), epoch(2, 7.0), epoch(3, 7.0)):
        study.record_epoch(number, record)
    assert study.best_checkpoint(number) == "key2", "the first of equal ones"
    study.finish(number, ExitReason.PAUSED)
    study.take_up(number)
    assert study.best_checkpoint(number) == "key2"
    study.record_epoch(number, epoch(4, 6.0))
    successor = storage.open(name)
    successor.adopt()
    assert study.best_checkpoint(number) == successor.best_checkpoint(number) == "key4"


def test_a_new_driver_adopts_what_the_dead_one_left_running(storage: Storage, name: str) -> None:
    dead = storage.create(name, SPEC, "abc")
    number, parameters = asked(dead)
    dead.record_epoch(number, epoch(1, 9.0))
    successor = storage.open(name)
    assert successor.adopt() == [(number, parameters)]
    assert not successor.record_epoch(number, epoch(1, 9.0))
    successor.record_epoch(number, epoch(2, 8.0))
    successor.finish(number, ExitReason.COMPLETED)
    assert storage.open(name).adopt() == []
    assert [t.state for t in successor.record().trials] == ["COMPLETE"]


def test_a_paused_trial_goes_on_under_its_number_and_exists_once(
    storage: Storage, name: str
) -> None:
    study = storage.create(name, SPEC, "abc")
    number, parameters = asked(study)
    study.record_epoch(number, epoch(1, 9.0))
    study.finish(number, ExitReason.PAUSED)
    other, _ = asked(study)
    assert study.take_up(number) == parameters
    assert study.decided_until(number) == 1
    assert not study.record_epoch(number, epoch(1, 9.0)), "what the checkpoint brings is known"
    study.record_epoch(number, epoch(2, 8.0))
    assert study.adopt() == storage.open(name).adopt()
    study.finish(number, ExitReason.COMPLETED)
    record = storage.open(name).record()
    assert [t.number for t in record.trials] == [number, other]
    trial = record.trials[0]
    assert (trial.state, trial.curve, trial.value) == ("COMPLETE", {1: 9.0, 2: 8.0}, 8.0)


def test_a_driver_that_dies_on_a_trial_taken_up_leaves_it_to_be_adopted(
    storage: Storage, name: str
) -> None:
    dead = storage.create(name, SPEC, "abc")
    number, parameters = asked(dead)
    dead.record_epoch(number, epoch(1, 9.0))
    dead.finish(number, ExitReason.PAUSED)
    dead.take_up(number)
    successor = storage.open(name)
    assert successor.adopt() == [(number, parameters)]
    assert successor.decided_until(number) == 1
    assert successor.record().trials[0].state == "RUNNING"


def test_a_configuration_is_not_proposed_twice(storage: Storage, name: str) -> None:
    space = {"backbone": Choices(choices=("resnet18", "squeezenet1_1", "mobilenet_v2"))}
    spec = SPEC.model_copy(update={"parameters": space, "try_first": ()})
    study = storage.create(name, spec, "abc")
    found = {str(asked(study)[1]["backbone"]) for _ in range(3)}
    assert found == {"resnet18", "squeezenet1_1", "mobilenet_v2"}


def test_what_does_not_fit_into_memory_is_infeasible(storage: Storage, name: str) -> None:
    study = storage.create(name, SPEC, "abc")
    number, _ = asked(study)
    study.finish(number, ExitReason.OUT_OF_MEMORY, "needs 90 GiB")
    entry = study._study.get_trials()[number]
    assert entry.constraints == {"fits_into_memory": 1.0}


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "nsga2"])
def test_proposals_depend_on_the_study_alone(storage: Storage, name: str, sampler: str) -> None:
    """One driver that runs through, and one that is started anew before every proposal."""
    chosen = Sampler(name=sampler, startup_trials=2, seed=5)  # type: ignore[arg-type]
    changes: dict[str, object] = {"sampler": chosen}
    if sampler != "tpe":
        changes["sampler"] = chosen.model_copy(update={"population": 4})
    if sampler == "nsga2":
        changes["objectives"] = ("val_mae", "latency_ms")
    spec = SPEC.model_copy(update=changes)

    def proposals(search: str, restarts: bool) -> list[object]:
        study = storage.create(search, spec, "abc")
        found: list[object] = []
        for index in range(12):
            if restarts:
                study = storage.open(search)
            number, parameters = asked(study)
            found.append(parameters)
            metrics = {"val_mae": 5.0 + index % 3, "latency_ms": 1.0 + index % 4}
            study.record_epoch(number, EpochRecord(1, 1001, metrics, "key", restored=False))
            is_whole = sampler == "nsga2" or index % 2
            study.finish(number, ExitReason.COMPLETED if is_whole else ExitReason.STOPPED_EARLY)
        return found

    assert proposals(f"{name}-a", restarts=False) == proposals(f"{name}-b", restarts=True)


def test_the_wish_to_stop_reaches_the_driver(storage: Storage, name: str) -> None:
    driver = storage.create(name, SPEC, "abc")
    assert not driver.stop_wanted()
    storage.open(name).want_stop()
    assert driver.stop_wanted()
    number, _ = asked(driver)
    driver.finish_running(ExitReason.SEARCH_ENDED, "stopped by its user")
    driver.end("stopped by its user")
    record = storage.open(name).record()
    assert record.ended == "stopped by its user"
    assert record.trials[number].exit_reason == ExitReason.SEARCH_ENDED


def test_a_search_of_several_objectives_has_a_front(storage: Storage, name: str) -> None:
    spec = SPEC.model_copy(update={"objectives": ("val_mae", "latency_ms")})
    study = storage.create(name, spec, "abc")
    reached = [(9.0, 1.0), (5.0, 4.0), (7.0, 4.0), (6.0, 2.0), (5.0, 4.5)]
    for mae, latency in reached:
        number, _ = asked(study)
        study.record_epoch(number, epoch(1, mae))
        last = EpochRecord(2, 1002, {"val_mae": mae + 1, "latency_ms": latency}, "k", False)
        study.record_epoch(number, last)
        study.finish(number, ExitReason.COMPLETED)
    found = front(storage.open(name).record())
    assert [own.trial for own in found] == [1, 3, 0]
    assert found[0].values == (5.0, 4.0)
    assert {t.number for t in study._study.best_trials} == {0, 1, 3}, "Optuna sees the same"


def test_an_unreachable_database_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="the study database cannot be reached"):
        Storage("postgresql+psycopg://nobody:nothing@127.0.0.1:1/hopetune?connect_timeout=2")
