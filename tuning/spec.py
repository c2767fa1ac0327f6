"""The search file: strict and frozen. What is unknown or impossible ends here, naming its line.

``SearchSpec`` is what the study keeps of a search; a driver needs nothing else to go on with it.
"""

import dataclasses
import difflib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from headpose.config import TrainConfig
from headpose.networks.names import DOWNLOAD, check_backbone
from tuning.conditions import beside, check_beside, check_conditions, never_there
from tuning.legal import field_kind, is_legal
from tuning.papers import fitting
from tuning.published import Published, check_published
from tuning.space import FORMS, Choices, Parameter, Range, Settings, Strict, Value, in_words
from tuning.together import check_together
from tuning.yaml_file import Location, YamlFile
from usererror import UserError

Objective = Literal["val_mae", "latency_ms"]
"""What a search may minimise: the validation error (degrees), and the time that the network takes
for one picture (milliseconds) on the worker's device."""

PAPERS = "papers"
RESERVED = frozenset({"seed"})
"""Training settings that a search fixes for all its trials: a shared seed lets trials whose plans
begin alike share their trunk; `fixed.seed` sets it."""


class Data(Strict):
    """Prepared data sets (``hopetune data prepare``): folders, or ``s3://`` places."""

    train: str
    test: str | None = None
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training photos; 90:10 as published (FACTS of Hopenet's training)."""
    split_seed: int = 0


class Sampler(Strict):
    """Who proposes; see ``tuning/samplers.py``."""

    name: Literal[
        "gp-curves",
        "tpe",
        "tpe-multivariate",
        "gp",
        "cmaes",
        "qmc",
        "nsga2",
        "random",
        "grid",
    ] = "gp-curves"
    startup_trials: int = Field(default=8, ge=0)
    """Random proposals before a model is trusted."""
    random_share: float = Field(default=0.0, ge=0, le=1)
    """Share of later proposals that stays random, so that no corner is given up for ever. With
    `gp-curves` 0.1 cost more than it found (benchmarks/results)."""
    local_share: float = Field(default=0.3, ge=0, le=1)
    """`tpe`, `tpe-multivariate`, of one objective: share of later proposals that are small random
    variations of one of the three leading trials."""
    variations: int = Field(default=0, ge=0)
    """Proposals that follow the `try_first` ones: small random variations around them."""
    population: int | None = Field(default=None, ge=4)
    """Trials of a generation of `cmaes` (default: 4 + 3 ln of the number of ranges) or `nsga2`."""
    seed: int = Field(default=0, ge=0)


class Stopping(Strict):
    """Early stopping by validation MAE; see ``tuning/rules`` for the rules."""

    rule: Literal["promotion", "stopping", "hyperband", "median", "none"] = "promotion"
    first_rung: int | None = Field(default=None, ge=1)
    """First epoch at which trials are compared; the next ones are multiples by `factor`. Default:
    rungs at 2/9 and 5/9 of a whole trial (`median`: from epoch 1)."""
    factor: int = Field(default=3, ge=2)
    rungs: Annotated[tuple[int, ...], Field(strict=False)] | None = None
    """Epochs at which trials are compared, instead of `first_rung` times powers of `factor`."""
    compare: Literal["forecast", "best"] = "forecast"
    """`promotion`, `stopping`, `hyperband`: by where a curve is heading, or by its best so far."""
    protect_until: int = Field(default=0, ge=0)
    """`try_first` trials are neither paused nor stopped before this epoch."""

    @model_validator(mode="after")
    def _possible(self) -> "Stopping":
        if self.rungs is not None and (
            list(self.rungs) != sorted(set(self.rungs)) or min(self.rungs, default=1) < 1
        ):
            raise ValueError(f"rungs are epochs from 1 in rising order, but got {self.rungs}")
        return self


class Budget(Strict):
    """Ends of a search; the first that is reached ends it."""

    trials: int = Field(ge=1)
    epochs: int = Field(ge=1)
    """Epochs of a whole trial."""
    total_epochs: int | None = Field(default=None, ge=1)
    """Epochs of all trials together, those taken from the store not counted."""
    wall_clock_minutes: float | None = Field(default=None, gt=0)
    gpu_hours: float | None = Field(default=None, gt=0)
    target_mae_deg: float | None = Field(default=None, gt=0)
    """The trial that reaches it trains on to its last epoch, all others end at once."""
    patience: int | None = Field(default=None, ge=1)
    """Trials that may begin without a new best error."""


class Resources(Strict):
    """What one trial gets, and how many may run at a time (none: as many as fit)."""

    gpus_per_trial: float = Field(default=1.0, ge=0)
    cpus_per_trial: float = Field(default=1.0, gt=0)
    parallel_trials: int | None = Field(default=None, ge=1)
    retries: int = Field(default=2, ge=0)
    """Further attempts at a trial whose worker crashed; one that was sent away costs none."""
    stall_retries: int = Field(default=2, ge=0)  # untuned
    """Further attempts at a trial of which an epoch hung."""
    stall_factor: float = Field(default=10.0, gt=1)  # untuned
    """An epoch hangs when it takes so many times what is expected …"""
    stall_minutes: float = Field(default=10.0, gt=0)  # untuned
    """… but not before these have passed without a report."""
    start_minutes: float = Field(default=30.0, gt=0)  # untuned
    """The same for a worker's first report: it may have to fetch the data set."""
    images_on_gpu: Literal["auto", "always", "never"] = "auto"
    """Whether the training set is kept in the GPU's memory; auto: where it fits twice."""

    @property
    def units_per_trial(self) -> float:
        """GPUs that a trial holds, CPUs where it asks for none: what its hours are counted in."""
        return self.gpus_per_trial or self.cpus_per_trial

    @property
    def unit(self) -> Literal["GPU", "CPU"]:
        """Whose hours a trial costs."""
        return "GPU" if self.gpus_per_trial else "CPU"


class Checkpoints(Strict):
    """Which states outlive a search; the metrics of all epochs always do. See
    ``tuning/retention.py``."""

    keep_top: int = Field(default=3, ge=0)  # untuned; what `confirm` and `promote` choose from
    """Trials whose best weights and latest state stay; the best weights of completed ones always
    do."""
    keep_unfinished_days: float = Field(default=7.0, ge=0)  # untuned
    """How long a search that was cut off can go on without training anything again."""


class SearchSpec(Strict):
    """A search: which settings are tried, on which data, for how long."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    data: Data
    parameters: dict[str, Parameter] = Field(min_length=1)
    fixed: Settings = Field(default_factory=dict)
    objectives: Annotated[tuple[Objective, ...], Field(strict=False, min_length=1)] = ("val_mae",)
    """What is minimised, the validation error first."""
    try_first: tuple[Settings, ...] = Field(default=(), strict=False)
    """Known-good settings; in a file also ``papers``, for the published ones that lie in the space
    (``tuning/papers.py``)."""
    warm_start: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Names of earlier searches in the same storage, whose curves the sampler learns from."""
    sampler: Sampler = Sampler()
    stopping: Stopping = Stopping()
    budget: Budget
    resources: Resources = Resources()
    checkpoints: Checkpoints = Checkpoints()
    model_name: str = "headpose"
    published: tuple[Published, ...] = Field(default=(), strict=False)
    """Rows of papers' tables for some of these configurations, for `hopetune report`."""

    @model_validator(mode="before")
    @classmethod
    def _sampler_of_several(cls, values: Any) -> Any:
        """Of several objectives the default sampler knows nothing: then it is TPE."""
        objectives = values.get("objectives") if isinstance(values, dict) else None
        if not isinstance(objectives, list | tuple) or len(objectives) < 2:
            return values
        sampler = values.get("sampler", {})
        if not isinstance(sampler, dict) or "name" in sampler:
            return values
        return {**values, "sampler": {"name": "tpe", **sampler}}

    def train_config(self, parameters: Settings) -> TrainConfig:
        """The configuration of one trial.

        Raises:
            UserError: the settings contradict each other.
        """
        return TrainConfig(**{**self.fixed, **parameters})  # type: ignore[arg-type]

    def values_of(self, setting: str) -> tuple[Value, ...]:
        """The values that some trial may have of a setting that is fixed, chosen or left to its
        default; none where it is a range, or depends on others."""
        parameter = self.parameters.get(setting)
        if parameter is None:
            return (self.fixed.get(setting, getattr(TrainConfig, setting)),)
        if isinstance(parameter, Choices) and not parameter.when:
            return parameter.choices
        return ()

    def holds(self, parameters: Settings) -> bool:
        """Whether a configuration lies in this search's space."""
        active = {name for name, p in self.parameters.items() if p.is_active(parameters)}
        return active == set(parameters) and all(self.allows(*item) for item in parameters.items())

    def allows(self, name: str, value: Value) -> bool:
        """Whether a searched setting may have a value."""
        return is_legal(name, self.parameters[name], value)

    def may_try(self, settings: Settings) -> bool:
        """Whether some configuration of this search's space has all of these settings."""
        legal = all(self.allows(name, value) for name, value in settings.items())
        return legal and never_there(self.parameters, settings) is None


def load_spec(path: Path) -> SearchSpec:
    """Reads a search file.

    Raises:
        UserError: names the file, the line and the field.
    """
    file = YamlFile(path)
    return spec_of(file.values, file)


def spec_of(values: dict[str, Any], file: YamlFile) -> SearchSpec:
    """A search from the values of a file, some of which may come from elsewhere.

    Raises:
        UserError: names the file, the line and the field.
    """
    wants_papers = values.get("try_first") == PAPERS
    values = values | ({"try_first": []} if wants_papers else {})
    try:
        spec = SearchSpec.model_validate(values)
    except ValidationError as error:
        raise _first_fault(error, file) from error
    _check_model_name(spec, file)
    _check_places(spec, file)
    _check_settings(spec, file)
    check_together(spec, file)
    return _with_papers(spec, file) if wants_papers else spec


def _with_papers(spec: SearchSpec, file: YamlFile) -> SearchSpec:
    """``try_first: papers`` as the settings that it stands for: those that lie in the space."""
    found = fitting(spec.parameters, spec.fixed)
    if not found:
        rule = "a paper's backbone, bin width, alpha and learning rate lie within the parameters"
        remedy = "widen them (see tuning/papers.py), or write the settings down"
        where = file.where(("try_first",))
        raise UserError(where, "no published settings lie in this space", rule=rule, remedy=remedy)
    for settings in found:
        _try_config(spec, settings, file, ("try_first",))
    return spec.model_copy(update={"try_first": found})


def _check_model_name(spec: SearchSpec, file: YamlFile) -> None:
    """Before anything is trained for a model that MLflow would not register."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", spec.model_name):
        rule = "letters, digits, dots, dashes and underscores, at most 100"
        raise UserError(file.where(("model_name",)), "not legal", got=spec.model_name, rule=rule)


def _check_places(spec: SearchSpec, file: YamlFile) -> None:
    """A search file is sent to nodes whose processes have working folders of their own."""
    named: list[tuple[Location, Value | None]] = [
        (("data", "train"), spec.data.train),
        (("data", "test"), spec.data.test),
    ]
    weights = [(("fixed", "imagenet"), spec.fixed.get("imagenet"))]
    searched = spec.parameters.get("imagenet")
    if isinstance(searched, Choices):
        weights += [(("parameters", "imagenet"), place) for place in searched.choices]
    named += [(location, place) for location, place in weights if place != DOWNLOAD]
    for location, place in named:
        if place is not None and not str(place).startswith(("s3://", "/", "~")):
            raise UserError(
                file.where(location),
                "not a place that every node finds",
                got=place,
                rule="s3://BUCKET/KEY, or a path that the nodes have, from / or ~ on",
            )


def _check_settings(spec: SearchSpec, file: YamlFile) -> None:
    """Names and values against the training settings themselves, before any GPU is asked for."""
    legal = [field.name for field in dataclasses.fields(TrainConfig)]
    for section, names in (("parameters", spec.parameters), ("fixed", spec.fixed)):
        for name in names:
            if name not in legal:
                raise UserError(file.where((section, name)), *_unknown(name, legal))
    check_conditions(spec.parameters, file.values.get("parameters") or (), file)
    if spec.sampler.name == "grid":
        _check_grid(spec, file)
    edges = {name: _edges(spec, name, p, file) for name, p in spec.parameters.items()}
    for settings in _alone_and_in_pairs(edges):
        if len(settings) == 1 or never_there(spec.parameters, settings) is None:
            _try_config(spec, beside(spec.parameters, settings), file, ("parameters",))
    for index, settings in enumerate(spec.try_first):
        for name in settings:
            if name not in spec.parameters:
                where = file.where(("try_first", index, name))
                raise UserError(where, *_unknown(name, list(spec.parameters)))
        _try_config(spec, settings, file, ("try_first", index))
        for name, value in settings.items():
            if not spec.allows(name, value):
                where = file.where(("try_first", index, name))
                rule = f"one of the values of its parameter: {in_words(spec.parameters[name])}"
                raise UserError(where, "outside its parameter", got=value, rule=rule)
        check_beside(spec.parameters, settings, ("try_first", index), file)
    check_published(spec.published, spec.parameters, spec.fixed, file)


def _alone_and_in_pairs(values: dict[str, tuple[Value, ...]]) -> Iterator[Settings]:
    """Each value of each parameter, then all pairs of values of two: a setting contradicts no more
    than one other."""
    for count in (1, 2):
        for names in itertools.combinations(values, count):
            for chosen in itertools.product(*(values[name] for name in names)):
                yield dict(zip(names, chosen, strict=True))


def _check_grid(spec: SearchSpec, file: YamlFile) -> None:
    for name, parameter in spec.parameters.items():
        if not isinstance(parameter, Range) or parameter.step is not None:
            continue
        if field_kind(name) is not int or parameter.log:
            where = file.where(("parameters", name))
            raise UserError(where, "has no grid", rule="a grid needs `choices` or a `step`")


def _edges(spec: SearchSpec, name: str, parameter: Parameter, file: YamlFile) -> tuple[Value, ...]:
    """The values of a parameter at which a mistake shows."""
    where = file.where(("parameters", name))
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
    if parameter.step is not None and not parameter.step.is_integer():
        where, rule = file.where(("parameters", name, "step")), "this setting is a whole number"
        raise UserError(where, "not whole", got=parameter.step, rule=rule)
    return tuple(int(edge) for edge in edges)


def _try_config(
    spec: SearchSpec, settings: Settings, file: YamlFile, section: tuple[str | int, ...]
) -> None:
    """Tries a configuration, with the first value of every parameter that ``settings`` leaves."""
    chosen: Settings = {}
    for name, parameter in spec.parameters.items():
        if name in settings or parameter.is_active(chosen):
            chosen[name] = settings.get(name, first_value(name, parameter))
    try:
        check_backbone(spec.train_config(chosen).backbone)
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
    location, kind, got = faults[0]["loc"], faults[0]["type"], faults[0]["input"]
    if kind == "bool_type" and location[-1] == "bool":
        location, kind = location[:-1], "value"  # what no kind of a `Value` takes
    where = file.where(_in_file(location))
    if kind == "extra_forbidden":
        missing = {fault["loc"] for fault in faults if fault["type"] == "missing"}
        return UserError(where, *_unknown(str(location[-1]), _legal_fields(location, missing)))
    if kind == "missing":
        return UserError(where, "missing", remedy=f"add `{location[-1]}:`")
    if kind in _SHAPES:
        what, rule = _SHAPES[kind]
        return UserError(where, what, got=got, rule=rule, remedy=_remedy(location, kind, got))
    return UserError(where, faults[0]["msg"].removeprefix("Value error, "), got=got)


_SHAPES = {
    "model_type": ("not a mapping", None),
    "dict_type": ("not a mapping", "names and their values, `{..}`"),
    "tuple_type": ("not a list", "a list `[..]`"),
    "too_short": ("empty", "at least one"),
    "value": ("not a single value", "a number or a word"),
}
"""What is wrong and the rule, by pydantic's name for it: its own words are about Python."""


def _remedy(location: Location, kind: str, got: object) -> str | None:
    """How to write what has the wrong shape, where that is not plain from the rule."""
    if kind == "value" and location[0] == "fixed":
        return "what is searched belongs under `parameters`"
    if kind == "tuple_type" and location == ("try_first",):
        return f"or write `try_first: {PAPERS}`"
    if kind != "model_type":
        return None
    if location[0] == "parameters":
        return "write {low: …, high: …} or {choices: [..]}"
    fields = _model_at(location).model_fields
    needed = [name for name, field in fields.items() if field.is_required()] or [*fields][:1]
    is_word = isinstance(got, str) and location[0] in ("data", "sampler", "stopping")
    written = ", ".join(f"{name}: {got if is_word else '…'}" for name in needed)
    name = f"{location[0]}: " if len(location) == 1 else ""  # else it is an entry of a list
    return f"write `{name}{{{written}}}`"


def _in_file(location: Location) -> Location:
    """pydantic's location without the name of the parameter's form."""
    is_parameter = len(location) > 2 and location[0] == "parameters"
    return location[:2] + location[3:] if is_parameter else location


def _legal_fields(location: Location, missing: set[Location]) -> list[str]:
    """The fields that are legal beside an unknown one."""
    if len(location) == 1:
        return list(SearchSpec.model_fields)
    # What has neither edge of a range may as well have been meant as choices.
    if {(*location[:-1], edge) for edge in ("low", "high")} <= missing:
        return list(Range.model_fields | Choices.model_fields)
    return list(_model_at(location).model_fields)


def _model_at(location: Location) -> Any:
    """The part of a search that stands, or whose field stands, at a place in a file."""
    if location[0] == "parameters":
        return FORMS[location[2]]
    if location[0] == "published":
        return Published
    return SearchSpec.model_fields[str(location[0])].annotation
