"""Optuna's samplers by name, each made anew for a single proposal, with that proposal's seed; and
what each is told of a trial that did not come to its end."""

import copy
import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, TrialState

from tuning.distributions import distribution
from tuning.grid import configuration
from tuning.space import Range
from tuning.spec import SearchSpec
from tuning.study_records import number_of

if TYPE_CHECKING:
    from tuning.curve_proposals import Seen

POPULATION = 20
"""Individuals of a generation of `nsga2`; untuned. Optuna's 50 are a whole search of trainings."""


class RangesByCma(CmaEsSampler):
    """CMA-ES over the ranges that are there in every trial, for it knows neither choices nor
    conditions; these are left to univariate TPE. A stopped trial counts with its latest value."""

    def __init__(self, spec: SearchSpec, seed: int) -> None:
        with warnings.catch_warnings():
            # Stopped trials count since Optuna 2.0, and are experimental ever since.
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(
                n_startup_trials=spec.sampler.startup_trials,
                independent_sampler=_tpe(spec, seed),
                warn_independent_sampling=False,
                seed=seed,
                consider_pruned_trials=True,
                popsize=spec.sampler.population,
            )
        self._ranges = {
            name: distribution(name, parameter)
            for name, parameter in spec.parameters.items()
            if isinstance(parameter, Range) and not parameter.when
        }

    def infer_relative_search_space(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        return {name: range_ for name, range_ in self._ranges.items() if not range_.single()}

    def _get_trials(self, study: optuna.Study) -> list[FrozenTrial]:
        # A diverged trial has no value that could be ranked.
        return [t for t in super()._get_trials(study) if math.isfinite(t.value or math.nan)]


class ByCurves(BaseSampler):
    """Learns from whole learning curves, those of trials that are still being trained and of paused
    ones included; see ``tuning/curve_proposals.py``. Random until ``startup_trials`` have begun."""

    _SHOWN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)

    def __init__(self, spec: SearchSpec, seed: int) -> None:
        self._spec = spec
        self._numbers = np.random.default_rng(seed)
        self._random = RandomSampler(seed)

    def infer_relative_search_space(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        return {name: distribution(name, p) for name, p in self._spec.parameters.items()}

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> dict[str, Any]:
        # Here, as commands that only look at searches import this module, too: scipy takes 0.2 s.
        from tuning.curve_proposals import promising  # noqa: PLC0415

        # Those of earlier searches, numbered below zero, were not trained here.
        every = study.get_trials(deepcopy=False)
        proposed = {configuration(dict(t.params)) for t in every if t.number >= 0}
        latest: dict[int, FrozenTrial] = {}
        for shown in study.get_trials(deepcopy=False, states=self._SHOWN):
            known = latest.get(number_of(shown))
            if known is None or len(shown.intermediate_values) >= len(known.intermediate_values):
                latest[number_of(shown)] = shown
        if len(latest) < self._spec.sampler.startup_trials:
            return {}
        seen = [_seen(latest[number]) for number in sorted(latest)]
        spec = self._spec
        epochs = spec.budget.epochs
        return promising(spec.parameters, seen, epochs, self._numbers, proposed) or {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)


def _seen(trial: FrozenTrial) -> "Seen":
    from tuning.curve_proposals import Seen  # noqa: PLC0415

    is_infeasible = any(value > 0 for value in trial.constraints.values())
    return Seen(dict(trial.params), trial.intermediate_values, is_infeasible)


def _tpe(spec: SearchSpec, seed: int) -> BaseSampler:
    return TPESampler(
        n_startup_trials=spec.sampler.startup_trials,
        multivariate=spec.sampler.name == "tpe-multivariate",
        constant_liar=False,
        seed=seed,
    )


def _gp(spec: SearchSpec, seed: int) -> BaseSampler:
    startup = spec.sampler.startup_trials
    return GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)


def _qmc(spec: SearchSpec, seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # since Optuna 3.0
        # One sequence for the whole search, of which each proposal takes the next point.
        return QMCSampler(
            scramble=True,
            seed=spec.sampler.seed,
            independent_sampler=RandomSampler(seed),  # else by the search's seed, ever the same
            warn_asynchronous_seeding=False,
            warn_independent_sampling=False,
        )


def _nsga2(spec: SearchSpec, seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=spec.sampler.population or POPULATION, seed=seed)


def _random(spec: SearchSpec, seed: int) -> BaseSampler:  # noqa: ARG001
    return RandomSampler(seed)


SAMPLERS: dict[str, Callable[[SearchSpec, int], BaseSampler]] = {
    "gp-curves": ByCurves,
    "tpe": _tpe,
    "tpe-multivariate": _tpe,
    "gp": _gp,
    "cmaes": RangesByCma,
    "qmc": _qmc,
    "nsga2": _nsga2,
    "random": _random,
}


def as_told_to(sampler: str, trial: FrozenTrial) -> FrozenTrial:
    """A trial as a sampler is to see it."""
    if sampler == "gp-curves" or trial.state != TrialState.PRUNED:
        return trial
    last = trial.intermediate_values.get(trial.last_step or 0, math.nan)
    if math.isfinite(last) and sampler != "gp":
        return trial
    told = copy.copy(trial)
    if not math.isfinite(last):
        # Else Optuna ranks it by its last step: the later it diverged, the better.
        told.intermediate_values = {}
    else:
        # It learns from complete trials only, of which early stopping leaves few.
        told.state, told.value = TrialState.COMPLETE, last
    return told
