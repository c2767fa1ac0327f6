"""The grid of a space: every configuration once, and which of them are left. Pure."""

from collections.abc import Collection, Iterable, Iterator, Sequence

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


def has_grid(spec: SearchSpec) -> bool:
    """Whether no parameter of a space is continuous."""
    return all(
        isinstance(p, Choices) or count_of(name, p) is not None
        for name, p in spec.parameters.items()
    )


def grid(spec: SearchSpec) -> Iterator[Settings]:
    """All configurations of a space that has a grid, each once, the last parameter fastest."""
    yield from _rows(tuple(spec.parameters.items()), {})


def _rows(parameters: Sequence[tuple[str, Parameter]], chosen: Settings) -> Iterator[Settings]:
    if not parameters:
        yield chosen
        return
    (name, parameter), rest = parameters[0], parameters[1:]
    if not parameter.is_active(chosen):
        yield from _rows(rest, chosen)
        return
    for value in _grid_values(name, parameter):
        yield from _rows(rest, {**chosen, name: value})


def _grid_values(name: str, parameter: Parameter) -> Iterable[Value]:
    if isinstance(parameter, Choices):
        return dict.fromkeys(parameter.choices)  # 3 and 3.0 are one
    count = count_of(name, parameter) or 0  # it is not continuous
    return (value_after(name, parameter, index) for index in range(count))
