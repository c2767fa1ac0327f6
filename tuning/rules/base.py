"""What every early-stopping rule offers, and the table of a rung that several of them keep."""

import math
from bisect import bisect_left, insort
from collections.abc import Container
from enum import StrEnum
from typing import Protocol

from tuning.spec import Stopping

RUNGS_AT = (2 / 9, 5 / 9)
"""Default rungs as shares of a whole trial: after 6 and 15 of 27 epochs. Chosen by measurement on
surrogate curves (benchmarks/search_efficiency.py), on seeds apart from those that are reported:
rungs at 1, 3 and 9 need less where early errors tell all, and hardly ever arrive where they do
not."""


class Verdict(StrEnum):
    """What becomes of a trial after an epoch."""

    GO_ON = "go on"
    PAUSE = "pause"
    STOP = "stop"


class Rule(Protocol):
    """An early-stopping rule. Its state follows from what was told to it, not from when."""

    def enter(self, trial: int, epoch: int, value: float) -> None:
        """Takes in an epoch of a trial; an epoch that is known already changes nothing."""

    def verdict(self, trial: int, epoch: int) -> Verdict:
        """What becomes of a trial whose latest epoch is ``epoch``; changes nothing."""

    def pause(self, trial: int, epoch: int) -> None:
        """Notes that a trial waits after ``epoch``."""

    def fail(self, trial: int) -> None:
        """Notes that a trial is over and will never be complete, however well it stood."""

    def take_up(self, closing: bool) -> int | None:
        """The paused trial that must go on now, which is then paused no longer; none where no
        trial deserves it. ``closing``: nothing new is proposed any more and nothing runs, so what
        leads goes on even where too few have come to compare it with. What failed leads nobody
        then."""


class NeverPausing:
    """The part of a rule that stops trials for good."""

    def pause(self, trial: int, epoch: int) -> None:
        raise ValueError(f"this rule pauses no trial, got {trial=} {epoch=}")

    def fail(self, trial: int) -> None:
        """Nobody waits behind it."""

    def take_up(self, closing: bool) -> int | None:  # noqa: ARG002
        return None


class Rung:
    """Trials that came to one rung, best first."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int]] = []
        self._value: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, trial: int) -> bool:
        return trial in self._value

    def enter(self, trial: int, value: float) -> None:
        """Keeps the value with which a trial arrived; NaN counts as worst."""
        if trial in self._value:
            return
        self._value[trial] = value if math.isfinite(value) else math.inf
        insort(self._entries, self.entry(trial))

    def entry(self, trial: int) -> tuple[float, int]:
        return self._value[trial], trial

    def rank(self, trial: int) -> int:
        """How many others are better; the older trial where values are equal."""
        return bisect_left(self._entries, self.entry(trial))

    def first(self, without: Container[int]) -> int | None:
        """The best trial, some left out."""
        return next((trial for _, trial in self._entries if trial not in without), None)


class Best:
    """The best value so far of every trial: what rungs compare."""

    def __init__(self) -> None:
        self._best: dict[int, float] = {}

    def update(self, trial: int, value: float) -> float:
        known = self._best.get(trial, math.inf)
        self._best[trial] = min(known, value) if math.isfinite(value) else known
        return self._best[trial]


def rungs(settings: Stopping, last_epoch: int) -> list[int]:
    """Epochs below the last at which trials are compared: those of the settings, or
    ``first_rung · factor^i``, or shares of a whole trial."""
    if settings.rungs is not None:
        return [epoch for epoch in settings.rungs if epoch < last_epoch]
    if settings.first_rung is None:
        at = {max(1, round(share * last_epoch)) for share in RUNGS_AT}
        return sorted(epoch for epoch in at if epoch < last_epoch)
    found = []
    epoch = settings.first_rung
    while epoch < last_epoch:
        found.append(epoch)
        epoch *= settings.factor
    return found
