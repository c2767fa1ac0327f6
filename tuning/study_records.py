"""Optuna's trials as the project's records; the stretches of one trial become one again."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from tuning.exits import ExitReason
from tuning.records import Attempt, EpochRecord, TrialRecord

EPOCH = "epoch:"
ATTEMPT = "attempt:"
CONTINUES = "continues"
"""Attribute of a later stretch: the number of the trial's first one."""
BEGUN_AFTER = "begun_after"
"""Attribute of a later stretch: the epoch after which the trial had been paused."""


def number_of(trial: FrozenTrial) -> int:
    """The number under which people know the trial to which an entry belongs."""
    return int(trial.user_attrs.get(CONTINUES, trial.number))


def trial_records(entries: list[FrozenTrial]) -> tuple[TrialRecord, ...]:
    """Every trial once, in the order of their first numbers."""
    stretches: dict[int, list[FrozenTrial]] = {}
    for entry in entries:
        stretches.setdefault(number_of(entry), []).append(entry)
    return tuple(_record(number, found) for number, found in stretches.items())


def _record(number: int, stretches: list[FrozenTrial]) -> TrialRecord:
    latest = stretches[-1]
    attributes = latest.user_attrs
    # Noted just before Optuna is told; until then the trial runs.
    reason = attributes.get("exit_reason") if latest.state.is_finished() else None
    attempts = attempts_of(attributes)
    return TrialRecord(
        number=number,
        state=latest.state.name,  # type: ignore[arg-type]
        parameters=dict(latest.params),
        epochs=_epochs(latest),
        started_ms=_started_ms(stretches[0]),
        ended_ms=_ended_ms(latest),
        exit_reason=ExitReason(reason) if reason else None,
        detail=attributes.get("detail") if reason else None,
        node=next((a.node for a in reversed(attempts) if a.node), None),
        entry=latest.number,
        tried_first=bool(attributes.get("tried_first", False)),
        attempts=attempts,
        completed_epochs=max(map(_completed_epochs, stretches)),
    )


def _completed_epochs(stretch: FrozenTrial) -> int:
    return stretch.last_step or 0 if stretch.state == TrialState.COMPLETE else 0


def attempts_of(attributes: Mapping[str, Any]) -> tuple[Attempt, ...]:
    """The attempts that an entry's attributes tell of, those of earlier stretches included."""
    found = [
        Attempt(**value | {"cause": ExitReason(value["cause"]) if value["cause"] else None})
        for name, value in attributes.items()
        if name.startswith(ATTEMPT)
    ]
    return tuple(sorted(found, key=lambda attempt: attempt.number))


def _epochs(trial: FrozenTrial) -> tuple[EpochRecord, ...]:
    return tuple(
        EpochRecord(
            epoch=int(name.removeprefix(EPOCH)),
            at_ms=value["at_ms"],
            metrics=value["metrics"],
            checkpoint_key=value["checkpoint"],
            restored=value["restored"],
        )
        for name, value in sorted(trial.user_attrs.items())
        if name.startswith(EPOCH)
    )


def _started_ms(trial: FrozenTrial) -> int | None:
    return trial.user_attrs.get("started_ms", _ms(trial.datetime_start))


def _ended_ms(trial: FrozenTrial) -> int | None:
    if not trial.state.is_finished():
        return None
    return trial.user_attrs.get("ended_ms", _ms(trial.datetime_complete))


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)
