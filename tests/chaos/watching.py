"""A search as Optuna's own API shows it: the study's view from outside, without our own reader."""

import math
from dataclasses import dataclass, field

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

optuna.logging.set_verbosity(optuna.logging.WARNING)

TIMING = ("epoch_seconds", "images_per_second")
"""Metrics that differ from one run to the next."""


@dataclass(frozen=True)
class Epoch:
    """One epoch as the study has it."""

    at_s: float
    metrics: dict[str, float]
    key: str
    restored: bool


@dataclass
class Trial:
    """One trial; ``entries`` are Optuna's own trials that it consists of."""

    number: int
    parameters: dict[str, object]
    state: str
    value: float | None
    reason: str | None
    workers: set[int]
    """Process ids of the workers that have it now, as far as the study knows."""
    epochs: dict[int, Epoch]
    intermediate: dict[int, float]
    attempts: tuple[tuple[float, str], ...] = ()
    """When each attempt at it began, and the address of its node."""
    detail: str | None = None
    entries: list[FrozenTrial] = field(default_factory=list)

    @property
    def best_key(self) -> str | None:
        scored = [e for e in self.epochs.values() if math.isfinite(e.metrics["val_mae"])]
        return min(scored, key=lambda e: e.metrics["val_mae"]).key if scored else None

    @property
    def is_over(self) -> bool:
        return self.state != "RUNNING"

    @property
    def last_at_s(self) -> float:
        """When its latest epoch was recorded; 0 before its first."""
        return max((epoch.at_s for epoch in self.epochs.values()), default=0.0)

    @property
    def has_reported(self) -> bool:
        """Whether the attempt that goes on has recorded an epoch: until then it is given the time
        of a start, and an epoch may be of an attempt before it."""
        begun_s = max((at_s for at_s, _ in self.attempts), default=0.0)
        return self.last_at_s > begun_s

    @property
    def result(self) -> tuple[object, ...]:
        """All that must not depend on what happened on the way."""
        curve = {
            number: {n: v for n, v in sorted(epoch.metrics.items()) if n not in TIMING}
            for number, epoch in sorted(self.epochs.items())
        }
        return tuple(sorted(self.parameters.items())), self.state, self.value, repr(curve)


class Watcher:
    """Reads studies."""

    def __init__(self, url: str) -> None:
        # Asks before each use whether a connection still lives: the database is killed at times.
        engine = {"pool_pre_ping": True, "connect_args": {"connect_timeout": 5}}
        self._storage = RDBStorage(url, engine_kwargs=engine)

    def close(self) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def trials(self, search: str) -> list[Trial]:
        """The trials of a search, none before it exists.

        Raises:
            ConnectionError: the database does not answer.
        """
        try:
            study = optuna.load_study(study_name=search, storage=self._storage)
            return _joined(study.get_trials(deepcopy=False))
        except KeyError:
            return []
        except (SQLAlchemyError, StorageInternalError) as error:
            raise ConnectionError(str(error)) from error

    def ended(self, search: str) -> str | None:
        """Why the search has ended; none while it has not, or while the database is away."""
        try:
            study = optuna.load_study(study_name=search, storage=self._storage)
            return study.user_attrs.get("ended")
        except (KeyError, SQLAlchemyError, StorageInternalError):
            return None

    def last_known(self, search: str, default: list[Trial]) -> list[Trial]:
        """As :meth:`trials`, or ``default`` while the database is away."""
        try:
            return self.trials(search)
        except ConnectionError:
            return default


def _joined(entries: list[FrozenTrial]) -> list[Trial]:
    found: dict[int, Trial] = {}
    for entry in entries:
        number = int(entry.user_attrs.get("continues", entry.number))
        before = found[number].entries if number in found else []
        found[number] = _trial(number, entry)
        found[number].entries = [*before, entry]
    return [found[number] for number in sorted(found)]


def _trial(number: int, entry: FrozenTrial) -> Trial:
    attributes = entry.user_attrs
    epochs = {
        int(name.removeprefix("epoch:")): Epoch(
            kept["at_ms"] / 1000, kept["metrics"], kept["checkpoint"], kept["restored"]
        )
        for name, kept in attributes.items()
        if name.startswith("epoch:")
    }
    return Trial(
        number=number,
        parameters=dict(entry.params),
        state=entry.state.name,
        value=entry.value if entry.state.name == "COMPLETE" else None,
        reason=attributes.get("exit_reason"),
        workers={
            int(kept["pid"])
            for name, kept in attributes.items()
            if name.startswith("attempt:") and kept["pid"] and kept["ended_ms"] is None
        },
        epochs=epochs,
        intermediate=dict(entry.intermediate_values),
        attempts=tuple(
            (kept["begun_ms"] / 1000, kept["node"])
            for name, kept in sorted(attributes.items())
            if name.startswith("attempt:")
        ),
        detail=attributes.get("detail"),
    )
