"""``promotion``: asynchronous successive halving that pauses and takes up again.

Li et al., arXiv:1810.05934, algorithm 2: of all trials that came to a rung, the best ``1/factor``
go on to the next. A trial that is not among them when it arrives is paused, not killed: as others
arrive and prove worse, its turn may come, and it goes on from its checkpoint. Unlike in the paper,
a trial that is among them when it arrives goes on at once: its worker is warm.

A trial that failed keeps its rank: it shows how well others must do. Only at the close it counts no
more, for who waits behind it would wait for ever.
"""

from bisect import insort

from tuning.rules.base import Rung, Verdict, rungs
from tuning.rules.standing import Standing
from tuning.spec import Stopping


class Promotion:
    def __init__(self, settings: Stopping, last_epoch: int) -> None:
        self._factor = settings.factor
        self._standing = Standing(settings, last_epoch)
        self._rungs = {epoch: Rung() for epoch in rungs(settings, last_epoch)}
        self._waiting: dict[int, list[tuple[float, int]]] = {epoch: [] for epoch in self._rungs}
        self._failed: set[int] = set()

    def enter(self, trial: int, epoch: int, value: float) -> None:
        standing = self._standing.update(trial, epoch, value)
        if epoch in self._rungs:
            self._rungs[epoch].enter(trial, standing)

    def verdict(self, trial: int, epoch: int) -> Verdict:
        rung = self._rungs.get(epoch)
        if rung is None or self._leads(epoch, trial):
            return Verdict.GO_ON
        return Verdict.PAUSE

    def pause(self, trial: int, epoch: int) -> None:
        """A trial that was paused where no rung lies any more, as its search was extended to more
        epochs, waits at the last rung that it has passed; before the first one it stays paused."""
        passed = max((rung for rung in self._rungs if rung <= epoch), default=None)
        if passed is not None:
            insort(self._waiting[passed], self._rungs[passed].entry(trial))

    def fail(self, trial: int) -> None:
        self._failed.add(trial)

    def take_up(self, closing: bool) -> int | None:
        for epoch in sorted(self._rungs, reverse=True):  # what is nearest to its end comes first
            rung, waiting = self._rungs[epoch], self._waiting[epoch]
            if not waiting:
                continue
            trial = waiting[0][1]
            if self._leads(epoch, trial) or (closing and rung.first(without=self._failed) == trial):
                waiting.pop(0)
                return trial
        return None

    def _leads(self, epoch: int, trial: int) -> bool:
        """Whether it is among the best ``1/factor`` that came to the rung."""
        rung = self._rungs[epoch]
        return rung.rank(trial) < len(rung) // self._factor
