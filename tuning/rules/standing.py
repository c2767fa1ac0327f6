"""What a rung compares of a trial: its best error so far, or where its curve is heading.

Early errors mislead where what learns slowly ends better: a large network, a low rate. Two equal
steps of a curve say how fast its gains fade; were they to go on fading at that pace, it would end
at the forecast. That is exact for an exponential approach (Aitken's process, 1926). Where a curve
does not fall, its best error so far stands.
"""

import math
from collections.abc import Sequence

from tuning.spec import Stopping

SLOWEST_FADING = 0.95  # untuned: a ratio of gains near one would forecast any depth
DEEPEST = 0.2  # untuned: no forecast below this share of the best error so far


class Standing:
    """The curve of every trial, and what becomes of it on a rung."""

    def __init__(self, settings: Stopping, last_epoch: int) -> None:
        self._by_forecast = settings.compare == "forecast"
        self._last = last_epoch
        self._curves: dict[int, list[float]] = {}

    def update(self, trial: int, epoch: int, value: float) -> float:
        """Takes an epoch in; returns what rungs compare, infinite before the first number. An epoch
        that is known already changes nothing."""
        curve = self._curves.setdefault(trial, [])
        if epoch > len(curve):
            curve.append(value)
        best = min((v for v in curve if math.isfinite(v)), default=math.inf)
        return min(best, forecast(curve, self._last)) if self._by_forecast else best


def forecast(curve: Sequence[float], last_epoch: int) -> float:
    """The error (degrees) at which a curve will be after ``last_epoch``, by its latest two steps of
    a third of its length each; infinite where it does not tell."""
    step = len(curve) // 3
    if step == 0:
        return math.inf
    before, middle, now = curve[-1 - 2 * step], curve[-1 - step], curve[-1]
    first, second = before - middle, middle - now
    if not (math.isfinite(first) and math.isfinite(second) and first > 0 and second > 0):
        return math.inf
    fading = min(second / first, SLOWEST_FADING)
    steps_left = (last_epoch - len(curve)) / step
    gain: float = second * fading * (1 - fading**steps_left) / (1 - fading)
    return max(now - gain, DEEPEST * min(v for v in curve if math.isfinite(v)))
