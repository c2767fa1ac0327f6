"""What a rung compares of a trial: its best error so far, or where its curve is heading.

Early errors mislead where what learns slowly ends better: a large network, a low rate. The means of
a curve's three thirds (means, as single epochs jump) say how fast its gains fade; were they to go
on fading at that pace, its last such stretch would have the forecast as its mean. That is exact for
an exponential approach (Aitken's process, 1926) that fades at least as fast as ``SLOWEST_FADING``.
Where a curve is short or does not fall, its best error so far stands.
"""

import math
from collections.abc import Sequence
from statistics import fmean

from tuning.spec import Stopping

FEWEST_EPOCHS = 2
"""Of a third of a curve. Single epochs jump: forecasts of real curves by three of them led to worse
choices than the best error so far (benchmarks/results/search_default_tuning)."""
SLOWEST_FADING = 0.6
"""From one third to the next. A ratio near one, which chance brings about, would forecast any
depth; measured with the above."""
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
    """The mean error (degrees) that a curve will have over its last epochs up to ``last_epoch``, as
    many as a third of what is known of it; infinite where it does not tell."""
    length = len(curve) // 3
    if length < FEWEST_EPOCHS:
        return math.inf
    before, middle, now = (fmean(curve[len(curve) - i * length :][:length]) for i in (3, 2, 1))
    first, second = before - middle, middle - now
    if not (math.isfinite(first) and math.isfinite(second) and first > 0 and second > 0):
        return math.inf
    fading = min(second / first, SLOWEST_FADING)
    steps_left = (last_epoch - len(curve)) / length
    gain: float = second * fading * (1 - fading**steps_left) / (1 - fading)
    return max(now - gain, DEEPEST * min(v for v in curve if math.isfinite(v)))
