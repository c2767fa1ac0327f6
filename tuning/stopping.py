"""Early-stopping rules: pure functions of the curves that the study holds.

A rule answers one question: should the trial that has just reported epoch ``epoch`` be stopped?
It sees every curve of the search, has no state, no clock and no randomness, so a driver that starts
again decides as the one before it would have.

Curves map an epoch (counting from 1) to the validation MAE in degrees.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from tuning.spec import Stopping

Curve = Mapping[int, float]
Rule = Callable[[Stopping, Curve, Sequence[Curve], int], bool]


def should_stop(settings: Stopping, curve: Curve, others: Sequence[Curve], last_epoch: int) -> bool:
    """Whether the trial of ``curve`` should end after its latest epoch.

    Args:
        settings: rule and its settings.
        curve: the trial's own values.
        others: the curves of all other trials of the search, whatever their state.
        last_epoch: the epoch at which a trial is complete.
    """
    if not curve or max(curve) >= last_epoch:
        return False
    return RULES[settings.rule](settings, curve, others, last_epoch)


def is_diverged(value: float) -> bool:
    """NaN and infinity: no rule that compares would ever stop such a trial."""
    return not math.isfinite(value)


def rungs(first: int, factor: int, last_epoch: int) -> list[int]:
    """Epochs at which trials are compared: ``first · factor^i`` below the last epoch."""
    found = []
    epoch = first
    while epoch < last_epoch:
        found.append(epoch)
        epoch *= factor
    return found


def _successive_halving(
    settings: Stopping, curve: Curve, others: Sequence[Curve], last_epoch: int
) -> bool:
    """Asynchronous successive halving in its stopping form (Li et al., arXiv:1810.05934): at a rung
    only the best ``1/factor`` of those that reached it go on; the first to arrive always does."""
    epoch = max(curve)
    if epoch not in rungs(settings.first_rung, settings.factor, last_epoch):
        return False
    rivals = [other[epoch] for other in others if epoch in other]
    better = sum(value < curve[epoch] for value in rivals if math.isfinite(value))
    allowed = max(1, (len(rivals) + 1) // settings.factor)
    return better >= allowed


def _median(settings: Stopping, curve: Curve, others: Sequence[Curve], last_epoch: int) -> bool:  # noqa: ARG001
    """Stops what is worse at its best than the median of the others' running means
    (Golovin et al., Google Vizier, KDD 2017, section 3.2)."""
    epoch = max(curve)
    if epoch < settings.first_rung:
        return False
    means = sorted(
        sum(other[e] for e in range(1, epoch + 1)) / epoch
        for other in others
        if all(e in other and math.isfinite(other[e]) for e in range(1, epoch + 1))
    )
    if len(means) < settings.factor:  # too few to have a median worth the name
        return False
    return min(curve.values()) > means[len(means) // 2]


def _never(settings: Stopping, curve: Curve, others: Sequence[Curve], last_epoch: int) -> bool:  # noqa: ARG001
    return False


RULES: dict[str, Rule] = {"stopping": _successive_halving, "median": _median, "none": _never}
