"""Trials that no other beats in every objective at once. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from tuning.records import SearchRecord, TrialRecord
from tuning.spec import Objective


@dataclass(frozen=True)
class OnFront:
    """A trial on the front and what it reached, in the order of the search's objectives."""

    trial: int
    values: tuple[float, ...]


def objective_values(
    trial: TrialRecord, objectives: Sequence[Objective]
) -> tuple[float, ...] | None:
    """Of a completed trial: its best validation MAE, and what its last epoch says of the others;
    none where one of them is unknown."""
    if not trial.is_complete or trial.end is None:
        return None
    last = trial.end.metrics
    found = [trial.value if name == "val_mae" else last.get(name) for name in objectives]
    values = tuple(value for value in found if value is not None)
    return values if len(values) == len(objectives) else None


def front(search: SearchRecord) -> tuple[OnFront, ...]:
    """Completed trials to which none is at least equal in all objectives and better in one; all
    are minimised. The lowest error first."""
    objectives = search.spec.objectives
    valued = [OnFront(t.number, v) for t in search.trials if (v := objective_values(t, objectives))]
    found = [own for own in valued if not any(_beats(o.values, own.values) for o in valued)]
    return tuple(sorted(found, key=lambda own: (own.values, own.trial)))


def describe(search: SearchRecord) -> str:
    """The front in words: ``trial 3 (val_mae 5.210, latency_ms 4.20); …``."""
    names = search.spec.objectives
    parts = []
    for own in front(search):
        values = (f"{name} {value:.4g}" for name, value in zip(names, own.values, strict=True))
        parts.append(f"trial {own.trial} ({', '.join(values)})")
    return "; ".join(parts)


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
