"""Figures that papers print for some of a search's rows; a report sets them beside ours."""

from collections.abc import Mapping

from pydantic import Field

from tuning.space import Choices, Parameter, Settings, Strict, Value
from tuning.yaml_file import YamlFile
from usererror import UserError


class Published(Strict):
    """One row of a paper's table: mean absolute errors in degrees on the search's test set."""

    match: Settings = Field(min_length=1)
    """The row belongs to every trial with these values of searched or fixed settings."""
    yaw: float | None = Field(default=None, gt=0)
    pitch: float | None = Field(default=None, gt=0)
    roll: float | None = Field(default=None, gt=0)
    mae: float = Field(gt=0)
    source: str = Field(min_length=1)

    def fits(self, settings: Mapping[str, Value]) -> bool:
        """Whether a trial's settings, fixed ones included, are those of the row."""
        return all(
            name in settings and settings[name] == value for name, value in self.match.items()
        )


def check_published(
    published: tuple[Published, ...],
    parameters: Mapping[str, Parameter],
    fixed: Settings,
    file: YamlFile,
) -> None:
    """Every row can be met by some trial of the search.

    Raises:
        UserError: a row names a setting or a value that no trial of this file has.
    """
    for index, row in enumerate(published):
        for name, value in row.match.items():
            where = file.where(("published", index, "match", name))
            if name not in parameters and name not in fixed:
                rule = f"one of {', '.join([*parameters, *fixed])}"
                raise UserError(where, "not a setting of this file", got=name, rule=rule)
            if not _is_possible(value, parameters.get(name), fixed.get(name)):
                raise UserError(where, "no trial of this file has this value", got=value)


def _is_possible(value: Value, parameter: Parameter | None, fixed: Value) -> bool:
    if parameter is None:
        return value == fixed
    if isinstance(parameter, Choices):
        return value in parameter.choices
    is_number = isinstance(value, int | float)
    return is_number and parameter.low <= float(value or 0) <= parameter.high
