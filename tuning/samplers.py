"""Who proposes: samplers by name, and what comes before them. With the study, Optuna's one door.

A proposal depends on the study and on its own index alone: each has a seed of its own, so a driver
that starts again proposes what the one before it would have. First come the `try_first` settings of
the search file, then small variations around them, then the sampler, of which a share stays random.
A configuration that was proposed before is drawn again, a few times.
"""

import itertools
import warnings
from collections.abc import Callable, Collection

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from tuning.space import Choices, Parameter, Range, Settings, Value
from tuning.spec import Sampler, SearchSpec, field_kind

DRAWS = 20  # untuned: then the space is as good as exhausted, and a repetition costs no training
VARIED_BY = 0.1
"""Standard deviation of a variation, as a share of the range; untuned."""
CHOICE_KEPT = 0.8
"""Probability that a variation keeps a choice; untuned."""

Configuration = tuple[tuple[str, Value], ...]


def configuration(settings: Settings) -> Configuration:
    """Settings as a value that can be looked up."""
    return tuple(sorted(settings.items()))


def propose(
    spec: SearchSpec, index: int, study: optuna.Study, known: Collection[Configuration]
) -> Settings | None:
    """The ``index``-th configuration of a search.

    Args:
        spec: the search.
        index: how many were proposed before.
        study: what the sampler learns from.
        known: configurations that were proposed before.

    Returns:
        Values of all parameters that are active; none where the space holds nothing new.
    """
    if spec.sampler.name == "grid" and index >= len(spec.try_first):
        return next((s for s in grid(spec) if configuration(s) not in known), None)
    settings: Settings = {}
    for attempt in range(DRAWS):
        random = np.random.default_rng((spec.sampler.seed, index, attempt))
        settings = _draw(spec, index, study, random)
        if configuration(settings) not in known:
            break
    return settings


def grid(spec: SearchSpec) -> list[Settings]:
    """All configurations of a space without continuous ranges, the last parameter fastest."""
    values = [_grid_values(name, p) for name, p in spec.parameters.items()]
    found: dict[Configuration, Settings] = {}
    for point in itertools.product(*values):
        settings: Settings = {}
        for (name, parameter), value in zip(spec.parameters.items(), point, strict=True):
            if parameter.is_active(settings):
                settings[name] = value
        found.setdefault(configuration(settings), settings)
    return list(found.values())


def distribution(name: str, parameter: Parameter) -> BaseDistribution:
    """A parameter as Optuna has it."""
    if isinstance(parameter, Choices):
        return CategoricalDistribution(parameter.choices)
    if field_kind(name) is int:
        step = int(parameter.step or 1)
        return IntDistribution(int(parameter.low), int(parameter.high), parameter.log, step)
    return FloatDistribution(parameter.low, parameter.high, parameter.log, parameter.step)


def _draw(
    spec: SearchSpec, index: int, study: optuna.Study, random: np.random.Generator
) -> Settings:
    seed = int(random.integers(2**32))
    named = len(spec.try_first)
    given: Settings = {}
    by_chance = index < named + spec.sampler.variations or (
        random.random() < spec.sampler.random_share
    )
    if index < named:
        given = spec.try_first[index]
    elif named and index < named + spec.sampler.variations:
        given = _varied(spec, spec.try_first[(index - named) % named], random)
    sampler = RandomSampler(seed) if by_chance else SAMPLERS[spec.sampler.name](spec.sampler, seed)
    return _sampled(spec, given, study, sampler)


def _sampled(
    spec: SearchSpec, given: Settings, study: optuna.Study, sampler: BaseSampler
) -> Settings:
    """Lets a sampler choose what is not given. Nothing is written: a trial enters the study whole,
    in one step, so that a driver killed in between leaves no half of one."""
    trial = create_trial(state=TrialState.RUNNING)
    space = sampler.infer_relative_search_space(study, trial)
    together = sampler.sample_relative(study, trial, space)
    settings: Settings = {}
    for name, parameter in spec.parameters.items():
        if not parameter.is_active(settings):
            continue
        if name in given:
            settings[name] = given[name]
        elif name in together:
            settings[name] = together[name]
        else:
            alone = sampler.sample_independent(study, trial, name, distribution(name, parameter))
            settings[name] = alone
    return settings


def _varied(spec: SearchSpec, settings: Settings, random: np.random.Generator) -> Settings:
    varied: Settings = {}
    for name, value in settings.items():
        parameter = spec.parameters[name]
        if isinstance(parameter, Choices):
            keep = random.random() < CHOICE_KEPT
            varied[name] = (
                value if keep else parameter.choices[random.integers(len(parameter.choices))]
            )
        else:
            varied[name] = _moved(name, parameter, float(value or 0), float(random.normal()))
    return varied


def _moved(name: str, parameter: Range, value: float, by: float) -> Value:
    low, high = parameter.low, parameter.high
    if parameter.log:
        low, high, value = np.log(low), np.log(high), np.log(value)
    moved = float(np.clip(value + by * VARIED_BY * (high - low), low, high))
    if parameter.log:
        moved = float(np.clip(np.exp(moved), parameter.low, parameter.high))
    is_int = field_kind(name) is int
    step = parameter.step or (1.0 if is_int else None)
    if step:
        moved = parameter.low + round((moved - parameter.low) / step) * step
        moved = min(moved, parameter.high)
    return int(moved) if is_int else moved


def _grid_values(name: str, parameter: Parameter) -> tuple[Value, ...]:
    if isinstance(parameter, Choices):
        return parameter.choices
    is_int = field_kind(name) is int
    step = parameter.step or 1.0
    count = int((parameter.high - parameter.low) / step + 1e-9) + 1
    values = [parameter.low + step * index for index in range(count)]
    return tuple(int(v) for v in values) if is_int else tuple(values)


def _tpe(settings: Sampler, seed: int) -> BaseSampler:
    return TPESampler(
        n_startup_trials=settings.startup_trials,
        multivariate=settings.name == "tpe-multivariate",
        constant_liar=False,
        seed=seed,
    )


def _gp(settings: Sampler, seed: int) -> BaseSampler:
    return GPSampler(seed=seed, n_startup_trials=settings.startup_trials)


def _qmc(settings: Sampler, seed: int) -> BaseSampler:  # noqa: ARG001
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # since Optuna 3.0
        # One sequence for the whole search, of which each proposal takes the next point.
        return QMCSampler(
            scramble=True,
            seed=settings.seed,
            warn_asynchronous_seeding=False,
            warn_independent_sampling=False,
        )


def _random(settings: Sampler, seed: int) -> BaseSampler:  # noqa: ARG001
    return RandomSampler(seed)


SAMPLERS: dict[str, Callable[[Sampler, int], BaseSampler]] = {
    "tpe": _tpe,
    "tpe-multivariate": _tpe,
    "gp": _gp,
    "qmc": _qmc,
    "random": _random,
}
