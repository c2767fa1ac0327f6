"""Random settings, anywhere in a space or near settings that are known to be good. Pure, given the
randomness."""

import numpy as np

from tuning.scale import share_of, value_at
from tuning.space import Choices, Parameter, Settings, Value

VARIED_BY = 0.1
"""Standard deviation of a variation, as a share of the range; untuned."""
CHOICE_KEPT = 0.8
"""Probability that a variation keeps a choice; untuned."""


def varied(
    parameters: dict[str, Parameter],
    settings: Settings,
    random: np.random.Generator,
    *,
    by: float = VARIED_BY,
) -> Settings:
    """Settings near the given ones, each within its range.

    Args:
        parameters: the space.
        settings: values of some or all of its parameters.
        random: where the steps come from.
        by: standard deviation of a step, as a share of the (logarithmic) range.
    """
    return {
        name: _moved(name, parameters[name], value, random, by) for name, value in settings.items()
    }


def drawn(
    parameters: dict[str, Parameter],
    random: np.random.Generator,
    near: Settings | None = None,
    by: float = VARIED_BY,
) -> Settings:
    """A whole configuration: values of all parameters that are active.

    Those that ``near`` has are varied, the others drawn evenly from their ranges and choices.
    """
    found: Settings = {}
    for name, parameter in parameters.items():
        if not parameter.is_active(found):
            continue
        if near is not None and name in near:
            found[name] = _moved(name, parameter, near[name], random, by)
        elif isinstance(parameter, Choices):
            found[name] = parameter.choices[random.integers(len(parameter.choices))]
        else:
            found[name] = value_at(name, parameter, random.random())
    return found


def _moved(
    name: str, parameter: Parameter, value: Value, random: np.random.Generator, by: float
) -> Value:
    if isinstance(parameter, Choices):
        if random.random() < CHOICE_KEPT:
            return value
        return parameter.choices[random.integers(len(parameter.choices))]
    share = share_of(parameter, float(value or 0))
    return value_at(name, parameter, share + by * float(random.normal()))
