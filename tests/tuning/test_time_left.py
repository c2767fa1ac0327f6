"""The estimate of how long a search goes on: rules one by one, then a whole simulated search."""

from dataclasses import replace

import numpy as np
import pytest

from tuning.conductor import Conductor
from tuning.exits import ExitReason
from tuning.records import Attempt, EpochRecord, SearchRecord, TrialRecord, TrialState
from tuning.simulation.clock import VirtualClock
from tuning.simulation.simulator import Silent, Simulator
from tuning.simulation.surrogates import SPACE, Curve
from tuning.spec import Budget, Data, Sampler, SearchSpec, Stopping
from tuning.storage import Storage
from tuning.storing import AtOnce
from tuning.time_left import seconds_left

EPOCH_MS = 10_000


def search(*trials: TrialRecord, **budget: float) -> SearchRecord:
    """Of trials of 10 epochs."""
    spec = SearchSpec(
        name="s",
        data=Data(train="/data/train"),
        parameters=SPACE,
        sampler=Sampler(name="random"),
        stopping=Stopping(rule="none"),
        budget=Budget(**({"trials": len(trials), "epochs": 10} | budget)),  # type: ignore[arg-type]
    )
    numbered = tuple(replace(one, number=number) for number, one in enumerate(trials))
    return SearchRecord("s", spec, "abc", 0, None, None, numbered)


def trial(
    epochs: int, state: TrialState = "RUNNING", reason: ExitReason | None = None, late_ms: int = 0
) -> TrialRecord:
    """Began at 0; epochs of 10 s, the last of which came in ``late_ms`` before an end."""
    done = tuple(
        EpochRecord(epoch, EPOCH_MS * epoch, {"val_mae": 9.0}, f"key{epoch}", restored=False)
        for epoch in range(1, epochs + 1)
    )
    ended_ms = None if state == "RUNNING" else EPOCH_MS * epochs + late_ms
    attempts = (Attempt(1, 0, "10.0.0.7", 4711, ended_ms),)
    return TrialRecord(0, state, {}, done, 0, ended_ms, reason, None, None, attempts=attempts)


def slow(trial: TrialRecord) -> TrialRecord:
    """The same with epochs of 20 s."""
    return replace(trial, epochs=tuple(replace(e, at_ms=2 * e.at_ms) for e in trial.epochs))


def complete(epochs: int = 10, late_ms: int = 0) -> TrialRecord:
    return trial(epochs, "COMPLETE", ExitReason.COMPLETED, late_ms)


def stopped(epochs: int) -> TrialRecord:
    return trial(epochs, "PRUNED", ExitReason.STOPPED_EARLY)


def paused(epochs: int) -> TrialRecord:
    return trial(epochs, "PRUNED", ExitReason.PAUSED)


def test_nothing_is_said_of_what_is_not_known() -> None:
    assert seconds_left(search(trial(0)), 5_000) is None
    assert seconds_left(search(complete(), stopped(2)), 100_000) is None
    ended = replace(search(trial(1)), ended="stopped")
    assert seconds_left(ended, 10_000) is None


def test_the_first_epoch_says_how_long_the_others_take() -> None:
    assert seconds_left(search(trial(1), trials=1), 10_000) == 90
    assert seconds_left(search(trial(1), trials=3), 10_000) == 90 + 2 * 100


def test_time_since_the_last_report_is_taken_off_and_makes_no_epoch_longer() -> None:
    assert seconds_left(search(trial(4)), 44_000) == 56
    assert seconds_left(search(trial(9)), 400_000) == 0


def test_a_trial_that_outlives_the_others_is_not_about_to_end() -> None:
    """It was "about 0 s left" once a trial had run for longer than the mean of those ended."""
    assert seconds_left(search(stopped(2), stopped(2), trial(4)), 40_000) == 60
    assert seconds_left(search(stopped(2), stopped(6), trial(4)), 40_000) == 20


def test_a_new_trial_goes_as_far_as_the_others_in_the_mean() -> None:
    found = seconds_left(search(stopped(2), complete(10), trial(10), trials=5), 100_000)
    assert found == 2 * 60  # the two to come


def test_what_a_trial_does_beside_its_epochs_counts() -> None:
    late = complete(10, late_ms=20_000)
    found = seconds_left(search(late, trial(10), trials=4), 100_000)
    assert found == 2 * 10 * (12 + 10) / 2


def test_a_slow_network_stays_slow_and_the_next_is_like_the_mean() -> None:
    assert seconds_left(search(slow(trial(5)), trial(10)), 100_000) == 100
    assert seconds_left(search(slow(trial(5)), trial(10), trials=4), 100_000) == (100 + 300) / 2


