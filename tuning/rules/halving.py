"""``stopping``: asynchronous successive halving that kills, as Ray Tune's ASHA does.

Li et al., arXiv:1810.05934, in the stopping form: at a rung only the best ``1/factor`` of those
that reached it go on, and the first to arrive always does.
"""

from tuning.rules.base import NeverPausing, Rung, Verdict, rungs
from tuning.rules.standing import Standing
from tuning.spec import Stopping


class Halving(NeverPausing):
    def __init__(self, settings: Stopping, last_epoch: int) -> None:
        self._factor = settings.factor
        self._standing = Standing(settings, last_epoch)
        self._rungs = {epoch: Rung() for epoch in rungs(settings, last_epoch)}

    def enter(self, trial: int, epoch: int, value: float) -> None:
        standing = self._standing.update(trial, epoch, value)
        if epoch in self._rungs:
            self._rungs[epoch].enter(trial, standing)

    def verdict(self, trial: int, epoch: int) -> Verdict:
        rung = self._rungs.get(epoch)
        if rung is None or rung.rank(trial) < max(1, len(rung) // self._factor):
            return Verdict.GO_ON
        return Verdict.STOP
