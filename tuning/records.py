"""What the study knows of a search, as plain values: for rules, reports, MLflow and the screen."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from tuning.exits import ExitReason
from tuning.space import Value
from tuning.spec import SearchSpec

TrialState = Literal["WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL"]


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a trial, as it was first reported."""

    epoch: int
    at_ms: int
    metrics: dict[str, float]
    checkpoint_key: str
    restored: bool


def best_of(epochs: Iterable[EpochRecord]) -> EpochRecord | None:
    """The epoch with the lowest validation MAE."""
    finite = [e for e in epochs if math.isfinite(e.metrics["val_mae"])]
    return min(finite, key=lambda e: e.metrics["val_mae"], default=None)


@dataclass(frozen=True)
class Attempt:
    """One go at a trial, in one worker process, numbered from 1.

    An attempt without a cause goes on, or ended as its trial did or when it paused.
    """

    number: int
    begun_ms: int
    """When its worker process had it."""
    node: str = ""
    """Address of its node; empty where it ended before a worker process had it."""
    pid: int | None = None
    """Its worker process on that node."""
    ended_ms: int | None = None
    """When its worker was free again."""
    cause: ExitReason | None = None
    """Why it ended before its trial did."""
    detail: str | None = None

    def seconds(self, now_ms: int) -> float:
        """How long it held its worker, which it has had if its node is known."""
        until_ms = now_ms if self.ended_ms is None else self.ended_ms
        return max(0, until_ms - self.begun_ms) / 1000 if self.node else 0.0

    @property
    def in_words(self) -> str:
        """``2: crashed on 10.0.0.7 (its worker process died)``."""
        where = f" on {self.node}" if self.node else ""
        why = f" ({self.detail})" if self.detail else ""
        return f"{self.number}: {self.cause or 'goes on'}{where}{why}"


@dataclass(frozen=True)
class TrialRecord:
    """One trial. ``value`` is its best validation MAE in degrees so far, none before its first.

    A trial that was paused and taken up again is one trial under its first number; the study keeps
    each stretch of it as an entry of its own, the latest under the number ``entry``.
    """

    number: int
    state: TrialState
    parameters: dict[str, Value]
    epochs: tuple[EpochRecord, ...]
    started_ms: int | None
    ended_ms: int | None
    exit_reason: ExitReason | None
    detail: str | None
    node: str | None
    entry: int = -1
    tried_first: bool = False
    """Named by the search file."""
    attempts: tuple[Attempt, ...] = ()
    """In their order; those that no worker process ever had may be missing."""
    completed_epochs: int = 0
    """With how many epochs it was complete: fewer than it has by now where its search was extended
    and it has gone on, however that ended."""

    @property
    def is_complete(self) -> bool:
        """Trained to its last epoch, once at least; what comes later takes nothing away from it."""
        return self.state == "COMPLETE" or self.completed_epochs > 0

    @property
    def end(self) -> EpochRecord | None:
        """The epoch at which it was complete, else its latest; the other objectives are measured at
        a trial's last epoch only."""
        return self.epochs[self.completed_epochs - 1] if self.epochs else None

    @property
    def best_epoch(self) -> EpochRecord | None:
        """The epoch with the lowest validation MAE."""
        return best_of(self.epochs)

    @property
    def best_epochs(self) -> tuple[EpochRecord, ...]:
        """The best epoch, and that of when it was complete: the weights of a later and better one
        may never have arrived."""
        before = best_of(self.epochs[: self.completed_epochs])
        return tuple(best for best in (self.best_epoch, before) if best)

    @property
    def value(self) -> float | None:
        best = self.best_epoch
        return best.metrics["val_mae"] if best else None

    @property
    def curve(self) -> dict[int, float]:
        """Validation MAE in degrees by epoch."""
        return {e.epoch: e.metrics["val_mae"] for e in self.epochs}

    @property
    def held_since_ms(self) -> int | None:
        """Since when it holds the worker that it has now."""
        latest = self.attempts[-1] if self.attempts else None
        return latest.begun_ms if latest and latest.node and latest.ended_ms is None else None

    def seconds(self, now_ms: int) -> float:
        """How long it has held its workers; what it waits for one, or for the store, costs none."""
        until_ms = now_ms if self.ended_ms is None else self.ended_ms
        return sum(attempt.seconds(until_ms) for attempt in self.attempts)


@dataclass(frozen=True)
class SearchRecord:
    """One search and all its trials."""

    name: str
    spec: SearchSpec
    fingerprint: str
    created_ms: int
    ended: str | None
    ended_ms: int | None
    trials: tuple[TrialRecord, ...]
    earlier: tuple[tuple[int, SearchSpec], ...] = ()
    """Its search files before it was extended, the first one first, and until when (ms) each was
    in force."""
    avoided_nodes: Mapping[str, str] = field(default_factory=dict)
    """Addresses of nodes that get no trials any more, each with the reason in words."""
    driven: bool = True
    """False of what :func:`undriven` gives."""

    def trial(self, number: int) -> TrialRecord | None:
        """The trial of that number; numbers may have gaps, see :class:`TrialRecord`."""
        return next((t for t in self.trials if t.number == number), None)

    def best(self, also: Sequence[TrialState] = ()) -> TrialRecord | None:
        """The trial with the lowest validation MAE among those that are complete, and those in the
        given states."""
        able = (t for t in self.trials if t.is_complete or t.state in also)
        scored = [t for t in able if t.value is not None]
        return min(scored, key=lambda t: t.value if t.value is not None else math.inf, default=None)

    def count(self, *states: TrialState) -> int:
        return sum(t.state in states for t in self.trials)

    def gpu_hours(self, now_ms: int) -> float:
        """Hours for which trials held their GPUs (CPU-hours where they asked for none)."""
        return (
            self.spec.resources.units_per_trial * sum(t.seconds(now_ms) for t in self.trials) / 3600
        )


def orphaned(trial: TrialRecord) -> Attempt | None:
    """The latest attempt at a trial, as it ended with its driver; none where it was over before.

    Its worker died with its driver, right after its last sign as far as anybody knows.
    """
    latest = trial.attempts[-1] if trial.attempts else None
    if trial.state != "RUNNING" or latest is None or latest.cause is not None:
        return None
    signs_ms = (latest.begun_ms, *(epoch.at_ms for epoch in trial.epochs))
    ended_ms = max(signs_ms) if latest.ended_ms is None else latest.ended_ms
    return replace(latest, ended_ms=ended_ms, cause=ExitReason.PREEMPTED, detail="its driver ended")


def undriven(search: SearchRecord) -> SearchRecord:
    """A search that has no driver any more, as its next one will find it: no time passes."""

    def left(trial: TrialRecord) -> TrialRecord:
        ended = orphaned(trial)
        return replace(trial, attempts=(*trial.attempts[:-1], ended)) if ended else trial

    return replace(search, trials=tuple(map(left, search.trials)), driven=False)
