"""``median``: stops what is worse at its best than the median of the others' running means.

Golovin et al., Google Vizier, KDD 2017, section 3.2.
"""

import math
from bisect import bisect_left, insort

from tuning.rules.base import Best, NeverPausing, Verdict
from tuning.spec import Stopping


class Median(NeverPausing):
    def __init__(self, settings: Stopping, last_epoch: int) -> None:
        self._first = settings.first_rung or 1
        self._fewest = settings.factor  # below it there is no median worth the name
        self._last = last_epoch
        self._best = Best()
        self._best_at: dict[int, float] = {}
        self._sums: dict[int, list[float]] = {}
        self._means: dict[int, list[float]] = {}
        """Running means at an epoch, the lowest first."""

    def enter(self, trial: int, epoch: int, value: float) -> None:
        sums = self._sums.setdefault(trial, [0.0])
        if epoch < len(sums):
            return
        self._best_at[trial] = self._best.update(trial, value)
        sums.append(sums[-1] + value)
        if math.isfinite(sums[-1]):
            insort(self._means.setdefault(epoch, []), sums[-1] / epoch)

    def verdict(self, trial: int, epoch: int) -> Verdict:
        means = self._means.get(epoch, [])
        if not self._first <= epoch < self._last or len(means) - 1 < self._fewest:
            return Verdict.GO_ON
        own = bisect_left(means, self._sums[trial][epoch] / epoch)
        others = means[:own] + means[own + 1 :]
        return Verdict.STOP if self._best_at[trial] > others[len(others) // 2] else Verdict.GO_ON
