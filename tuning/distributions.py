"""A search's parameters as Optuna has them."""

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tuning.legal import field_kind
from tuning.space import Choices, Parameter


def distribution(name: str, parameter: Parameter) -> BaseDistribution:
    """A parameter as Optuna has it; a range ends with its last step, for Optuna warns of others."""
    if isinstance(parameter, Choices):
        return CategoricalDistribution(parameter.choices)
    if field_kind(name) is int:
        step = int(parameter.step or 1)
        return IntDistribution(int(parameter.low), int(parameter.highest), parameter.log, step)
    return FloatDistribution(parameter.low, parameter.highest, parameter.log, parameter.step)
