"""Budgets: whichever end is reached first is said."""

from dataclasses import replace

from tuning.budget import Usage, ended_by, proposals_ended_by, target_reached
from tuning.ledger import Ledger
from tuning.spec import Budget

USED = Usage(
    trials_started=5,
    total_epochs=40,
    gpu_hours=2.0,
    wall_clock_minutes=30.0,
    best_mae_deg=5.0,
    trials_since_best=3,
)


def test_no_limits_no_end() -> None:
    assert ended_by(Budget(trials=100, epochs=5), USED) is None


def test_each_limit_ends_and_says_so() -> None:
    ends = {
        "wall-clock minutes": Budget(trials=9, epochs=5, wall_clock_minutes=30),
        "GPU-hours": Budget(trials=9, epochs=5, gpu_hours=2),
        "epochs used": Budget(trials=9, epochs=5, total_epochs=40),
        "target reached": Budget(trials=9, epochs=5, target_mae_deg=5),
    }
    for words, budget in ends.items():
        assert words in (ended_by(budget, USED) or "")


def test_hours_of_trials_without_gpus_are_cpu_hours() -> None:
    budget = Budget(trials=9, epochs=5, gpu_hours=2)
    assert ended_by(budget, replace(USED, unit="CPU")) == "2.00 of 2 CPU-hours used"


def test_a_reached_target_ends_the_proposals_and_the_rest_once_the_best_trial_is_over() -> None:
    budget = Budget(trials=9, epochs=5, target_mae_deg=5)
    trains = replace(USED, best_goes_on=True)
    assert ended_by(budget, trains) is None
    assert proposals_ended_by(budget, trains) == ended_by(budget, USED)
    assert ended_by(budget, USED) == target_reached(budget, 5.0)
    assert "epochs used" in (ended_by(budget.model_copy(update={"total_epochs": 40}), trains) or "")
    assert target_reached(budget, 5.001) is target_reached(budget, None) is None


def test_limits_not_reached_do_not_end() -> None:
    budget = Budget(trials=9, epochs=5, wall_clock_minutes=31, gpu_hours=3, target_mae_deg=4.9)
    assert ended_by(budget, USED) is None


def test_trials_and_patience_end_the_proposals_only() -> None:
    assert proposals_ended_by(Budget(trials=6, epochs=5, patience=4), USED) is None
    assert proposals_ended_by(Budget(trials=5, epochs=5), USED) == "all trials done"
    ended = proposals_ended_by(Budget(trials=6, epochs=5, patience=3), USED)
    assert ended == "no better error in 3 trials"
    assert ended_by(Budget(trials=5, epochs=5, patience=1), USED) is None


def test_patience_counts_from_when_the_best_error_was_found() -> None:
    """Not from when its trial began: a paused one may come to lead long after many others."""
    ledger = Ledger(1.0, 0)
    for trial in range(5):
        ledger.begins(trial, at_ms=10 * trial)
        ledger.epoch(trial, 9.0 - trial, at_ms=10 * trial + 5, restored=False)
    ledger.epoch(0, 4.0, at_ms=60, restored=False)
    assert ledger.usage(100).trials_since_best == 0
    ledger.begins(5, at_ms=70)
    ledger.epoch(5, 4.0, at_ms=80, restored=False)
    ledger.begins(6, at_ms=90)
    assert ledger.usage(100).trials_since_best == 2, "as good is no better"
