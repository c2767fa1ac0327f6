"""A search gets more: a larger budget, other bounds. Pure, but for the file that is read.

What was trained stays what it is, so nothing may change that a trial's figures depend on: the data,
the fixed settings, the seed, the objectives, which settings are searched.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from tuning.space import in_words
from tuning.spec import Budget, SearchSpec, spec_of
from tuning.yaml_file import YamlFile
from usererror import UserError

KEPT = ("data", "fixed", "objectives")
"""Sections of which the trials that are there were made."""


def with_budget(spec: SearchSpec, wishes: Mapping[str, float | None]) -> SearchSpec:
    """The search with a larger budget; each wish is the new whole, not what is added.

    Raises:
        UserError: less than before.
    """
    wanted = {name: value for name, value in wishes.items() if value is not None}
    for name, value in wanted.items():
        if rule := _less(name, getattr(spec.budget, name), value):
            raise UserError(
                f"budget.{name}",
                "would be less than before",
                got=value,
                rule=rule,
                remedy="start a new search: what it shares with this one is not trained again",
            )
    try:
        budget = Budget.model_validate({**spec.budget.model_dump(), **wanted})
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(str(part) for part in fault["loc"])
        raise UserError(f"budget.{name}", fault["msg"], got=fault["input"]) from error
    return spec.model_copy(update={"budget": budget})


def _less(name: str, before: float | None, wanted: float) -> str | None:
    """The rule that is broken by a limit that leaves less to do than before, if it does."""
    if before is None:
        return "no limit before"
    if name == "target_mae_deg":  # the lower, the more is trained until it is reached
        return f"at most {before:g}" if wanted > before else None
    return f"at least {before:g}, in all" if wanted < before else None


def with_space(spec: SearchSpec, path: Path) -> SearchSpec:
    """The search with the parameters of a file: a search file, of which only these are taken, or
    one with nothing but ``parameters``, which may leave out those that stay.

    ``try_first`` settings outside the new bounds are dropped; see :func:`with_begun`.

    Raises:
        UserError: the file is no such file, or would make what was trained untrue.
    """
    file = YamlFile(path)
    old = spec.model_dump(mode="json")
    if set(file.values) == {"parameters"}:
        changed = file.values["parameters"] or {}
        if not isinstance(changed, dict):
            rule = "a name, then what it may be, as in a search file"
            raise UserError(file.where(("parameters",)), "not parameters", got=changed, rule=rule)
        parameters = {**old["parameters"], **changed}
    else:
        found = spec_of(file.values, file)
        for section in KEPT:
            _same(file, (section,), getattr(spec, section), getattr(found, section))
        _same(file, ("sampler", "seed"), spec.sampler.seed, found.sampler.seed)
        written = found.model_dump(mode="json")["parameters"]
        parameters = {name: written[name] for name in _in_order(spec, found)}
    # Beside the rest of this very search, its sampler for one, whatever else the file says.
    found = spec_of({**old, "parameters": parameters, "try_first": [], "published": []}, file)
    names = tuple(sorted(spec.parameters))
    _same(file, ("parameters",), names, tuple(sorted(found.parameters)))
    extended = spec.model_copy(update={"parameters": found.parameters})
    inside = tuple(s for s in spec.try_first if extended.may_try(s))
    return extended.model_copy(update={"try_first": inside})


def _in_order(spec: SearchSpec, found: SearchSpec) -> list[str]:
    """The parameters that were found, in the order of the search, for a seed draws them one after
    the other; but what a condition names stands above it."""
    order: dict[str, None] = {}

    def place(name: str) -> None:
        for other in found.parameters[name].when:
            place(other)
        order[name] = None

    for name in (*spec.parameters, *found.parameters):
        if name in found.parameters:
            place(name)
    return list(order)


def with_begun(spec: SearchSpec, before: SearchSpec, begun: int) -> SearchSpec:
    """The extended search with the ``try_first`` settings that trials have begun with, even those
    outside its bounds: the number of trials tells which settings are next.

    Args:
        spec: the extended search.
        before: the search that it extends.
        begun: how many trials have begun.
    """
    named = before.try_first
    left = tuple(settings for settings in named[begun:] if settings in spec.try_first)
    return spec.model_copy(update={"try_first": named[:begun] + left})


def _same(file: YamlFile, place: tuple[str, ...], before: object, wanted: object) -> None:
    if before != wanted:
        raise UserError(
            file.where(place),
            "differs from the search that is to be extended",
            got=wanted,
            rule=f"what was trained depends on it: {before}",
            remedy="keep it, or start a new search",
        )


def changes(before: SearchSpec, after: SearchSpec) -> str:
    """What an extension changed, in words."""
    found = []
    for name in Budget.model_fields:
        old, new = getattr(before.budget, name), getattr(after.budget, name)
        if old != new:
            found.append(f"{name} {old:g} → {new:g}")
    for name, old in before.parameters.items():
        new = after.parameters[name]
        if old != new:
            found.append(f"{name} {in_words(old)} → {in_words(new)}")
    return ", ".join(found) or "nothing"
