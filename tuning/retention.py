"""Which checkpoints must keep their weights or their whole state: a pure function of all searches.

All searches share the checkpoints, so all have their say. Manifests, and with them the metrics of
every epoch, stay for ever; what is not named here loses its heavy parts at the next collection, and
would have to be trained again only by a trial that goes on beyond it.
"""

import functools
import math
from collections.abc import Collection, Iterator, Sequence
from enum import IntEnum

from headpose.config import TrainConfig
from headpose.schedule import SCHEDULE_FIELDS, schedule_of
from tuning.exits import ExitReason
from tuning.legal import count_of, value_after
from tuning.records import SearchRecord, TrialRecord
from tuning.space import Choices, Range, Settings, Value
from tuning.spec import SearchSpec
from usererror import UserError

DAY_MS = 24 * 3600 * 1000
MOST_VALUES = 1000
"""A range of more values than this is taken for a continuous one: hardly anything in it repeats."""

LIVING_STATES = 2
"""How many stored states a trial that may go on keeps: one that is found damaged then costs an
epoch, not all of them."""


class Keep(IntEnum):
    """What of a checkpoint is needed."""

    WEIGHTS = 1
    STATE = 2
    """The weights, and what going on needs beside them."""


def needed(
    searches: Sequence[SearchRecord],
    *,
    registered: Collection[str],
    loadable: Collection[str],
    now_ms: int,
) -> dict[str, Keep]:
    """What must stay, by checkpoint key.

    Args:
        searches: all that may share these checkpoints.
        registered: keys that versions of models name.
        loadable: keys whose state is in the store.
        now_ms: the time; the states of a search that was cut off are kept for some days.
    """
    found = dict.fromkeys(registered, Keep.WEIGHTS)
    for search in searches:
        for key, what in _of_search(search, loadable, now_ms):
            found[key] = max(what, found.get(key, what))
    return found


def keys_of(search: SearchRecord) -> set[str]:
    """The checkpoints of all epochs of a search."""
    return {epoch.checkpoint_key for trial in search.trials for epoch in trial.epochs}


def _of_search(
    search: SearchRecord, loadable: Collection[str], now_ms: int
) -> Iterator[tuple[str, Keep]]:
    for trial in best_trials(search):
        yield from _whole(trial, loadable)
    for trial in search.trials:
        if _may_go_on(search, trial, now_ms):
            yield from _whole(trial, loadable, states=1 if search.ended else LIVING_STATES)
        if trial.is_complete:
            # Its run has a copy; another search that meets this configuration needs them, too.
            # Where it has gone on, those of before as well: better ones may never have arrived.
            for best in trial.best_epochs:
                yield best.checkpoint_key, Keep.WEIGHTS
        if not search.ended:
            for epoch in branch_points(search.spec, trial.parameters):
                if epoch <= len(trial.epochs):
                    yield trial.epochs[epoch - 1].checkpoint_key, Keep.STATE


def _whole(
    trial: TrialRecord, loadable: Collection[str], states: int = 1
) -> Iterator[tuple[str, Keep]]:
    """A trial's best weights and its latest state, and the latest ones that have been stored: that
    of the last epochs may still be on its way."""
    if trial.best_epoch:
        yield trial.best_epoch.checkpoint_key, Keep.WEIGHTS
    stored = 0
    for index, epoch in enumerate(reversed(trial.epochs)):
        is_stored = epoch.checkpoint_key in loadable
        if index == 0 or is_stored:
            yield epoch.checkpoint_key, Keep.STATE
        stored += is_stored
        if stored == states:
            return


def best_trials(search: SearchRecord) -> list[TrialRecord]:
    """The best of a search, as many as it wants to keep; completed ones before others."""
    scored = [t for t in search.trials if t.value is not None]
    scored.sort(key=lambda t: (not t.is_complete, math.inf if t.value is None else t.value))
    return scored[: search.spec.checkpoints.keep_top]


def _may_go_on(search: SearchRecord, trial: TrialRecord, now_ms: int) -> bool:
    # Those that an end cut off wait for a worker once the search goes on.
    rests = trial.exit_reason in (ExitReason.SEARCH_ENDED, ExitReason.PAUSED)
    if not search.ended:
        # One that failed may be tried again.
        return rests or trial.state in ("RUNNING", "WAITING", "FAIL")
    was_cut_off = any(t.exit_reason == ExitReason.SEARCH_ENDED for t in search.trials)
    days = (now_ms - (search.ended_ms or now_ms)) / DAY_MS
    return was_cut_off and rests and days <= search.spec.checkpoints.keep_unfinished_days


def branch_points(spec: SearchSpec, parameters: Settings) -> frozenset[int]:
    """Epochs after which another legal configuration of the space would go its own way.

    Only what acts through the schedule can branch, and only where all else can be proposed once
    more: not beside a continuous setting, which never repeats.
    """
    own = _schedule_settings(spec, parameters)
    others: set[tuple[Value, ...]] = set()
    for name in SCHEDULE_FIELDS:
        rest = [n for n in parameters if n != name]
        if name in parameters and all(_repeats(spec, n) for n in rest):
            for value in _values(spec, name):
                others.add(_schedule_settings(spec, {**parameters, name: value}))
    for named in spec.try_first:
        other = {**parameters, **named}
        if all(other.get(n) == v for n, v in parameters.items() if n not in SCHEDULE_FIELDS):
            others.add(_schedule_settings(spec, other))
    return _depths(own, frozenset(others), spec.budget.epochs)


@functools.cache
def _depths(
    own: tuple[Value, ...], others: frozenset[tuple[Value, ...]], epochs: int
) -> frozenset[int]:
    """After how many common epochs each of the other schedules leaves this one."""
    found = {_common(own, other, epochs) for other in others}
    return frozenset(found - {0, epochs})


def _common(one: tuple[Value, ...], other: tuple[Value, ...], epochs: int) -> int:
    try:
        a, b = (
            TrainConfig(**dict(zip(SCHEDULE_FIELDS, values, strict=True)))  # type: ignore[arg-type]
            for values in (one, other)
        )
    except UserError:
        return 0  # no legal configuration
    common = 0
    while common < epochs and schedule_of(a, common + 1) == schedule_of(b, common + 1):
        common += 1
    return common


def _schedule_settings(spec: SearchSpec, parameters: Settings) -> tuple[Value, ...]:
    settings = {**spec.fixed, **parameters}
    return tuple(settings.get(name, getattr(TrainConfig, name)) for name in SCHEDULE_FIELDS)


def _repeats(spec: SearchSpec, name: str) -> bool:
    """Whether a proposal may have a parameter's very value again."""
    parameter = spec.parameters.get(name)
    return parameter is None or isinstance(parameter, Choices) or _is_short(name, parameter)


def _values(spec: SearchSpec, name: str) -> tuple[Value, ...]:
    """The legal values of a parameter; the edges stand for all of one with very many."""
    parameter = spec.parameters.get(name)
    if parameter is None:
        return ()
    if isinstance(parameter, Choices):
        return parameter.choices
    count = count_of(name, parameter)
    if count is None:
        return (parameter.low, parameter.high)
    steps = range(count) if count <= MOST_VALUES else (0, count - 1)
    return tuple(value_after(name, parameter, i) for i in steps)


def _is_short(name: str, parameter: Range) -> bool:
    count = count_of(name, parameter)
    return count is not None and count <= MOST_VALUES
