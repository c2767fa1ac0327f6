"""Which samplers, rules and objectives go together: checked before any GPU is asked for."""

from typing import TYPE_CHECKING

from tuning.space import Range
from tuning.yaml_file import YamlFile
from usererror import UserError

if TYPE_CHECKING:
    from tuning.spec import SearchSpec

OF_SEVERAL = ("nsga2", "tpe", "qmc", "random", "grid")
"""Samplers of searches with several objectives. Optuna's CMA-ES knows one only, `gp-curves` the
curves of one; multivariate TPE and GP were not tried here with several."""
FROM_HISTORY = ("gp-curves", "tpe", "tpe-multivariate", "gp")
"""Samplers that learn from any trial, whoever proposed it."""
WITH_POPULATION = ("cmaes", "nsga2")


def check_together(spec: "SearchSpec", file: YamlFile) -> None:
    """Refuses what would run and not mean what it says.

    Raises:
        UserError: names the file, the line and the field.
    """
    _check_objectives(spec, file)
    _check_warm_start(spec, file)
    sampler = spec.sampler
    if sampler.population is not None and sampler.name not in WITH_POPULATION:
        rule = f"only these have one: {', '.join(WITH_POPULATION)}"
        where = file.where(("sampler", "population"))
        raise UserError(where, f"the sampler {sampler.name!r} has no population", rule=rule)
    ranges = [p for p in spec.parameters.values() if isinstance(p, Range) and not p.when]
    if sampler.name == "cmaes" and len(ranges) < 2:
        raise UserError(
            file.where(("sampler", "name")),
            "CMA-ES has too little to work on",
            got=f"{len(ranges)} ranges without `when`",
            rule="it moves at least two ranges; choices and conditional parameters are left to TPE",
            remedy="use `gp-curves` or `tpe`",
        )


def _check_warm_start(spec: "SearchSpec", file: YamlFile) -> None:
    if not spec.warm_start:
        return
    where, name = file.where(("warm_start",)), spec.sampler.name
    if len(set(spec.warm_start)) != len(spec.warm_start):
        rule = "each search once"
        raise UserError(where, "not so", got=list(spec.warm_start), rule=rule)
    if len(spec.objectives) > 1:
        rule = "earlier curves hold the validation error alone"
        raise UserError(where, "a warm start with several objectives", rule=rule)
    if name not in FROM_HISTORY:
        rule = f"those that do: {', '.join(FROM_HISTORY)}"
        raise UserError(where, f"the sampler {name!r} learns nothing from others", rule=rule)


def _check_objectives(spec: "SearchSpec", file: YamlFile) -> None:
    objectives = spec.objectives
    if objectives[0] != "val_mae" or len(set(objectives)) != len(objectives):
        rule = "`val_mae` first, then others, each once"
        raise UserError(file.where(("objectives",)), "not so", got=list(objectives), rule=rule)
    name = spec.sampler.name
    if len(objectives) == 1:
        if name == "nsga2":
            rule = "`nsga2` is for several; trials that are stopped early teach it nothing"
            remedy = "add `objectives: [val_mae, latency_ms]`, or use `gp-curves`"
            where = file.where(("sampler", "name"))
            raise UserError(where, "there is one objective", rule=rule, remedy=remedy)
        return
    if name not in OF_SEVERAL:
        where, rule = file.where(("sampler", "name")), f"one of {', '.join(OF_SEVERAL)}"
        raise UserError(where, "not for several objectives", got=name, rule=rule)
    if spec.stopping.rule != "none":
        raise UserError(
            file.where(("stopping", "rule")),
            "early stopping with several objectives",
            got=spec.stopping.rule,
            rule="rules compare errors alone, and would drop the fast networks that err more",
            remedy="write `stopping: {rule: none}`",
        )
