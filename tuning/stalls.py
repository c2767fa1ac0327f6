"""How long an epoch may be silent before its worker counts as hung: a pure rule.

A worker that was frozen, a file system that does not answer, a deadlock: nobody reports them, and
the GPU waits for ever.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tuning.spec import Resources


@dataclass(frozen=True)
class Pace:
    """What is known of how long epochs take, in seconds; the longest of each."""

    own_s: float | None
    """Of this trial's epochs."""
    others_s: float | None
    """Of the epochs of the search."""


def longest(seconds: Iterable[float]) -> float | None:
    """The longest of some epochs: some are slower by plan, as those after the unfreezing."""
    return max(seconds, default=None)


def limit_s(pace: Pace, begins: bool, resources: Resources) -> float:
    """Silence in seconds after which a worker is given up.

    Args:
        pace: expectations; the trial's own epochs say more than those of others.
        begins: nothing was reported yet in this attempt, which may have to fetch its data first.
        resources: the limits of the search file.
    """
    expected_s = pace.own_s if pace.own_s is not None else pace.others_s
    patience_s = resources.stall_factor * (expected_s or 0.0)
    if begins or expected_s is None:
        return max(patience_s, 60 * resources.start_minutes)
    return max(patience_s, 60 * resources.stall_minutes)
