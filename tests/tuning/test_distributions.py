"""Steps of a range: what a grid, a proposal and a search file take for legal is so for Optuna."""

import numpy as np
import pytest

from tuning.distributions import distribution
from tuning.legal import count_of, is_legal, value_after
from tuning.scale import value_at
from tuning.space import Range
from tuning.variations import drawn, varied

# As a file says them; rounding takes most of their last steps a little beyond the edge.
STEPPED = [
    ("alpha", Range(low=0, high=0.3, step=0.1), 4),
    ("alpha", Range(low=0, high=1, step=0.3), 4),
    ("decay_rate", Range(low=0.8, high=1.0, step=0.05), 5),
    ("decay_rate", Range(low=0.8, high=0.98, step=0.05), 4),
    ("flip", Range(low=0.1, high=0.7, step=0.2), 4),
    ("blur", Range(low=0.05, high=0.06, step=0.1), 1),
    ("unfreeze_epoch", Range(low=0, high=10), 11),
    ("unfreeze_epoch", Range(low=1, high=10, step=4), 3),
    ("unfreeze_epoch", Range(low=2, high=2), 1),
]


@pytest.mark.parametrize(("name", "parameter", "count"), STEPPED)
def test_every_step_is_legal_for_optuna_too(name: str, parameter: Range, count: int) -> None:
    assert count_of(name, parameter) == count
    optunas = distribution(name, parameter)
    found = {value_after(name, parameter, steps) for steps in range(count + 3)}
    assert len(found) == count
    random = np.random.default_rng(3)
    found |= {value_at(name, parameter, share) for share in np.linspace(-0.2, 1.2, 57)}
    found |= {drawn({name: parameter}, random)[name] for _ in range(50)}
    found |= {varied({name: parameter}, {name: parameter.low}, random, by=2.0)[name]}
    assert len(found) == count
    for value in found:
        assert is_legal(name, parameter, value)
        assert optunas._contains(optunas.to_internal_repr(value))


@pytest.mark.parametrize(("name", "parameter", "count"), STEPPED)
def test_what_is_legal_here_is_legal_for_optuna(name: str, parameter: Range, count: int) -> None:
    optunas = distribution(name, parameter)
    low, step = parameter.low, parameter.step or 1.0
    for half_steps in range(-2, 2 * count + 2):
        for off in (0, 1e-16, 1e-7):
            value = low + (half_steps / 2 + off) * step
            assert is_legal(name, parameter, value) == optunas._contains(value), value
    assert is_legal(name, parameter, parameter.high) == optunas._contains(parameter.high)
