"""The grid of a space: every configuration once, and which of them are left. Pure."""

import itertools
from collections.abc import Collection

from tuning.legal import count_of, value_after
from tuning.space import Choices, Parameter, Settings, Value
from tuning.spec import SearchSpec

ALL_TRIED = "every configuration of the space was tried"

Configuration = tuple[tuple[str, Value], ...]


def configuration(settings: Settings) -> Configuration:
    """Settings as a value that can be looked up."""
    return tuple(sorted(settings.items()))


def untried(spec: SearchSpec, known: Collection[Configuration]) -> Settings | None:
    """The first configuration of the grid that is not among the known; none where all are."""
    return next((s for s in grid(spec) if configuration(s) not in known), None)


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


def _grid_values(name: str, parameter: Parameter) -> tuple[Value, ...]:
    if isinstance(parameter, Choices):
        return parameter.choices
    count = count_of(name, parameter) or 0  # the search file is checked: it is not continuous
    return tuple(value_after(name, parameter, index) for index in range(count))
