"""A reached target: the trial that reached it is finished, alone. A study in memory, no workers."""

import contextlib
import math
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from tuning.cli import control
from tuning.cli.main import app
from tuning.conductor import Conductor
from tuning.events import Idle, Work
from tuning.exits import ExitReason
from tuning.extension import changes, with_budget
from tuning.going_on import nothing_left
from tuning.records import EpochRecord
from tuning.simulation.clock import VirtualClock
from tuning.simulation.simulator import Silent
from tuning.space import Range
from tuning.spec import Budget, Data, Resources, Sampler, SearchSpec, Stopping
from tuning.storage import Storage
from tuning.storing import AtOnce
from tuning.study import Study
from usererror import UserError

LAST = 9
SPEC = SearchSpec(
    name="small",
    data=Data(train="/data/train"),
    parameters={"learning_rate": Range(low=1e-5, high=1e-3, log=True)},
    sampler=Sampler(name="random"),
    stopping=Stopping(rungs=(2, 5)),
    budget=Budget(trials=20, epochs=LAST, total_epochs=1000, target_mae_deg=5.0),
    resources=Resources(retries=0),
)
REACHED = "target reached: 4.900° is at most 5°"


class Held(AtOnce):
    """A store that has not yet what some trials left on their nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.held: set[int] = set()
        self.gone: list[int] = []

    def add(self, number: int, last: str, best: str) -> None:  # noqa: ARG002
        self.held.add(number)

    def waiting(self) -> int:
        return len(self.held)

    def numbers(self) -> set[int]:
        return {*self.held, *self._arrived}

    def arrive(self) -> None:
        self._arrived, self.held = [*self._arrived, *self.held], set()

    def lost(self, patience_s: float = 0.0) -> list[int]:  # noqa: ARG002
        found, self.gone = self.gone, []
        self.held -= set(found)
        return found


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def study(clock: VirtualClock) -> Study:
    return Storage.in_memory().create("x", SPEC, "abc", clock)


def driver_of(study: Study, clock: VirtualClock, storing: AtOnce | None = None) -> Conductor:
    return Conductor(study, Silent(), storing or AtOnce(), clock)


def begun(driver: Conductor) -> Work:
    work = driver.next_trial()
    assert isinstance(work, Work)
    driver.on_start(work.number, work.attempt, "10.0.0.7", 4711)
    return work


def record(epoch: int, mae_deg: float) -> EpochRecord:
    metrics = {"val_mae": mae_deg, "epoch_seconds": 1.0}
    return EpochRecord(epoch, 1, metrics, f"key{epoch}", restored=False)


def report(driver: Conductor, work: Work, *maes_deg: float, first: int = 1) -> list[bool]:
    return [
        driver.on_epoch(work.number, work.attempt, record(epoch, mae_deg))
        for epoch, mae_deg in enumerate(maes_deg, start=first)
    ]


def must_end(driver: Conductor, clock: VirtualClock) -> bool:
    clock.move_to(clock() + 2000)
    return driver.must_end()


def ends(study: Study) -> list[ExitReason | None]:
    return [trial.exit_reason for trial in study.record().trials]


def with_a_winner(driver: Conductor) -> tuple[Work, Work]:
    """Another trial, and one that reaches the target at the first rung, where it would pause."""
    other, winner = begun(driver), begun(driver)
    assert report(driver, other, 9.0) == [True]
    assert report(driver, winner, 8.0, 4.9) == [True, True]
    return other, winner


def test_who_reaches_it_is_trained_to_its_end_and_all_others_end_at_once(
    study: Study, clock: VirtualClock
) -> None:
    driver = driver_of(study, clock)
    paused = begun(driver)
    assert report(driver, paused, 9.0, 9.0) == [True, False]
    other, winner = with_a_winner(driver)
    assert ends(study) == [ExitReason.PAUSED, ExitReason.SEARCH_ENDED, None]
    assert study.record().trials[other.number].detail == REACHED
    assert report(driver, other, 1.0, first=2) == [False], "it is heard no more"
    assert driver.next_trial() is Idle.WAIT
    assert not must_end(driver, clock)
    assert report(driver, winner, 6, 6, 6, 6, 6, 6, 6, first=3) == [*[True] * 6, False]
    assert driver.next_trial() is Idle.DONE
    assert driver.ended_by == REACHED
    assert must_end(driver, clock)
    assert study.record().ended == REACHED
    assert ends(study)[winner.number] == ExitReason.COMPLETED
    assert nothing_left(study.record(), clock()) == f"its budget is used up: {REACHED}"


def test_a_driver_that_died_before_it_ended_the_others_is_followed_by_one_that_does(
    study: Study, clock: VirtualClock
) -> None:
    dead = driver_of(study, clock)
    works = [begun(dead) for _ in range(3)]
    report(dead, works[2], 9.0)
    study.record_epoch(1, record(1, 4.9))
    driver = driver_of(study, clock)
    assert ends(study) == [ExitReason.SEARCH_ENDED, None, ExitReason.SEARCH_ENDED]
    assert not must_end(driver, clock)
    again = begun(driver)
    assert (again.number, again.trained_epochs) == (1, 1)
    assert driver.next_trial() is Idle.WAIT
    report(driver, again, *[6.0] * 8, first=2)
    assert must_end(driver, clock)
    assert ends(study)[1] == ExitReason.COMPLETED


@pytest.mark.parametrize("how", ["diverges", "crashes"])
def test_if_it_fails_afterwards_the_search_ends_nevertheless(
    study: Study, clock: VirtualClock, how: str
) -> None:
    driver = driver_of(study, clock)
    _, winner = with_a_winner(driver)
    if how == "diverges":
        assert report(driver, winner, math.nan, first=3) == [False]
    else:
        driver.on_end(winner.number, winner.attempt, ExitReason.CRASHED, "it fell over")
    assert driver.next_trial() is Idle.DONE
    assert must_end(driver, clock)
    assert study.record().ended == REACHED
    assert nothing_left(study.record(), clock()) == f"its budget is used up: {REACHED}"


def test_a_worker_that_is_taken_away_costs_it_nothing(study: Study, clock: VirtualClock) -> None:
    driver = driver_of(study, clock)
    _, winner = with_a_winner(driver)
    driver.on_end(winner.number, winner.attempt, ExitReason.PREEMPTED, "its node is lost")
    assert not must_end(driver, clock)
    again = begun(driver)
    assert (again.number, again.trained_epochs) == (winner.number, 2)


def test_other_ends_cut_it_off_and_it_alone_goes_on_afterwards(
    study: Study, clock: VirtualClock
) -> None:
    driver = driver_of(study, clock)
    _, winner = with_a_winner(driver)
    study.want_stop()
    assert must_end(driver, clock)
    assert study.record().ended == "stopped by its user"
    assert set(ends(study)) == {ExitReason.SEARCH_ENDED}
    assert nothing_left(study.record(), clock()) is None
    study.reopen()
    driver = driver_of(study, clock)
    assert not must_end(driver, clock), "it is not under way yet, but will be"
    again = begun(driver)
    assert again.number == winner.number
    assert driver.next_trial() is Idle.WAIT
    report(driver, again, *[6.0] * 7, first=3)
    assert must_end(driver, clock)
    assert ends(study) == [ExitReason.SEARCH_ENDED, ExitReason.COMPLETED]


def test_a_used_up_budget_ends_even_it(clock: VirtualClock) -> None:
    budget = SPEC.budget.model_copy(update={"total_epochs": 3})
    spec = SPEC.model_copy(update={"budget": budget})
    study = Storage.in_memory().create("x", spec, "abc", clock)
    driver = driver_of(study, clock)
    with_a_winner(driver)
    assert must_end(driver, clock)
    assert study.record().ended == "3 of 3 epochs used"
    assert set(ends(study)) == {ExitReason.SEARCH_ENDED}


def that_stops_none(clock: VirtualClock) -> tuple[Study, Held, Conductor]:
    """A search whose rule lets each trial train to its end, and what its trials wait for then."""
    held = Held()
    spec = SPEC.model_copy(update={"stopping": Stopping(rule="none")})
    study = Storage.in_memory().create("x", spec, "abc", clock)
    return study, held, driver_of(study, clock, held)


def test_what_only_waits_to_be_stored_has_its_time(clock: VirtualClock) -> None:
    study, held, driver = that_stops_none(clock)
    lost, trained = begun(driver), begun(driver)
    for work in (lost, trained):
        report(driver, work, *[7.0] * LAST)
    _, winner = with_a_winner(driver)
    assert {lost.number, trained.number, winner.number} <= study.open_trials()
    held.gone = [lost.number]
    assert driver.next_trial() is Idle.WAIT
    assert not study.is_open(lost.number), "it would have to be trained again"
    report(driver, winner, *[6.0] * 7, first=3)
    assert driver.next_trial() is Idle.DONE
    assert not must_end(driver, clock), "its checkpoints are not stored yet"
    held.arrive()
    assert must_end(driver, clock)
    assert ends(study)[trained.number] == ends(study)[winner.number] == ExitReason.COMPLETED
    assert ends(study)[lost.number] == ExitReason.SEARCH_ENDED


def test_what_was_stored_this_very_moment_is_complete(clock: VirtualClock) -> None:
    study, held, driver = that_stops_none(clock)
    trained, winner = begun(driver), begun(driver)
    report(driver, trained, *[7.0] * LAST)
    held.arrive()
    report(driver, winner, 4.9)
    assert driver.next_trial() is Idle.WAIT
    assert ends(study) == [ExitReason.COMPLETED, None]


def test_what_a_dead_driver_left_to_be_stored_is_no_end_either(clock: VirtualClock) -> None:
    spec = SPEC.model_copy(update={"stopping": Stopping(rule="none")})
    study = Storage.in_memory().create("x", spec, "abc", clock)
    dead = driver_of(study, clock, Held())
    trained, winner, other = begun(dead), begun(dead), begun(dead)
    report(dead, trained, *[7.0] * LAST)
    report(dead, other, 9.0)
    study.record_epoch(winner.number, record(1, 4.9))
    driver = driver_of(study, clock)
    assert ends(study) == [None, None, ExitReason.SEARCH_ENDED]
    again = begun(driver)
    assert again.number == trained.number
    report(driver, again, 7.0, first=LAST)  # found in the store
    assert ends(study)[trained.number] == ExitReason.COMPLETED
    assert begun(driver).number == winner.number


def test_with_a_lower_target_the_others_go_on(study: Study, clock: VirtualClock) -> None:
    driver = driver_of(study, clock)
    other, winner = with_a_winner(driver)
    report(driver, winner, *[6.0] * 7, first=3)
    assert must_end(driver, clock)
    spec = with_budget(SPEC, {"target_mae_deg": 4.5})
    assert changes(SPEC, spec) == "target_mae_deg 5 → 4.5"
    study.extend(spec)
    study.reopen()
    study = Study(study._study, clock)
    assert nothing_left(study.record(), clock()) is None
    driver = driver_of(study, clock)
    assert not must_end(driver, clock)
    assert begun(driver).number == other.number
    assert begun(driver).number > winner.number


@pytest.mark.parametrize(
    ("before_deg", "wanted_deg", "told"),
    [
        (5.0, 6.0, "would be less than before; got 6.0; at most 5"),
        (None, 6.0, "no limit before"),
        (5.0, -1.0, "budget.target_mae_deg: Input should be greater than 0"),
    ],
)
def test_a_target_is_never_raised(before_deg: float | None, wanted_deg: float, told: str) -> None:
    budget = SPEC.budget.model_copy(update={"target_mae_deg": before_deg})
    with pytest.raises(UserError, match=told):
        with_budget(SPEC.model_copy(update={"budget": budget}), {"target_mae_deg": wanted_deg})


def test_extend_takes_a_target(
    study: Study, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = driver_of(study, clock)
    _, winner = with_a_winner(driver)
    report(driver, winner, *[6.0] * 7, first=3)
    assert must_end(driver, clock)

    @contextlib.contextmanager
    def taken_over(*_: object) -> Iterator[Study]:
        yield study

    monkeypatch.setattr(control, "_taken_over", taken_over)
    monkeypatch.setattr(control, "start", lambda *_, **__: None)
    refused = CliRunner().invoke(app, ["extend", "x", "--trials", "30"])
    assert isinstance(refused.exception, UserError)
    assert REACHED in str(refused.exception)
    done = CliRunner().invoke(app, ["extend", "x", "--target", "4.5"])
    assert done.exit_code == 0
    assert "search x is extended: target_mae_deg 5 → 4.5" in done.stdout
    assert Study(study._study, clock).spec.budget.target_mae_deg == 4.5
