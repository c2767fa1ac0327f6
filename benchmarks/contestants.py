"""Searches as others would wire them, behind the protocol that the simulator speaks.

``PlainRay`` is Ray's own ``OptunaSearch`` and ``ASHAScheduler``, called in the order in which Ray
Tune's controller calls them; ``PlainOptuna`` is ask-and-tell with one of Optuna's pruners. Both get
what a user gets who follows the manuals, and nothing of Hopetune.
"""

import logging
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from tuning.distributions import distribution
from tuning.events import Idle, Work
from tuning.exits import ExitReason
from tuning.legal import field_kind
from tuning.records import EpochRecord
from tuning.space import Choices, Parameter, Settings

METRIC = "val_mae"


class _Trial:
    """All that the scheduler looks at of a trial."""

    def __init__(self, number: int) -> None:
        self.trial_id = f"t{number:05d}"


class PlainRay:
    """``OptunaSearch`` and ``ASHAScheduler`` with their defaults; ``max_t`` is the horizon."""

    def __init__(
        self, space: dict[str, Parameter], epochs: int, seed: int, first: Sequence[Settings] = ()
    ) -> None:
        np.random.seed(seed)  # the scheduler draws brackets from the global generator
        self._epochs = epochs
        self._searcher = OptunaSearch(
            OptunaSearch.convert_search_space({n: _domain(n, p) for n, p in space.items()}),
            metric=METRIC,
            mode="min",
            points_to_evaluate=[dict(settings) for settings in first] or None,
            seed=seed,
        )
        self._scheduler = ASHAScheduler(metric=METRIC, mode="min", max_t=epochs)
        self._trials: dict[int, _Trial] = {}

    def next_trial(self) -> Work | Idle:
        number = len(self._trials)
        trial = self._trials[number] = _Trial(number)
        settings = cast(Settings, self._searcher.suggest(trial.trial_id))
        self._scheduler.on_trial_add(cast(Any, None), cast(Any, trial))
        return Work(number, dict(settings))

    def on_start(self, number: int, attempt: int, node: str, pid: int) -> None:
        """It asks nobody where a trial is trained."""

    def on_epoch(self, number: int, attempt: int, record: EpochRecord) -> bool:  # noqa: ARG002
        trial = cast(Any, self._trials[number])
        result = {METRIC: record.metrics[METRIC], "training_iteration": record.epoch}
        controller = cast(Any, None)
        decision = self._scheduler.on_trial_result(controller, trial, result)
        if decision == TrialScheduler.STOP or record.epoch >= self._epochs:
            self._scheduler.on_trial_complete(controller, trial, result)
            self._complete(trial.trial_id, result)
            return False
        self._searcher.on_trial_result(trial.trial_id, result)
        return True

    def _complete(self, trial_id: str, result: dict[str, Any]) -> None:
        # Of NaN it only logs that it could not be told, and the trial stays RUNNING in the study.
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        self._searcher.on_trial_complete(trial_id, result)

    def on_note(self, number: int, text: str) -> None:
        """Nobody reads along."""

    def on_end(self, number: int, attempt: int, cause: ExitReason, detail: str | None) -> None:  # noqa: ARG002
        trial = cast(Any, self._trials[number])
        self._scheduler.on_trial_remove(cast(Any, None), trial)
        self._searcher.on_trial_complete(trial.trial_id, None, error=True)

    def hung(self) -> list[tuple[int, int]]:
        return []

    def must_end(self) -> bool:
        return False


class PlainOptuna:
    """Optuna's ask-and-tell; a diverged trial is told as pruned, as its manual advises."""

    def __init__(
        self,
        space: dict[str, Parameter],
        epochs: int,
        sampler: BaseSampler,
        pruner: BasePruner,
        first: Sequence[Settings] = (),
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._epochs = epochs
        self._space = {name: distribution(name, p) for name, p in space.items()}
        self._study = optuna.create_study(sampler=sampler, pruner=pruner)
        for settings in first:
            self._study.enqueue_trial(dict(settings))
        self._trials: dict[int, optuna.Trial] = {}

    def next_trial(self) -> Work | Idle:
        trial = self._study.ask(fixed_distributions=self._space)
        self._trials[trial.number] = trial
        return Work(trial.number, dict(trial.params))

    def on_start(self, number: int, attempt: int, node: str, pid: int) -> None:
        """It asks nobody where a trial is trained."""

    def on_epoch(self, number: int, attempt: int, record: EpochRecord) -> bool:  # noqa: ARG002
        trial, value = self._trials[number], record.metrics[METRIC]
        trial.report(value, record.epoch)
        if record.epoch >= self._epochs and math.isfinite(value):
            self._study.tell(trial, value)
        elif trial.should_prune() or not math.isfinite(value):
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            return True
        return False

    def on_note(self, number: int, text: str) -> None:
        """Nobody reads along."""

    def on_end(self, number: int, attempt: int, cause: ExitReason, detail: str | None) -> None:  # noqa: ARG002
        self._study.tell(self._trials[number], state=TrialState.FAIL)

    def hung(self) -> list[tuple[int, int]]:
        return []

    def must_end(self) -> bool:
        return False


def _domain(name: str, parameter: Parameter) -> Any:
    if isinstance(parameter, Choices):
        return tune.choice(list(parameter.choices))
    if field_kind(name) is int:
        return tune.randint(int(parameter.low), int(parameter.high) + 1)
    between = tune.loguniform if parameter.log else tune.uniform
    return between(parameter.low, parameter.high)
