"""What samplers are shown of a study."""

import copy
import math
from collections.abc import Container
from typing import Any, cast

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from tuning.study_records import number_of


class _NoTrialNotes:
    """A storage in which samplers cannot write notes on a trial that is not in the study yet."""

    def __init__(self, storage: BaseStorage) -> None:
        self._inner = storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """A parallel proposal would read it, but all come from one driver, one after the other."""


_TOLD = (TrialState.COMPLETE, TrialState.PRUNED)


class Finished(optuna.Study):
    """What samplers learn from: each trial once. Of a trial that was paused and taken up, the
    latest stretch that is over, which holds all that the earlier ones reported.

    A trial that is trained to its end and still waits for its last checkpoint to be stored counts
    as complete: all that can be learnt of it is known, and no proposal waits for the storage.

    Args:
        study: the whole.
        epochs: how many a complete trial has.
    """

    def __init__(self, study: optuna.Study, epochs: int) -> None:
        super().__init__(study.study_name, study._storage, RandomSampler())
        self._epochs = epochs
        self._storage = cast(BaseStorage, _NoTrialNotes(study._storage))
        self._seen: list[FrozenTrial] | None = None

    def look(self) -> None:
        """Looks at the study anew; then all that one proposal asks for is of one moment."""
        self._seen = None

    def _get_trials(
        self,
        deepcopy: bool = True,  # noqa: ARG002 - samplers only read
        states: Container[TrialState] | None = None,
        use_cache: bool = False,  # noqa: ARG002
    ) -> list[FrozenTrial]:
        if self._seen is None:
            found = self._storage.get_all_trials(self._study_id, deepcopy=False)
            trials = [self._told(trial) for trial in found]
            latest = {number_of(t): t for t in trials if t.state in _TOLD}
            self._seen = [*latest.values(), *(t for t in trials if t.state not in _TOLD)]
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
