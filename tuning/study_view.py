"""What samplers are shown of a study."""

import copy
import math
from collections.abc import Callable, Container, Sequence
from typing import Any, cast

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from tuning.space import Settings
from tuning.study_records import number_of


class _NotesAside:
    """A storage that puts aside what samplers note on a trial that is not in the study yet."""

    def __init__(self, storage: BaseStorage, notes: dict[str, Any]) -> None:
        self._inner, self._notes = storage, notes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: ARG002
        self._notes[key] = value


_TOLD = (TrialState.COMPLETE, TrialState.PRUNED)


class Finished(optuna.Study):
    """What samplers learn from: each trial once. Of a trial that was paused and taken up, the
    latest stretch that is over, which holds all that the earlier ones reported.

    A trial that is trained to its end and still waits for its last checkpoint to be stored counts
    as complete: all that can be learnt of it is known, and no proposal waits for the storage. Not
    so with several objectives, of which only a trial that was told has all.

    Args:
        study: the whole.
        epochs: how many a complete trial has.
        earlier: trials of other searches that are shown before its own.
        placed: a trial of its own as it lies in the present space; none where it lies outside.
    """

    notes: dict[str, Any]
    """What the sampler noted on its latest proposal, such as its generation; to be written with
    the trial, in the same step."""

    def __init__(
        self,
        study: optuna.Study,
        epochs: int,
        earlier: Sequence[FrozenTrial] = (),
        placed: Callable[[FrozenTrial], FrozenTrial | None] = lambda trial: trial,
    ) -> None:
        super().__init__(study.study_name, study._storage, RandomSampler())
        self._epochs, self._earlier, self._placed = epochs, earlier, placed
        self.notes = {}
        self._storage = cast(BaseStorage, _NotesAside(study._storage, self.notes))
        self._seen: list[FrozenTrial] | None = None
        self._as_told: Callable[[FrozenTrial], FrozenTrial] = lambda trial: trial

    def look(self) -> None:
        """Looks at the study anew; then all that one proposal asks for is of one moment."""
        self._seen = None
        self.notes.clear()

    def shown(self, as_told: Callable[[FrozenTrial], FrozenTrial]) -> "Finished":
        """The same with each trial as one kind of sampler is told of it."""
        other = copy.copy(self)
        other._as_told, other._seen = as_told, None  # no trial is read for who asks for none
        return other

    def leaders(self, count: int) -> list[Settings]:
        """Settings of the trials that came furthest, the best of these first."""
        ended = [
            t
            for t in self._get_trials(states=_TOLD)
            if math.isfinite(t.intermediate_values.get(t.last_step or 0, math.nan))
        ]
        ended.sort(key=lambda t: (-(t.last_step or 0), min(t.intermediate_values.values())))
        return [dict(t.params) for t in ended[:count]]

    def _get_trials(
        self,
        deepcopy: bool = True,  # noqa: ARG002 - samplers only read
        states: Container[TrialState] | None = None,
        use_cache: bool = False,  # noqa: ARG002
    ) -> list[FrozenTrial]:
        if self._seen is None:
            known = self._storage.get_all_trials(self._study_id, deepcopy=False)
            found = [trial for trial in map(self._placed, known) if trial is not None]
            several = len(self.directions) > 1
            trials = [t if several else self._told(t) for t in found]
            told = (t for t in trials if t.state in _TOLD and not (several and _is_cut_short(t)))
            latest = {number_of(t): t for t in told}
            others = [t for t in trials if t.state not in _TOLD]
            seen = (*self._earlier, *latest.values(), *others)
            self._seen = [self._as_told(trial) for trial in seen]
        return [t for t in self._seen if states is None or t.state in states]

    def _told(self, trial: FrozenTrial) -> FrozenTrial:
        values = trial.intermediate_values
        if trial.state != TrialState.RUNNING or not math.isfinite(
            values.get(self._epochs, math.nan)
        ):
            return trial
        told = copy.copy(trial)
        told.state = TrialState.COMPLETE
        told.value = min(value for value in values.values() if math.isfinite(value))
        return told


def _is_cut_short(trial: FrozenTrial) -> bool:
    """Ended by its search before it was complete: it has no value of some objectives, so there is
    nothing to rank it by."""
    last = trial.intermediate_values.get(trial.last_step or 0, math.nan)
    return trial.state == TrialState.PRUNED and math.isfinite(last)
