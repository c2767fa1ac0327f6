"""What values a training setting may have, and which of them a parameter allows. Pure."""

import functools
import types
import typing
from typing import Literal

from headpose.config import TrainConfig
from tuning.space import Parameter, Range, Value

ROUNDING = 1e-8
"""How far a value may lie from a step, in steps: Optuna's `FloatDistribution` takes no more."""


@functools.cache
def field_kind(name: str) -> type:
    """The type of a training setting: ``int``, ``float`` or ``str`` (``None`` left aside)."""
    hint = typing.get_type_hints(TrainConfig)[name]
    if typing.get_origin(hint) is Literal:
        return str
    if isinstance(hint, types.UnionType):
        hint = next(kind for kind in hint.__args__ if kind is not types.NoneType)
    return typing.cast(type, hint)


def step_of(name: str, parameter: Range) -> float | None:
    """What lies between two values of a range; none where it is continuous."""
    return parameter.step or (1.0 if field_kind(name) is int else None)


def count_of(name: str, parameter: Range) -> int | None:
    """How many values a range has; none where it is continuous."""
    if parameter.low == parameter.highest:
        return 1
    step = step_of(name, parameter)
    return None if step is None else round((parameter.highest - parameter.low) / step) + 1


def value_after(name: str, parameter: Range, steps: int) -> Value:
    """The value so many steps above the lower edge of a range that has steps; at most its last."""
    steps = min(steps, (count_of(name, parameter) or 1) - 1)
    value = parameter.low + steps * (step_of(name, parameter) or 0.0)
    value = min(value, parameter.highest)  # 3 * 0.1 is a little more than 0.3
    return round(value) if field_kind(name) is int else value


def is_legal(name: str, parameter: Parameter, value: Value) -> bool:
    """Whether a parameter may have a value."""
    if not isinstance(parameter, Range):
        return value in parameter.choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if not parameter.low <= value <= parameter.highest:
        return False
    if field_kind(name) is int and not float(value).is_integer():
        return False
    step = step_of(name, parameter)
    steps = 0.0 if step is None else (value - parameter.low) / step
    return abs(steps - round(steps)) < ROUNDING
