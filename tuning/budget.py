"""When a search ends: a pure function of its budget and of what it has used."""

from dataclasses import dataclass

from tuning.spec import Budget


@dataclass(frozen=True)
class Usage:
    """What a search has used so far."""

    trials_started: int
    total_epochs: int
    gpu_hours: float
    """CPU-hours where trials ask for no GPU."""
    wall_clock_minutes: float
    best_mae_deg: float | None
    trials_since_best: int
    """Trials that began after the best error was found."""
    best_goes_on: bool = False
    """Whether the trial with the best error is not over yet, or goes on when the search does."""
    unit: str = "GPU"
    """Whose hours they are."""


def ended_by(budget: Budget, usage: Usage) -> str | None:
    """Why a search must stop even its running trials, in words; none while it may go on.

    The number of trials and the patience are not among these: they end the proposals, and running
    trials finish. A target ends the search only when the trial that reached it has finished, for
    only a finished trial has a result that can be used.
    """
    reached = (
        ("wall-clock minutes", usage.wall_clock_minutes, budget.wall_clock_minutes),
        (f"{usage.unit}-hours", usage.gpu_hours, budget.gpu_hours),
        ("epochs", usage.total_epochs, budget.total_epochs),
    )
    for name, used, allowed in reached:
        if allowed is not None and used >= allowed:
            return (
                f"{used:.10g} of {allowed:g} {name} used"
                if name == "epochs"
                else (f"{used:.2f} of {allowed:g} {name} used")
            )
    return None if usage.best_goes_on else target_reached(budget, usage.best_mae_deg)


def target_reached(budget: Budget, best_mae_deg: float | None) -> str | None:
    """Why only the trial with the best error is trained on, in words; none while others are."""
    target = budget.target_mae_deg
    if best_mae_deg is None or target is None or best_mae_deg > target:
        return None
    return f"target reached: {best_mae_deg:.3f}° is at most {target:g}°"


def proposals_ended_by(budget: Budget, usage: Usage) -> str | None:
    """Why nothing new is proposed any more, in words; none while it is."""
    if reached := target_reached(budget, usage.best_mae_deg):
        return reached
    if budget.patience is not None and usage.trials_since_best >= budget.patience:
        return f"no better error in {usage.trials_since_best} trials"
    if usage.trials_started >= budget.trials:
        return "all trials done"
    return None
