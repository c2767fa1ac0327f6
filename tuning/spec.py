"""The search file: strict and frozen. What is unknown or impossible ends here, naming its line.

``SearchSpec`` is what the study keeps of a search; a driver needs nothing else to go on with it.
"""

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from headpose.config import TrainConfig
from headpose.networks.backbones import check_backbone
from tuning.yaml_file import Location, YamlFile
from usererror import UserError

Value = bool | int | float | str | None
Settings = dict[str, Value]

RESERVED = frozenset({"seed"})
"""Training settings that a search fixes for all its trials: a shared seed lets trials whose plans
begin alike share their trunk; `fixed.seed` sets it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Range(_Strict):
    """Numbers from ``low`` to ``high``, both included."""

    low: float
    high: float
    log: bool = False
    step: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _possible(self) -> "Range":
        if not self.low <= self.high:
            raise ValueError(f"`low <= high` must hold, but got low={self.low}, high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs `low > 0`, but got low={self.low}")
        if self.log and self.step is not None:
            raise ValueError("a range has `log` or `step`, not both")
        return self


class Choices(_Strict):
    """One of several values."""

    choices: tuple[Value, ...] = Field(min_length=1, strict=False)


def _form(value: Any) -> str:
    has_choices = "choices" in value if isinstance(value, dict) else isinstance(value, Choices)
    return "choices" if has_choices else "range"


Parameter = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_form)
]
_FORMS: dict[str | int, type[BaseModel]] = {"range": Range, "choices": Choices}


class Data(_Strict):
    """Prepared data sets (``hopetune data prepare``): folders, or ``s3://`` places."""

    train: str
    test: str | None = None
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training photos; 90:10 as published (FACTS of Hopenet's training)."""
    split_seed: int = 0


class Sampler(_Strict):
    """Who proposes. TPE univariate, after ``startup_trials`` random proposals, without constant
    liar: simulated on curves shaped after the papers' tables, it beat Optuna's own default."""

    name: Literal["tpe", "random"] = "tpe"
    startup_trials: int = Field(default=60, ge=0)
    seed: int = Field(default=0, ge=0)


class Stopping(_Strict):
    """Early stopping by validation MAE; see ``tuning/stopping.py`` for the rules."""

    rule: Literal["stopping", "median", "none"] = "stopping"
    first_rung: int = Field(default=1, ge=1)
    factor: int = Field(default=3, ge=2)


class Budget(_Strict):
    """Ends of a search; the first that is reached ends it."""

    trials: int = Field(ge=1)
    epochs: int = Field(ge=1)
    wall_clock_minutes: float | None = Field(default=None, gt=0)
    gpu_hours: float | None = Field(default=None, gt=0)
    target_mae_deg: float | None = Field(default=None, gt=0)


class Resources(_Strict):
    """What one trial gets, and how many may run at a time (none: as many as fit)."""

    gpus_per_trial: float = Field(default=1.0, ge=0)
    cpus_per_trial: float = Field(default=1.0, gt=0)
    parallel_trials: int | None = Field(default=None, ge=1)
    retries: int = Field(default=2, ge=0)
    images_on_gpu: Literal["auto", "always", "never"] = "auto"
    """Whether the training set is kept in the GPU's memory; auto: where it fits twice."""


class SearchSpec(_Strict):
    """A search: which settings are tried, on which data, for how long."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    data: Data
    parameters: dict[str, Parameter] = Field(min_length=1)
    fixed: Settings = Field(default_factory=dict)
    try_first: tuple[Settings, ...] = Field(default=(), strict=False)
    sampler: Sampler = Sampler()
    stopping: Stopping = Stopping()
    budget: Budget
    resources: Resources = Resources()
    model_name: str = "headpose"

    def train_config(self, parameters: Settings) -> TrainConfig:
        """The configuration of one trial.

        Raises:
            UserError: the settings contradict each other.
        """
        return TrainConfig(**{**self.fixed, **parameters})  # type: ignore[arg-type]


def load_spec(path: Path) -> SearchSpec:
    """Reads a search file.

    Raises:
        UserError: names the file, the line and the field.
    """
    file = YamlFile(path)
    try:
        spec = SearchSpec.model_validate(file.values)
    except ValidationError as error:
        raise _first_fault(error, file) from error
    _check_settings(spec, file)
    return spec


def field_kind(name: str) -> type:
    """The type of a training setting: ``int``, ``float`` or ``str`` (``None`` left aside)."""
    hint = typing.get_type_hints(TrainConfig)[name]
    if typing.get_origin(hint) is Literal:
        return str
    if isinstance(hint, types.UnionType):
        hint = next(kind for kind in hint.__args__ if kind is not types.NoneType)
    return typing.cast(type, hint)


def _check_settings(spec: SearchSpec, file: YamlFile) -> None:
    """Names and values against the training settings themselves, before any GPU is asked for."""
    legal = [field.name for field in dataclasses.fields(TrainConfig)]
    for section, names in (("parameters", spec.parameters), ("fixed", spec.fixed)):
        for name in names:
            if name not in legal:
                raise UserError(file.where((section, name)), *_unknown(name, legal))
    edges = {
        name: _edges(spec, name, parameter, file.where(("parameters", name)))
        for name, parameter in spec.parameters.items()
    }
    for name, values in edges.items():
        for value in values:
            _try_config(spec, {name: value}, file, ("parameters",))
    for index, settings in enumerate(spec.try_first):
        for name in settings:
            if name not in spec.parameters:
                where = file.where(("try_first", index, name))
                raise UserError(where, *_unknown(name, list(spec.parameters)))
        _try_config(spec, settings, file, ("try_first", index))


def _edges(spec: SearchSpec, name: str, parameter: Parameter, where: str) -> tuple[Value, ...]:
    """The values of a parameter at which a mistake shows."""
    if name in RESERVED or name in spec.fixed:
        rule = "a setting is either in `fixed` or in `parameters`; `seed` only in `fixed`"
        raise UserError(where, "cannot be searched here", rule=rule)
    if isinstance(parameter, Choices):
        return parameter.choices
    edges = (parameter.low, parameter.high)
    if field_kind(name) is str:
        raise UserError(where, "a range of words", rule="use `choices: [..]`")
    if field_kind(name) is float:
        return edges
    if not all(edge.is_integer() for edge in edges):
        raise UserError(where, "not whole", got=edges, rule="this setting is a whole number")
    return tuple(int(edge) for edge in edges)


def _try_config(
    spec: SearchSpec, settings: Settings, file: YamlFile, section: tuple[str | int, ...]
) -> None:
    """Tries a configuration, with the first value of every parameter that ``settings`` leaves."""
    defaults = {name: first_value(name, p) for name, p in spec.parameters.items()}
    try:
        check_backbone(spec.train_config({**defaults, **settings}).backbone)
    except UserError as error:
        field = error.where.removeprefix("TrainConfig.")
        owner = "fixed" if field in spec.fixed else "parameters"
        where = file.where((*section, field) if field in settings else (owner, field))
        raise UserError(
            where, error.what, got=error.got, rule=error.rule, remedy=error.remedy
        ) from error


def first_value(name: str, parameter: Parameter) -> Value:
    """A legal value of a parameter: its lower edge, or its first choice."""
    if isinstance(parameter, Choices):
        return parameter.choices[0]
    return int(parameter.low) if field_kind(name) is int else parameter.low


def _unknown(name: str, legal: list[str]) -> tuple[str]:
    close = difflib.get_close_matches(name, legal, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return (f"unknown field{hint} Legal: {', '.join(sorted(legal))}",)


def _first_fault(error: ValidationError, file: YamlFile) -> UserError:
    """The most telling fault: a misspelt field says more than the missing one it leaves."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    where = file.where(_in_file(fault["loc"]))
    if fault["type"] == "extra_forbidden":
        return UserError(where, *_unknown(str(fault["loc"][-1]), _legal_fields(fault["loc"])))
    if fault["type"] == "missing":
        return UserError(where, "missing", remedy=f"add `{fault['loc'][-1]}:`")
    return UserError(where, fault["msg"].removeprefix("Value error, "), got=fault["input"])


def _in_file(location: Location) -> Location:
    """pydantic's location without the name of the parameter's form."""
    is_parameter = len(location) > 2 and location[0] == "parameters"
    return location[:2] + location[3:] if is_parameter else location


def _legal_fields(location: Location) -> list[str]:
    """The fields that are legal beside an unknown one."""
    model: Any = SearchSpec
    if location[0] == "parameters" and len(location) > 2:
        model = _FORMS[location[2]]
    elif len(location) > 1:
        model = SearchSpec.model_fields[str(location[0])].annotation
    return list(model.model_fields)
