"""What a driver has at hand of a running entry of the study at every report."""

import math
from collections.abc import Sequence
from typing import Any

from tuning.records import Attempt
from tuning.spec import Objective
from tuning.study_records import BEGUN_AFTER, EPOCH, attempts_of


class Entry:
    """A running entry: its epochs, its best error, its attempts."""

    def __init__(
        self, trial_id: int, number: int, attributes: dict[str, Any], values: dict[int, float]
    ) -> None:
        self.id, self.number = trial_id, number
        self.begun_after: int = attributes.get(BEGUN_AFTER, 0)
        self.attempts = {attempt.number: attempt for attempt in attempts_of(attributes)}
        self.epochs: dict[int, str] = {}
        """The keys of their checkpoints."""
        self.trained_s = 0.0
        self.best: float | None = None
        self.best_checkpoint: str | None = None
        self._metrics: dict[str, float] = {}
        """As reported last."""
        for epoch in sorted(values):
            kept = attributes.get(f"{EPOCH}{epoch:04d}")
            if kept is not None:  # else a driver died when these were two writes
                self.add(epoch, kept["metrics"], kept["checkpoint"])

    @property
    def attempt_going_on(self) -> Attempt | None:
        """The latest attempt, where it has its worker still."""
        latest = self.attempts[max(self.attempts)] if self.attempts else None
        return latest if latest is not None and latest.ended_ms is None else None

    def values(self, objectives: Sequence[Objective]) -> list[float]:
        """Of a trial that is complete."""
        best = {} if self.best is None else {"val_mae": self.best}
        return [(self._metrics | best)[name] for name in objectives]

    def add(self, epoch: int, metrics: dict[str, float], checkpoint_key: str) -> None:
        value = metrics["val_mae"]
        self.epochs[epoch] = checkpoint_key
        self.trained_s += metrics.get("epoch_seconds", 0.0)
        self._metrics = metrics
        if math.isfinite(value) and (self.best is None or value < self.best):
            self.best, self.best_checkpoint = value, checkpoint_key
