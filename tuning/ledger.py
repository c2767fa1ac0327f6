"""What a search has used and found so far: kept event by event, and the same when it is rebuilt."""

import math
from bisect import bisect_right, insort
from collections.abc import Container

from tuning.budget import Usage
from tuning.records import SearchRecord


class Ledger:
    """Trials, epochs, seconds and the best error of a search. Times are those of its driver."""

    def __init__(self, units_per_trial: float, created_ms: int, unit: str = "GPU") -> None:
        self._units = units_per_trial
        self._unit = unit
        self._created_ms = created_ms
        self._running: set[int] = set()
        self._held_since_ms: dict[int, int] = {}
        """Of the trials that have a worker."""
        self._held_s = 0.0
        self._epochs = 0
        self._best_of: tuple[float, int] = (math.inf, -1)
        self._best_since: tuple[float, int] = (math.inf, -1)
        """The best error, and when it was found first."""
        self._latest = -1
        self._begun_ms: list[int] = []
        """When each trial began, in rising order."""

    @classmethod
    def of(cls, search: SearchRecord) -> "Ledger":
        resources = search.spec.resources
        ledger = cls(resources.units_per_trial, search.created_ms, resources.unit)
        for trial in search.trials:
            if trial.started_ms is None:
                continue
            ledger.begins(trial.number, trial.started_ms)
            for attempt in trial.attempts:
                if attempt.node:
                    ledger.holds(trial.number, attempt.begun_ms)
                if attempt.ended_ms is not None:
                    ledger.releases(trial.number, attempt.ended_ms)
            for epoch in trial.epochs:
                value = epoch.metrics["val_mae"]
                ledger.epoch(trial.number, value, epoch.at_ms, restored=epoch.restored)
            if trial.ended_ms is not None:
                ledger.ends(trial.number, trial.ended_ms)
        return ledger

    @property
    def trials_begun(self) -> int:
        return len(self._begun_ms)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def best_mae_deg(self) -> float | None:
        best, _ = self._best_of
        return best if math.isfinite(best) else None

    @property
    def best_trial(self) -> int | None:
        best, trial = self._best_of
        return trial if math.isfinite(best) else None

    def begins(self, trial: int, at_ms: int) -> None:
        """A trial starts, or a paused one goes on: as soon as a worker has it."""
        if trial > self._latest:
            self._latest = trial
            insort(self._begun_ms, at_ms)
        self._running.add(trial)

    def holds(self, trial: int, at_ms: int) -> None:
        """A trial has a worker from now on."""
        self._held_since_ms.setdefault(trial, at_ms)

    def releases(self, trial: int, at_ms: int) -> None:
        """A trial has no worker any more."""
        since_ms = self._held_since_ms.pop(trial, at_ms)
        self._held_s += max(0, at_ms - since_ms) / 1000

    def epoch(self, trial: int, mae_deg: float, at_ms: int, *, restored: bool) -> None:
        self._epochs += not restored
        if math.isfinite(mae_deg):
            # Of equal trials the older one: no matter which came first.
            self._best_of = min(self._best_of, (mae_deg, trial))
            self._best_since = min(self._best_since, (mae_deg, at_ms))

    def ends(self, trial: int, at_ms: int) -> None:
        """A trial is over, or paused."""
        self.releases(trial, at_ms)
        self._running.discard(trial)

    def usage(self, now_ms: int, unfinished: Container[int] = ()) -> Usage:
        """``unfinished``: trials that are over but go on when the search does."""
        held_ms = sum(max(0, now_ms - since_ms) for since_ms in self._held_since_ms.values())
        return Usage(
            trials_started=self.trials_begun,
            total_epochs=self._epochs,
            gpu_hours=self._units * (self._held_s + held_ms / 1000) / 3600,
            wall_clock_minutes=(now_ms - self._created_ms) / 60_000,
            best_mae_deg=self.best_mae_deg,
            trials_since_best=self._since_best(),
            best_goes_on=self.best_trial in self._running or self.best_trial in unfinished,
            unit=self._unit,
        )

    def _since_best(self) -> int:
        return len(self._begun_ms) - bisect_right(self._begun_ms, self._best_since[1])
