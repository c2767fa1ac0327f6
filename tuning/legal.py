"""What values a training setting may have, and which of them a parameter allows. Pure."""

import functools
import math
import types
import typing
from typing import Literal

from headpose.config import TrainConfig
from tuning.space import Parameter, Range, Value


@functools.cache
def field_kind(name: str) -> type:
    """The type of a training setting: ``int``, ``float`` or ``str`` (``None`` left aside)."""
    hint = typing.get_type_hints(TrainConfig)[name]
    if typing.get_origin(hint) is Literal:
        return str
    if isinstance(hint, types.UnionType):
        hint = next(kind for kind in hint.__args__ if kind is not types.NoneType)
    return typing.cast(type, hint)


def is_legal(name: str, parameter: Parameter, value: Value) -> bool:
    """Whether a parameter may have a value."""
    if not isinstance(parameter, Range):
        return value in parameter.choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if not parameter.low <= value <= parameter.high:
        return False
    step = parameter.step or (1.0 if field_kind(name) is int else None)
    steps = 0.0 if step is None else (value - parameter.low) / step
    return math.isclose(steps, round(steps), abs_tol=1e-6)
