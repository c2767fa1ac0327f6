"""``hyperband``: several brackets of successive halving, the later ones more patient.

Li et al., arXiv:1603.06560: nobody knows beforehand how early an error tells something, so bracket
``i`` has its first rung ``i`` rungs later. A bracket gets trials in inverse proportion to what one
of them costs at its first rung; which trial goes where follows from its number alone.
"""

from tuning.rules.base import NeverPausing, Verdict, rungs
from tuning.rules.halving import Halving
from tuning.spec import Stopping


class Hyperband(NeverPausing):
    def __init__(self, settings: Stopping, last_epoch: int) -> None:
        levels = rungs(settings, last_epoch)
        starts = [levels[index:] for index in range(max(1, len(levels)))]
        self._brackets = [
            Halving(settings.model_copy(update={"rungs": tuple(start)}), last_epoch)
            for start in starts
        ]
        # Whole numbers: the most patient bracket gets one trial in each round of all of them.
        shares = [max(1, levels[-1] // level) for level in levels] or [1]
        self._round = [index for index, share in enumerate(shares) for _ in range(share)]

    def enter(self, trial: int, epoch: int, value: float) -> None:
        self._bracket(trial).enter(trial, epoch, value)

    def verdict(self, trial: int, epoch: int) -> Verdict:
        return self._bracket(trial).verdict(trial, epoch)

    def _bracket(self, trial: int) -> Halving:
        return self._brackets[self._round[trial % len(self._round)]]
