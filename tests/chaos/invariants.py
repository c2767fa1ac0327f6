"""What must hold after a search has ended, whatever happened on the way; looked at from outside.

Each check returns what it found wrong, in words; nothing is raised, so that all are made.
"""

import json
import time
from collections import Counter
from collections.abc import Sequence

from mlflow.entities import Run as MlflowRun
from safetensors import SafetensorError
from safetensors.torch import load

from tests.chaos.hits import Hit
from tests.chaos.lineage import repeated, runs_of
from tests.chaos.watching import Trial
from tests.chaos.world import World

ENDING_S = 30.0
"""How long workers may take to leave after the search has ended; untuned."""
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


def check(world: World, search: str, hits: Sequence[Hit], wanted: Sequence[Trial]) -> list[str]:
    """All invariants of one search; ``wanted`` are the trials of the undisturbed one."""
    trials = world.watcher.trials(search)
    found = [
        *study_is_whole(trials, world.size.trials),
        *equals_undisturbed(trials, wanted),
        *mlflow_equals_study(world, search, trials),
        *nothing_trained_twice(world, trials, hits),
        *checkpoints_are_whole(world, trials),
        *nobody_is_left(world),
    ]
    return [f"{search}: {fault}" for fault in found]


def study_is_whole(trials: Sequence[Trial], count: int) -> list[str]:
    """Every trial once, none running or failed."""
    found = []
    numbers = [t.number for t in trials]
    if len(numbers) != count:
        found.append(f"study: {len(numbers)} trials instead of {count}: {numbers}")
    for trial in trials:
        running = [e.number for e in trial.entries if e.state.name in ("RUNNING", "WAITING")]
        if running:
            found.append(f"study: trial {trial.number}: entries {running} run for ever")
        if trial.state != "COMPLETE":
            why = trial.detail or trial.reason
            found.append(f"study: trial {trial.number} is {trial.state} ({why})")
        if set(trial.intermediate) != set(trial.epochs):
            found.append(f"study: trial {trial.number}: values and epochs differ")
    return found


def equals_undisturbed(trials: Sequence[Trial], wanted: Sequence[Trial]) -> list[str]:
    """Configurations, curves of all metrics, values and the best trial."""
    found = []
    for trial, other in zip(trials, wanted, strict=False):
        if trial.parameters != other.parameters:
            found.append(f"result: trial {trial.number} has another configuration")
        elif trial.result != other.result:
            found.append(f"result: trial {trial.number} has other metrics")
    if _best(trials) != _best(wanted):
        found.append(f"result: best trial {_best(trials)} instead of {_best(wanted)}")
    return found


def _best(trials: Sequence[Trial]) -> int | None:
    scored = [(t.value, t.number) for t in trials if t.value is not None]
    return min(scored)[1] if scored else None


def mlflow_equals_study(world: World, search: str, trials: Sequence[Trial]) -> list[str]:
    """A parent, and each trial once, ended, with the very points of the study."""
    runs = world.runs.of(search)
    by_trial = Counter(run.data.tags.get("hopetune.trial", "parent") for run in runs)
    wanted = Counter({"parent": 1, **{str(t.number): 1 for t in trials}})
    found = []
    if by_trial != wanted:
        found.append(f"MLflow: runs {dict(by_trial)} instead of {dict(wanted)}")
    found += [
        f"MLflow: run {run.info.run_name} is {run.info.status} for ever"
        for run in runs
        if run.info.status in ("RUNNING", "SCHEDULED")
    ]
    of_trial = {run.data.tags.get("hopetune.trial"): run for run in runs}
    for trial in trials:
        if run := of_trial.get(str(trial.number)):
            found += _run_equals(world, trial, run)
    return found


def _run_equals(world: World, trial: Trial, run: MlflowRun) -> list[str]:
    found = []
    if run.info.status != STATUS.get(trial.state):
        found.append(f"MLflow: trial {trial.number} is {run.info.status}, study {trial.state}")
    names = {name for epoch in trial.epochs.values() for name in epoch.metrics}
    for name in sorted(names):
        points = world.runs.client.get_metric_history(run.info.run_id, name)
        shown = sorted((point.step, point.value) for point in points)
        known = sorted((n, epoch.metrics[name]) for n, epoch in trial.epochs.items())
        if shown != known:
            found.append(
                f"MLflow: trial {trial.number}: {len(shown)} points of {name}, study {len(known)}"
            )
    return found


def nothing_trained_twice(world: World, trials: Sequence[Trial], hits: Sequence[Hit]) -> list[str]:
    """No epoch that was stored when its trial was hit; what it cost is noted with the hit."""
    found = []
    runs = runs_of(list(world.s3.log), trials)
    for first, again in repeated(runs):
        name = f"trial {first.trial} epoch {first.epoch}"
        before = [h for h in hits if h.at_s < again.seen_s and h.hits(first.trial)]
        if not before:
            found.append(f"work: {name} was trained twice, though nothing had happened")
            continue
        hit = before[-1]
        hit.lost_epochs += 1
        hit.lost_s += first.seconds
        stored_s = first.stored_s({key for h in before for key in h.damaged})
        if stored_s is not None and stored_s < hit.at_s:
            ago = hit.at_s - stored_s
            what = f"stored {ago:.1f} s before fault {hit.index} and trained again"
            found.append(f"work: {name} was {what}")
    return found


def checkpoints_are_whole(world: World, trials: Sequence[Trial]) -> list[str]:
    """The best checkpoint of each completed trial is there, fits its sha256 and loads."""
    found = []
    for trial in trials:
        key = trial.best_key
        if trial.state != "COMPLETE" or key is None:
            continue
        manifest = world.store.get(f"checkpoints/{key}/manifest.json")
        if manifest is None:
            found.append(f"store: trial {trial.number}: its best checkpoint is missing")
            continue
        sums = sums_of(manifest)
        if fault := world.store.fault_of(key, sums):
            found.append(f"store: trial {trial.number}: {fault}")
            continue
        weights = next(name for name in sums if name.startswith("weights"))
        try:
            load(world.store.get(f"checkpoints/{key}/{weights}") or b"")
        except SafetensorError as error:
            found.append(f"store: trial {trial.number}: {error}")
    return found


def sums_of(manifest: bytes) -> dict[str, str]:
    """The sha256 of a checkpoint's objects by their names."""
    said = json.loads(manifest)
    if "parts" in said:
        return {part["name"]: part["sha256"] for part in said["parts"].values()}
    return dict(said["sha256"])


def nobody_is_left(world: World) -> list[str]:
    """No worker outlives its search."""
    until = time.monotonic() + ENDING_S
    while time.monotonic() < until:
        left = [(node.address, p.pid) for node in world.nodes for p in node.workers()]
        if not left:
            return []
        time.sleep(0.5)
    return [f"processes: workers outlive their search: {left}"]
