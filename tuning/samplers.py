"""Who proposes: samplers by name, and what comes before them. With the study, Optuna's one door.

A proposal depends on the study and on its own index alone: each has a seed of its own, so a driver
that starts again proposes what the one before it would have. First come the `try_first` settings of
the search file, then small variations around them, then the sampler, of which a share stays random.
A configuration that was proposed before is drawn again: by the sampler, which may insist on what it
holds for the best, then by chance, and at last by the grid of a space that has one.
"""

import functools
from collections.abc import Collection, Iterator

import numpy as np
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState, create_trial
from threadpoolctl import ThreadpoolController

from tuning.distributions import distribution
from tuning.grid import Configuration, configuration, has_grid, untried
from tuning.sampler_kinds import SAMPLERS, as_told_to
from tuning.space import Settings
from tuning.spec import SearchSpec, first_value
from tuning.study_view import Finished
from tuning.variations import varied

LEADERS = 3  # untuned
DRAWS = 20  # by the sampler, and as many by chance; untuned
DRAWS_BY_GP = 2  # each takes it a second, and it hardly ever changes its mind; untuned


def propose(
    spec: SearchSpec, index: int, study: Finished, known: Collection[Configuration]
) -> Settings | None:
    """The ``index``-th configuration of a search.

    Args:
        spec: the search.
        index: how many were proposed before.
        study: what the sampler learns from; keeps the notes that it makes on its proposal.
        known: configurations that were proposed before.

    Returns:
        Values of all parameters that are active; none where the space holds nothing new.
    """
    if spec.sampler.name == "grid" and index >= len(spec.try_first):
        return untried(spec, known)
    # Threads gain nothing on matrices this small, and where trainings share the cores each of their
    # many calls waits for the slowest thread.
    with _blas().limit(limits=1, user_api="blas"):
        told = study.shown(functools.partial(as_told_to, spec.sampler.name))
        return _proposed(spec, index, told, known)


@functools.cache
def _blas() -> ThreadpoolController:
    """The BLAS libraries of this process; it takes 8 ms to look for them, so it is done once."""
    import scipy.linalg  # noqa: F401, PLC0415 - that its own is there to be found

    return ThreadpoolController()


def _proposed(
    spec: SearchSpec, index: int, study: Finished, known: Collection[Configuration]
) -> Settings:
    left = untried(spec, known) if has_grid(spec) else None
    is_exhausted = left is None and has_grid(spec)
    settings: Settings = {}
    for settings in _draws(spec, index, study):
        if is_exhausted or configuration(settings) not in known:
            return settings
    is_named = index < len(spec.try_first)  # and is repeated there
    return settings if is_named or left is None else left


def _draws(spec: SearchSpec, index: int, study: Finished) -> Iterator[Settings]:
    for attempt in range(DRAWS_BY_GP if spec.sampler.name == "gp" else DRAWS):
        yield _draw(spec, index, study, np.random.default_rng((spec.sampler.seed, index, attempt)))
    # What comes by chance keeps the notes: it belongs to the generation of what it stands in for.
    for attempt in range(DRAWS, 2 * DRAWS if index >= len(spec.try_first) else DRAWS):
        random = np.random.default_rng((spec.sampler.seed, index, attempt))
        yield _sampled(spec, {}, study, RandomSampler(int(random.integers(2**32))))


def _draw(spec: SearchSpec, index: int, study: Finished, random: np.random.Generator) -> Settings:
    study.notes.clear()
    seed = int(random.integers(2**32))
    named = len(spec.try_first)
    given: Settings = {}
    begins = 0 if spec.warm_start else _random_until(spec)
    by_chance = (named > 0 and index < max(begins, named + spec.sampler.variations)) or (
        random.random() < spec.sampler.random_share
    )
    # All proposals of a genetic algorithm are of one generation or another; it mutates by itself.
    by_chance = by_chance and spec.sampler.name != "nsga2"
    if not by_chance and random.random() < _local_share(spec, index):
        leaders = study.leaders(LEADERS)
        if leaders:
            given = varied(spec.parameters, leaders[random.integers(len(leaders))], random)
    if index < named:
        given = spec.try_first[index]
    elif named and index < named + spec.sampler.variations:
        given = _variation(spec, index - named, random)
    sampler = RandomSampler(seed) if by_chance else SAMPLERS[spec.sampler.name](spec, seed)
    return _sampled(spec, given, study, sampler)


def _variation(spec: SearchSpec, index: int, random: np.random.Generator) -> Settings:
    # Those that an extended search leaves outside its bounds have nothing around them.
    inside = [settings for settings in spec.try_first if spec.may_try(settings)]
    return varied(spec.parameters, inside[index % len(inside)], random) if inside else {}


def _local_share(spec: SearchSpec, index: int) -> float:
    """Share of proposals near what leads: the model proposes the parameters one by one and does not
    see that a good rate goes with a certain decay; a step away from a good trial keeps them
    together."""
    is_model = spec.sampler.name in ("tpe", "tpe-multivariate") and len(spec.objectives) == 1
    return spec.sampler.local_share if is_model and index >= _random_until(spec) else 0.0


def _random_until(spec: SearchSpec) -> int:
    """Index of the first proposal that may follow from results. Known-good settings and what lies
    around them are no random sample: a model of these alone would never look elsewhere."""
    named = len(spec.try_first)
    return spec.sampler.startup_trials + (named + spec.sampler.variations if named else 0)


def _sampled(spec: SearchSpec, given: Settings, study: Finished, sampler: BaseSampler) -> Settings:
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
        elif (values := distribution(name, parameter)).single():  # samplers are not asked for these
            settings[name] = first_value(name, parameter)
        elif name in together:
            settings[name] = together[name]
        else:
            settings[name] = sampler.sample_independent(study, trial, name, values)
    return settings
