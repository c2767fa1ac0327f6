"""Searches that end before their time and go on: a real study in memory, no workers."""

import pytest

from tuning.conductor import Conductor
from tuning.events import Idle, Work
from tuning.exits import ExitReason
from tuning.going_on import nothing_left, unfinished
from tuning.records import EpochRecord
from tuning.simulation.simulator import Silent
from tuning.space import Choices, Range
from tuning.spec import Budget, Data, Sampler, SearchSpec, Stopping
from tuning.storing import AtOnce
from tuning.study import Storage, Study

SPEC = SearchSpec(
    name="small",
    data=Data(train="/data/train"),
    parameters={
        "learning_rate": Range(low=1e-5, high=1e-3, log=True),
        "backbone": Choices(choices=("resnet18", "squeezenet1_1")),
    },
    sampler=Sampler(name="random"),
    stopping=Stopping(rule="none"),
    budget=Budget(trials=3, epochs=3),
)


class Now:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        self.ms += 1000
        return self.ms


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def study(now: Now) -> Study:
    return Storage.in_memory().create("x", SPEC, "abc", now)


def driver_of(study: Study, now: Now) -> Conductor:
    return Conductor(study, Silent(), AtOnce(), now)


def begun(driver: Conductor) -> Work:
    work = driver.next_trial()
    assert isinstance(work, Work)
    return work


def train(driver: Conductor, work: Work, epochs: range) -> None:
    for epoch in epochs:
        record = EpochRecord(epoch, 1, {"val_mae": 9.0 - epoch}, f"key{epoch}", restored=False)
        driver.on_epoch(work.number, work.attempt, record)


def test_the_study_is_whole_as_soon_as_the_end_is_asked_for(study: Study, now: Now) -> None:
    driver = driver_of(study, now)
    work = begun(driver)
    train(driver, work, range(1, 2))
    begun(driver)
    driver.ask_to_end("stopped by SIGTERM", at_once=True)
    assert driver.must_end()
    record = study.record()
    assert (record.ended, record.count("RUNNING")) == ("stopped by SIGTERM", 0)
    assert {t.exit_reason for t in record.trials} == {ExitReason.SEARCH_ENDED}
    # What a worker says afterwards is heard no more.
    train(driver, work, range(2, 3))
    assert study.record() == record
    assert driver.next_trial() is Idle.DONE


def test_interrupted_trials_go_on_under_their_numbers(study: Study, now: Now) -> None:
    stopped = driver_of(study, now)
    work = begun(stopped)
    train(stopped, work, range(1, 3))
    other = begun(stopped)
    stopped.ask_to_end("stopped by its user")
    assert stopped.must_end()
    assert [t.number for t in unfinished(study.record())] == [work.number, other.number]

    study.reopen()
    assert study.record().ended is None
    driver = driver_of(study, now)
    assert not driver.must_end()
    again = begun(driver)
    assert (again.number, again.parameters) == (work.number, work.parameters)
    train(driver, again, range(1, 4))  # a worker reports once more what is stored
    assert begun(driver).number == other.number
    train(driver, other, range(1, 4))
    train(driver, begun(driver), range(1, 4))
    driver.next_trial()
    record = study.record()
    assert [sorted(t.curve) for t in record.trials] == [[1, 2, 3]] * 3
    assert {t.state for t in record.trials} == {"COMPLETE"}


def test_a_search_that_did_all_its_trials_has_nothing_to_go_on_with(study: Study, now: Now) -> None:
    driver = driver_of(study, now)
    assert nothing_left(study.record(), now()) is None
    for _ in range(3):
        train(driver, begun(driver), range(1, 4))
    assert driver.next_trial() is Idle.DONE
    study.end(driver.ended_by)
    why = nothing_left(study.record(), now())
    assert why == "nothing is left to train: all trials done"


def test_a_used_up_budget_is_said_beforehand(now: Now) -> None:
    budget = Budget(trials=3, epochs=3, total_epochs=2)
    spec = SPEC.model_copy(update={"budget": budget})
    study = Storage.in_memory().create("x", spec, "abc", now)
    driver = driver_of(study, now)
    train(driver, begun(driver), range(1, 3))
    assert driver.must_end()
    assert nothing_left(study.record(), now()) == "its budget is used up: 2 of 2 epochs used"


def test_time_without_a_driver_costs_nothing(study: Study, now: Now) -> None:
    dead = driver_of(study, now)
    work = begun(dead)
    train(dead, work, range(0))
    hours = study.record().gpu_hours(now.ms)
    now.ms += 10 * 3600 * 1000
    successor = driver_of(study, now)
    assert begun(successor).number == work.number
    record = study.record()
    assert record.gpu_hours(now.ms) < hours + 0.01
    assert successor._ledger.usage(now.ms).gpu_hours < hours + 0.01
