"""When a search ends: a pure function of its budget and of what it has used."""

from dataclasses import dataclass

from tuning.spec import Budget


@dataclass(frozen=True)
class Usage:
    """What a search has used so far."""

    trials_started: int
    total_epochs: int
    gpu_hours: float
    wall_clock_minutes: float
    best_mae_deg: float | None
    trials_since_best: int
    """Trials that began after the one with the best error."""


def ended_by(budget: Budget, usage: Usage) -> str | None:
    """Why a search must stop even its running trials, in words; none while it may go on.

    The number of trials and the patience are not among these: they end the proposals, and running
    trials finish.
    """
    reached = (
        ("wall-clock minutes", usage.wall_clock_minutes, budget.wall_clock_minutes),
        ("GPU-hours", usage.gpu_hours, budget.gpu_hours),
        ("epochs", usage.total_epochs, budget.total_epochs),
    )
    for name, used, allowed in reached:
        if allowed is not None and used >= allowed:
            return (
                f"{used:.10g} of {allowed:g} {name} used"
                if name == "epochs"
                else (f"{used:.2f} of {allowed:g} {name} used")
            )
    best, target = usage.best_mae_deg, budget.target_mae_deg
    if best is not None and target is not None and best <= target:
        return f"target reached: {best:.3f}° is at most {target:g}°"
    return None


def proposals_ended_by(budget: Budget, usage: Usage) -> str | None:
    """Why nothing new is proposed any more, in words; none while it is."""
    if budget.patience is not None and usage.trials_since_best >= budget.patience:
        return f"no better error in {usage.trials_since_best} trials"
    if usage.trials_started >= budget.trials:
        return "all trials done"
    return None