def test_epochs_taken_from_the_store_make_no_others_shorter() -> None:
    found = trial(8)
    stored = (replace(epoch, restored=True, at_ms=0) for epoch in found.epochs[:6])
    after_two = replace(
        found, epochs=(*stored, *(replace(e, at_ms=e.at_ms - 60_000) for e in found.epochs[6:]))
    )
    assert seconds_left(search(after_two), 20_000) == 20


def test_those_that_run_share_the_work_and_the_longest_ends_last() -> None:
    assert seconds_left(search(trial(2), trial(2), trials=4), 20_000) == (80 + 80 + 200) / 2
    assert seconds_left(search(trial(9), trial(2)), 90_000) == 80 - 70  # reported 70 s ago
    assert seconds_left(search(trial(9), trial(2)), 22_000) == 78


def waiting() -> TrialRecord:
    """Handed out, and no worker is free for it yet."""
    return replace(trial(0), attempts=())


def trained(free_ms: int) -> TrialRecord:
    """Waits to be stored; its worker was free then."""
    whole = trial(10)
    return replace(whole, attempts=(replace(whole.attempts[0], ended_ms=free_ms),))


def test_trials_that_wait_for_a_worker_make_nothing_faster() -> None:
    """With `parallel_trials: 8` on two GPUs six wait: it was a quarter of the true time."""
    trials = (trial(5), trial(5), *(waiting() for _ in range(6)))
    assert seconds_left(search(*trials), 50_000) == (50 + 50 + 6 * 100) / 2
    hours = (50 + 50 + 60) / 3600
    assert seconds_left(search(*trials, gpu_hours=hours), 50_000) == pytest.approx(30)
    assert seconds_left(search(*trials, total_epochs=16), 50_000) == 30


def test_a_worker_that_has_just_been_freed_takes_the_next_trial() -> None:
    trials = (trained(free_ms=100_000), trained(free_ms=100_000), waiting(), waiting())
    assert seconds_left(search(*trials, trials=6), 101_000) == (2 * 100 + 2 * 100) / 2
    one_gpu = (trained(free_ms=100_000), replace(waiting(), attempts=(held_since(100_000),)))
    assert seconds_left(search(*one_gpu, trials=3), 100_000) == 100 + 100


def held_since(begun_ms: int) -> Attempt:
    return Attempt(1, begun_ms, "10.0.0.7", 4711)


def test_nothing_is_said_while_all_wait_for_a_worker() -> None:
    """Nobody knows how many will run at a time: the search was resumed, or its nodes are gone."""
    sent_away = replace(trial(5).attempts[0], ended_ms=50_000, cause=ExitReason.PREEMPTED)
    trials = (replace(trial(5), attempts=(sent_away,)), waiting())
    assert seconds_left(search(*trials), 55_000) == 50 + 100
    assert seconds_left(search(*trials), 900_000) is None


def test_one_of_those_that_pause_goes_all_the_way() -> None:
    assert seconds_left(search(paused(3), paused(1), trial(1)), 10_000) == 70
    assert seconds_left(search(paused(3), complete(), trial(9)), 90_000) == 10


def test_once_the_target_is_reached_what_runs_goes_all_the_way_and_nothing_else_begins() -> None:
    trials = (stopped(2), stopped(6), trial(4))
    assert seconds_left(search(*trials, trials=9, target_mae_deg=9.0), 40_000) == 60
    assert seconds_left(search(*trials, target_mae_deg=8.9), 40_000) == 20


def test_an_end_of_the_budget_that_comes_sooner() -> None:
    trials = (complete(), trial(5), trial(5))
    at_ms = 50_000
    assert seconds_left(search(*trials), at_ms) == 50
    assert seconds_left(search(*trials, wall_clock_minutes=1), at_ms) == pytest.approx(10)
    assert seconds_left(search(*trials, total_epochs=24), at_ms) == 20
    hours = (100 + 50 + 50 + 30) / 3600
    assert seconds_left(search(*trials, gpu_hours=hours), at_ms) == pytest.approx(15)
    assert seconds_left(search(*trials, wall_clock_minutes=0.5), at_ms) == 0


def test_in_a_search_whose_epochs_all_take_as_long_it_is_right_to_an_epoch() -> None:
    spec = search(trials=8).spec
    clock = VirtualClock()
    study = Storage.in_memory().create("x", spec, "abc", clock)
    flat = Curve(true_deg=np.full(10, 9.0), seen_deg=np.full(10, 9.0), seconds=7.0)
    conductor = Conductor(study, Silent(), AtOnce(), clock)
    simulator = Simulator(conductor, lambda _settings: flat, clock, 2)
    said: list[tuple[int, float]] = []
    for _ in simulator.steps():
        left = seconds_left(study.record(), clock())
        if study.record().count("RUNNING") == 2 and left is not None:
            said.append((clock(), left))
    assert len(said) > 60
    # In the middle of a round one of the two has reported its epoch and the other has not.
    assert all(abs(at_ms / 1000 + left - clock() / 1000) <= 7 for at_ms, left in said)
