"""What a search will cost, before anyone pays; and what other rules would have made of one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuning.going_on import within
from tuning.grid import configuration
from tuning.records import SearchRecord, TrialRecord
from tuning.rules import RULES
from tuning.simulation.simulator import simulate
from tuning.simulation.surrogates import BINS, FAMILIES, NETWORKS, SPACE, Curve, Surrogate
from tuning.space import Settings
from tuning.spec import Budget, Sampler, SearchSpec, Stopping

REFERENCE = "resnet18"


@dataclass(frozen=True)
class Forecast:
    """One simulated run of a search file."""

    family: str
    trials: int
    epochs: int
    whole_epochs: int
    """What the same trials would take if none ended early."""
    gpu_hours: float
    hours: float
    ended: str


def forecast(spec: SearchSpec, workers: int, epoch_s: float) -> list[Forecast]:
    """Runs a search file against each family of surrogate curves.

    Args:
        spec: the search.
        workers: trials that run at a time.
        epoch_s: seconds that an epoch of ResNet18 takes; other networks in proportion.
    """
    return [_forecast(spec, family, workers, epoch_s) for family in FAMILIES]


def _forecast(spec: SearchSpec, family: str, workers: int, epoch_s: float) -> Forecast:
    instance = Surrogate(family, 0, spec.budget.epochs)

    def curve(settings: Settings) -> Curve:
        made_up = instance.curve(_six(spec, settings))
        relative = NETWORKS[str(_six(spec, settings)["backbone"])][1]
        return Curve(
            made_up.true_deg,
            made_up.seen_deg,
            epoch_s * relative,
            made_up.crashes_in,
            made_up.out_of_memory,
        )

    trace, study = simulate(spec, curve, workers)
    record = study.record()
    return Forecast(
        family=family,
        trials=len(record.trials),
        epochs=trace.epochs,
        whole_epochs=len(record.trials) * spec.budget.epochs,
        gpu_hours=spec.resources.units_per_trial * trace.gpu_s / 3600,
        hours=trace.seconds / 3600,
        ended=record.ended or "",
    )


def _six(spec: SearchSpec, settings: Settings) -> Settings:
    """The settings that the surrogates understand; other networks count as the reference one, other
    bin widths as the nearest that they know."""
    config = spec.train_config(settings)
    six: Settings = {name: getattr(config, name) for name in SPACE}
    if config.backbone not in NETWORKS:
        six["backbone"] = REFERENCE
    six["alpha"] = max(config.alpha, 1e-6)
    six["bin_width"] = min(BINS, key=lambda width: abs(width - config.bin_width))
    return six


@dataclass(frozen=True)
class Replay:
    """What a rule would have made of the trials of a search."""

    rule: str
    epochs: int
    unrecorded: int
    """Of these, epochs that were never trained: taken as no better than those before them."""
    best_deg: float | None
    lost_deg: float | None
    """By how much its best error is worse than the best recorded one."""


def replay(search: SearchRecord, workers: int = 1) -> list[Replay]:
    """Runs every rule over the recorded curves of a search, its trials in their order; of one that
    was extended, those that lie within its bounds now."""
    trials = [t for t in within(search) if t.epochs]
    return [_replay(search, trials, rule, workers) for rule in RULES] if trials else []


def _replay(search: SearchRecord, trials: Sequence[TrialRecord], rule: str, workers: int) -> Replay:
    last = search.spec.budget.epochs
    # Of a repeated configuration the trial that went on longest says most: the last one counts.
    longest = {configuration(t.parameters): t for t in sorted(trials, key=lambda t: len(t.epochs))}
    curves = {name: _recorded(trial, last) for name, trial in longest.items()}
    # All are named here, that they come in their order; none is protected for it.
    settings = search.spec.stopping.model_dump() | {"rule": rule, "protect_until": 0}
    spec = search.spec.model_copy(
        update={
            "try_first": tuple(t.parameters for t in trials),
            "sampler": Sampler(name="random"),
            "objectives": ("val_mae",),
            "stopping": Stopping.model_validate(settings),
            "budget": Budget(trials=len(trials), epochs=last),
        }
    )
    trace, study = simulate(spec, lambda s: curves[configuration(s)], workers)
    known = {name: len(trial.epochs) for name, trial in longest.items()}
    beyond = sum(
        max(0, len(t.epochs) - known[configuration(t.parameters)]) for t in study.record().trials
    )
    best = min((t.value for t in study.record().trials if t.value is not None), default=None)
    recorded = min((t.value for t in trials if t.value is not None), default=None)
    lost = None if best is None or recorded is None else best - recorded
    return Replay(rule, trace.epochs, beyond, best, lost)


def _recorded(trial: TrialRecord, last_epoch: int) -> Curve:
    seen = [trial.curve[epoch] for epoch in sorted(trial.curve)]
    worst = max((v for v in seen if math.isfinite(v)), default=math.nan)
    seen += [worst if math.isfinite(seen[-1]) else math.nan] * (last_epoch - len(seen))
    seconds = [e.metrics.get("epoch_seconds", 1.0) for e in trial.epochs]
    values = np.asarray(seen)
    return Curve(values, values, float(np.mean(seconds)))
