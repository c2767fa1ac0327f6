"""Budgets: whichever end is reached first is said."""

from tuning.budget import Usage, ended_by
from tuning.spec import Budget

USED = Usage(trials_started=5, gpu_hours=2.0, wall_clock_minutes=30.0, best_mae_deg=5.0)


def test_no_limits_no_end() -> None:
    assert ended_by(Budget(trials=100, epochs=5), USED) is None


def test_each_limit_ends_and_says_so() -> None:
    ends = {
        "wall-clock minutes": Budget(trials=9, epochs=5, wall_clock_minutes=30),
        "GPU-hours": Budget(trials=9, epochs=5, gpu_hours=2),
        "target reached": Budget(trials=9, epochs=5, target_mae_deg=5),
    }
    for words, budget in ends.items():
        assert words in (ended_by(budget, USED) or "")


def test_limits_not_reached_do_not_end() -> None:
    budget = Budget(trials=9, epochs=5, wall_clock_minutes=31, gpu_hours=3, target_mae_deg=4.9)
    assert ended_by(budget, USED) is None
