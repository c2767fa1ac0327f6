"""Conditions of parameters: under which values of others one is there. Pure.

All conditions of a parameter hold together, and each names values of one other parameter. So what a
parameter needs is a set of values for each of the others, and no search for an assignment is due.
"""

from collections.abc import Collection, Iterable

from tuning.legal import is_legal
from tuning.space import Parameter, Settings, Value, in_words
from tuning.yaml_file import Location, YamlFile
from usererror import UserError

Needs = dict[str, tuple[Value, ...]]
"""Values of other parameters, one of which each must have."""


def needs(parameters: dict[str, Parameter], name: str) -> Needs:
    """What makes a parameter active, the conditions of those that it depends on included."""
    found: Needs = {}
    for other, legal in parameters[name].when.items():
        found = _both(_both(found, needs(parameters, other)), {other: legal})
    return found


def never_there(parameters: dict[str, Parameter], settings: Settings) -> str | None:
    """The first of these settings that no configuration with the others has; none where one may
    have them all, for what is not named is drawn."""
    wanted: Needs = {}
    for name in settings:
        wanted = _both(wanted, needs(parameters, name))
        for other, values in wanted.items():
            legal = (v for v in values if is_legal(other, parameters[other], v))
            if not any(settings.get(other, value) == value for value in legal):
                return name
    return None


def beside(parameters: dict[str, Parameter], settings: Settings) -> Settings:
    """These settings, and values of others beside which they are there."""
    wanted: Needs = {}
    for name in settings:
        wanted = _both(wanted, needs(parameters, name))
    legal = {
        other: [value for value in values if is_legal(other, parameters[other], value)]
        for other, values in wanted.items()
    }
    return {other: values[0] for other, values in legal.items() if values} | settings


def check_conditions(
    parameters: dict[str, Parameter], written: Collection[str], file: YamlFile
) -> None:
    """Every condition can hold.

    Args:
        parameters: the space.
        written: those that the file itself gives. Of a search that gets narrower bounds others may
            stay as they are, and are there no more.
        file: where they stand.

    Raises:
        UserError: names the file, the line and the field.
    """
    names = list(parameters)
    for name, parameter in parameters.items():
        for other, values in parameter.when.items():
            location = ("parameters", name, "when", other)
            if other not in (above := names[: names.index(name)]):
                rule = f"a condition names a parameter that stands above it: {_listed(above)}"
                raise UserError(file.where(location), "not such a parameter", rule=rule)
            if not values:
                rule = f"values of {other!r} beside which the parameter is there"
                raise UserError(file.where(location), "empty", rule=rule)
            for index, value in enumerate(values if name in written else ()):
                if not is_legal(other, parameters[other], value):
                    where = file.where((*location, index))
                    rule = f"one of the values of {other!r}: {in_words(parameters[other])}"
                    raise UserError(where, "never so", got=value, rule=rule)
        if name in written:
            _check_together(parameters, name, file)


def check_beside(
    parameters: dict[str, Parameter], settings: Settings, section: Location, file: YamlFile
) -> None:
    """Settings that a file names can be had together: what is not there would be passed over.

    Raises:
        UserError: names the file, the line and the field.
    """
    if name := never_there(parameters, settings):
        wanted = (f"{other} {list(values)}" for other, values in needs(parameters, name).items())
        raise UserError(
            file.where((*section, name)),
            "not there beside the other settings",
            got=settings[name],
            rule=f"its `when` asks for {', '.join(wanted)}",
        )


def _check_together(parameters: dict[str, Parameter], name: str, file: YamlFile) -> None:
    for other, values in needs(parameters, name).items():
        if not values:
            where = file.where(("parameters", name, "when"))
            rule = f"its conditions, and those of what it depends on, leave a value of {other!r}"
            raise UserError(where, "never there", rule=rule)


def _both(one: Needs, other: Needs) -> Needs:
    shared = {
        name: tuple(value for value in values if name not in one or value in one[name])
        for name, values in other.items()
    }
    return {**one, **shared}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "-"
