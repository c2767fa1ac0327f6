"""A trial is complete when its checkpoints are stored, and nobody waits for that."""

import io
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tuning.conductor import Conductor
from tuning.events import Work
from tuning.exits import ExitReason
from tuning.progress import ProgressLines
from tuning.records import EpochRecord
from tuning.space import Range
from tuning.spec import Budget, Data, Resources, Sampler, SearchSpec, Stopping
from tuning.storage import Storage
from tuning.storing import Storing
from tuning.study import Study
from usererror import UserError


class Store:
    """The store as the driver sees it: which keys are there, and which have lost their weights."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.without_weights: set[str] = set()
        self.away = False

    def __call__(self, key: str, with_weights: bool) -> bool:
        if self.away:
            raise UserError("s3://x", "the S3 server cannot be used")
        return key in self.keys and not (with_weights and key in self.without_weights)


@pytest.fixture
def store() -> Store:
    return Store()


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_trial_arrives_with_the_last_of_its_keys(store: Store) -> None:
    storing = Storing(store)
    storing.add(3, last="last", best="best")
    store.keys.add("best")
    storing.wait(0.5)
    assert (storing.arrived(), storing.waiting()) == ([], 1)
    store.keys.add("last")
    storing.wait(10)
    assert (storing.arrived(), storing.waiting()) == ([3], 0)
    assert storing.arrived() == []


def test_collected_weights_of_the_best_epoch_are_waited_for(store: Store) -> None:
    storing = Storing(store)
    store.keys = {"best", "last"}
    store.without_weights = {"best", "last"}
    storing.add(3, last="last", best="best")
    storing.wait(0.5)
    assert storing.arrived() == []
    store.without_weights = {"last"}
    storing.wait(10)
    assert storing.arrived() == [3]


def test_a_store_that_is_away_is_asked_again(store: Store) -> None:
    store.away = True
    storing = Storing(store)
    storing.add(0, "key", "key")
    store.keys.add("key")
    time.sleep(0.3)
    assert storing.arrived() == []
    store.away = False
    storing.wait(10)
    assert storing.arrived() == [0]


def test_time_in_which_the_store_is_away_uses_up_no_patience(store: Store) -> None:
    store.away = True
    storing = Storing(store)
    storing.add(0, "key", "key")
    wait_for(storing.is_away)
    time.sleep(0.5)
    assert storing.overdue(patience_s=0.1) == []
    given_up = threading.Event()
    threading.Timer(0.3, given_up.set).start()
    storing.wait(0.1, give_up=given_up.is_set)
    assert given_up.is_set(), "it waited, as nothing was known of the key"
    store.away = False
    wait_for(lambda: storing.overdue(patience_s=0.1) == [(0, True)])


def test_what_does_not_come_is_tried_once_more(store: Store) -> None:
    storing = Storing(store)
    storing.add(1, "key", "key")
    assert storing.overdue() == []
    assert storing.overdue(patience_s=0.0) == [(1, True)]
    assert storing.overdue(patience_s=0.0) == []
    storing.add(1, "key", "key")
    assert storing.overdue(patience_s=0.0) == [(1, False)]


# -- the driver ------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> Study:
    spec = SearchSpec(
        name="small",
        data=Data(train="/data/train"),
        parameters={"alpha": Range(low=0.1, high=2.0)},
        sampler=Sampler(name="tpe", startup_trials=1),
        stopping=Stopping(rule="none"),
        budget=Budget(trials=3, epochs=2),
        resources=Resources(gpus_per_trial=0.0),
    )
    return Storage(f"sqlite:///{tmp_path}/study.db").create("small-1", spec, "fingerprint")


@pytest.fixture
def driver(study: Study, store: Store) -> Conductor:
    return Conductor(study, ProgressLines(io.StringIO()), Storing(store))


def report(driver: Conductor, number: int, epoch: int, mae: float = 5.0) -> bool:
    key = f"trial{number}-epoch{epoch}"
    metrics = {"val_mae": mae, "epoch_seconds": 1.0}
    attempt = driver._running._last[number]
    return driver.on_epoch(number, attempt, EpochRecord(epoch, 1000, metrics, key, False))


def trained(driver: Conductor) -> int:
    work = driver.next_trial()
    assert isinstance(work, Work)
    number = work.number
    assert report(driver, number, 1, mae=4.0)
    assert not report(driver, number, 2)
    return number


def test_a_trained_trial_is_complete_once_best_and_last_checkpoint_are_stored(
    driver: Conductor, study: Study, store: Store
) -> None:
    number = trained(driver)
    assert not driver.must_end()
    assert study.trial(number).state == "RUNNING"
    store.keys |= {"trial0-epoch1", "trial0-epoch2"}
    wait_for(lambda: not driver.must_end() and study.trial(number).state == "COMPLETE")
    assert study.trial(number).exit_reason == ExitReason.COMPLETED
    assert not driver.has_lost_checkpoints()


def test_a_lost_checkpoint_runs_its_trial_again_and_no_third_time(
    driver: Conductor, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.conductor.SETTLE_S", 0.1)
    number = trained(driver)
    parameters = study.trial(number).parameters
    assert driver.has_lost_checkpoints()
    assert driver.next_trial() == Work(number, parameters, attempt=2, trained_epochs=2)
    assert not report(driver, number, 2)
    assert not driver.has_lost_checkpoints()
    assert study.trial(number).exit_reason == ExitReason.CRASHED


def test_a_driver_that_died_meanwhile_leaves_the_trial_to_the_next_one(
    driver: Conductor, study: Study, store: Store
) -> None:
    number = trained(driver)
    successor = Conductor(study, ProgressLines(io.StringIO()), Storing(store))
    parameters = study.trial(number).parameters
    assert successor.next_trial() == Work(number, parameters, trained_epochs=2)
    store.keys |= {"trial0-epoch1", "trial0-epoch2"}
    assert not report(successor, number, 2)
    assert not successor.has_lost_checkpoints()
    assert study.trial(number).state == "COMPLETE"


def test_with_others_running_no_proposal_waits(driver: Conductor, study: Study) -> None:
    first = driver.next_trial()
    assert isinstance(first, Work)
    trained(driver)
    began = time.monotonic()
    assert isinstance(driver.next_trial(), Work)
    assert time.monotonic() - began < 2
    assert [t.state for t in study.record().trials] == ["RUNNING"] * 3
