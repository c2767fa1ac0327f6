"""What a study keeps of earlier searches, for its sampler alone: none of it is a trial of its own.

It is written once, before the study is a search, so a driver that starts again proposes the same
even if the earlier search has gone on or is gone.
"""

from dataclasses import asdict
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuning.distributions import distribution
from tuning.spec import SearchSpec
from tuning.warm_start import Taken

# Among the attributes of Optuna's own, which are not read at every look at the wish to stop.
_KEY = "hopetune:warm_start"


def keep(study: optuna.Study, taken: list[Taken]) -> None:
    """Writes what a new search takes from earlier ones."""
    study._storage.set_study_system_attr(study._study_id, _KEY, [asdict(t) for t in taken])


def notes(study: optuna.Study) -> list[str]:
    """What a person should know about each earlier search."""
    return [str(taken["note"]) for taken in _kept(study)]


def history(study: optuna.Study, spec: SearchSpec) -> list[FrozenTrial]:
    """The earlier trials as samplers see them, numbered below zero: older than all of its own."""
    kept = [trial for taken in _kept(study) for trial in taken["trials"]]
    kept = [trial for trial in kept if spec.holds(trial["parameters"])]  # it may be an extended one
    found = [_told(trial, spec) for trial in kept]
    for place, trial in enumerate(found):
        trial.number = place - len(found)
    return found


def _kept(study: optuna.Study) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = study._storage.get_study_system_attrs(study._study_id).get(
        _KEY, []
    )
    return kept


def _told(trial: dict[str, Any], spec: SearchSpec) -> FrozenTrial:
    settings, curve = trial["parameters"], {int(e): v for e, v in trial["curve"].items()}
    return create_trial(
        state=TrialState.COMPLETE if trial["is_complete"] else TrialState.PRUNED,
        value=min(curve.values()),
        params=settings,
        distributions={name: distribution(name, spec.parameters[name]) for name in settings},
        intermediate_values=curve,
    )
