"""Early-stopping rules by name: events in, actions out; no clock, no randomness, no I/O.

``rule_of`` makes the rule of a search, ``rebuilt`` the same rule as it stands after what a study
records. Rules judge a trial by the best validation MAE (degrees) of its epochs so far.
"""

import math
from collections.abc import Callable, Iterable

from tuning.exits import FATES, ExitReason
from tuning.records import TrialRecord
from tuning.rules.base import Rule
from tuning.rules.halving import Halving
from tuning.rules.hyperband import Hyperband
from tuning.rules.median import Median
from tuning.rules.never import Never
from tuning.rules.promotion import Promotion
from tuning.spec import Stopping

RULES: dict[str, Callable[[Stopping, int], Rule]] = {
    "promotion": Promotion,
    "stopping": Halving,
    "hyperband": Hyperband,
    "median": Median,
    "none": Never,
}


def rule_of(settings: Stopping, last_epoch: int) -> Rule:
    """A rule that has seen nothing yet; trials are complete after ``last_epoch``."""
    return RULES[settings.rule](settings, last_epoch)


def rebuilt(settings: Stopping, last_epoch: int, trials: Iterable[TrialRecord]) -> Rule:
    """The rule as it stands after ``trials``, in whichever order their epochs came in."""
    rule = rule_of(settings, last_epoch)
    for trial in trials:
        for epoch, value in sorted(trial.curve.items()):
            rule.enter(trial.number, epoch, value)
        if trial.exit_reason is not None:
            note_end(rule, trial.number, trial.exit_reason, max(trial.curve, default=0))
    return rule


def note_end(rule: Rule, trial: int, reason: ExitReason, last_epoch: int) -> None:
    """Tells a rule that a trial, whose latest epoch is ``last_epoch``, is over or waits. One that
    its search cut off is not told of: it goes on when the search does."""
    if reason == ExitReason.PAUSED:
        rule.pause(trial, last_epoch)
    elif FATES[reason].run_status == "FAILED":
        rule.fail(trial)


def is_diverged(value: float) -> bool:
    """NaN and infinity: no rule that compares would ever stop such a trial."""
    return not math.isfinite(value)
