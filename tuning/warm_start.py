"""Which trials of an earlier search tell this one's sampler something. Pure.

A trial is taken where each of its settings lies in the space of this search: what is searched here
lies within its range or among its choices (where a condition keeps it out, it has its default), and
what was searched there and is fixed here has this very value. Settings that both searches fix may
differ, for the order of configurations often survives that; the difference is told.
"""

import dataclasses
import math
from dataclasses import dataclass

from headpose.config import TrainConfig
from tuning.exits import ExitReason
from tuning.legal import is_legal
from tuning.records import SearchRecord, TrialRecord
from tuning.space import Settings, Value
from tuning.spec import SearchSpec
from usererror import UserError

TAKEN = frozenset({ExitReason.COMPLETED, ExitReason.STOPPED_EARLY, ExitReason.PAUSED})
"""How a trial must have ended. What does not fit into memory or crashes is a matter of the machine;
a trial that the search's end cut short says as much as one that was stopped, and is taken too."""


@dataclass(frozen=True)
class Earlier:
    """A trial of an earlier search, with those of its settings that are searched here."""

    trial: int
    is_complete: bool
    parameters: Settings
    curve: dict[int, float]
    """Validation MAE in degrees by epoch, as far as trials of this search go."""


@dataclass(frozen=True)
class Taken:
    """What a search takes from an earlier one, kept in its study when it is created."""

    search: str
    trials: tuple[Earlier, ...]
    note: str
    """What a person should know about it."""


def taken_from(spec: SearchSpec, fingerprint: str, earlier: SearchRecord) -> Taken:
    """The history that ``earlier`` is to a search of these settings.

    Raises:
        UserError: it was trained on other data, so its errors say nothing here.
    """
    if earlier.fingerprint != fingerprint:
        raise UserError(
            f"warm_start: {earlier.name}",
            "was trained on other data",
            got=earlier.fingerprint[:16],
            rule=f"the data of this search have the fingerprint {fingerprint[:16]}",
            remedy="leave it out",
        )
    over = [t for t in earlier.trials if _is_worth_it(t)]
    found: list[Earlier] = []
    differing: dict[str, tuple[Value, Value]] = {}
    for trial in over:
        config = earlier.spec.train_config(trial.parameters)
        settings = lying_in(spec, earlier.spec, config)
        if settings is None:
            continue
        # What lies beyond a whole training here would lead for ever: nothing gets so far.
        last = spec.budget.epochs
        curve = {e: mae for e, mae in trial.curve.items() if math.isfinite(mae) and e <= last}
        is_complete = trial.state == "COMPLETE" or last in curve
        found.append(Earlier(trial.number, is_complete, settings, curve))
        differing |= _differing(spec, config)
    note = f"{len(found)} of {len(over)} trials of {earlier.name} lie in this space"
    both = (differing | _of_the_split(spec, earlier.spec)) if found else {}
    if both:
        told = (f"{name} {there} (here {here})" for name, (there, here) in both.items())
        note += f"; they were trained with {', '.join(told)}"
    return Taken(earlier.name, tuple(found), note)


def lying_in(spec: SearchSpec, earlier: SearchSpec, config: TrainConfig) -> Settings | None:
    """The searched settings of ``config`` as this search would have proposed them; none where it
    could not have."""
    settings: Settings = {}
    for name, parameter in spec.parameters.items():
        value: Value = getattr(config, name)
        if not parameter.is_active(settings):
            if value != _fixed(spec, name):
                return None
            continue
        if not is_legal(name, parameter, value):
            return None
        settings[name] = value
    fixed_here = set(earlier.parameters) - set(spec.parameters)
    if any(getattr(config, name) != _fixed(spec, name) for name in fixed_here):
        return None
    return settings


def _is_worth_it(trial: TrialRecord) -> bool:
    reason = trial.exit_reason
    return trial.value is not None and (reason in TAKEN or reason == ExitReason.SEARCH_ENDED)


def _differing(spec: SearchSpec, config: TrainConfig) -> dict[str, tuple[Value, Value]]:
    """Settings that no trial of this search varies, there and here."""
    names = [f.name for f in dataclasses.fields(TrainConfig) if f.name not in spec.parameters]
    pairs = {name: (getattr(config, name), _fixed(spec, name)) for name in names}
    return {name: (there, here) for name, (there, here) in pairs.items() if there != here}


def _of_the_split(spec: SearchSpec, earlier: SearchSpec) -> dict[str, tuple[Value, Value]]:
    names = ("validation_fraction", "split_seed")
    pairs = {name: (getattr(earlier.data, name), getattr(spec.data, name)) for name in names}
    pairs["epochs"] = (earlier.budget.epochs, spec.budget.epochs)
    return {name: (there, here) for name, (there, here) in pairs.items() if there != here}


def _fixed(spec: SearchSpec, name: str) -> Value:
    value: Value = spec.fixed[name] if name in spec.fixed else getattr(TrainConfig, name)
    return value
