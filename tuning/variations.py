"""Small random steps away from settings that are known to be good. Pure, given the randomness."""

import numpy as np

from tuning.legal import field_kind
from tuning.space import Choices, Parameter, Range, Settings, Value

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
    found: Settings = {}
    for name, value in settings.items():
        parameter = parameters[name]
        if isinstance(parameter, Choices):
            keep = random.random() < CHOICE_KEPT
            found[name] = (
                value if keep else parameter.choices[random.integers(len(parameter.choices))]
            )
        else:
            found[name] = _moved(name, parameter, float(value or 0), by * float(random.normal()))
    return found


def _moved(name: str, parameter: Range, value: float, by: float) -> Value:
    low, high = parameter.low, parameter.high
    if parameter.log:
        low, high, value = np.log(low), np.log(high), np.log(value)
    moved = float(np.clip(value + by * (high - low), low, high))
    if parameter.log:
        moved = float(np.clip(np.exp(moved), parameter.low, parameter.high))
    is_int = field_kind(name) is int
    step = parameter.step or (1.0 if is_int else None)
    if step:
        moved = parameter.low + round((moved - parameter.low) / step) * step
        moved = min(moved, parameter.high)
    return int(moved) if is_int else moved
