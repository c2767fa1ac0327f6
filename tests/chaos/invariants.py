"""What must hold after a search has ended, whatever happened on the way; looked at from outside.

Each check returns what it found wrong, in words; nothing is raised, so that all are made.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence

from mlflow.entities import Run as MlflowRun
from safetensors import SafetensorError
from safetensors.torch import load

from tests.chaos.driving import hopetune
from tests.chaos.gate import Change
from tests.chaos.hits import Hit
from tests.chaos.lineage import repeated, runs_of
from tests.chaos.resumption import resumption
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
        *nothing_trained_twice(world.changes(), trials, hits, is_watched=world.is_alone),
        *weights_are_whole(world, search, trials),
        *nothing_is_left_over(world, search),
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


def nothing_trained_twice(
    changes: Sequence[Change],
    trials: Sequence[Trial],
    hits: Sequence[Hit],
    *,
    is_watched: bool = False,
) -> list[str]:
    """No epoch that was stored when its trial was hit; what it cost is noted with the hit.

    Args:
        is_watched: whether a gate saw what was fetched, too.
    """
    runs, by_number = runs_of(changes, trials), {t.number: t for t in trials}
    found = [
        f"suite: it saw nothing being stored of trial {trial.number}"
        for trial in trials
        if trial.epochs
        and not any(run.stored for number in trial.epochs for run in runs[trial.number, number])
    ]
    lost: dict[tuple[int, int, int], float] = {}
    for first, again in repeated(runs):
        name = f"trial {first.trial} epoch {first.epoch}"
        before = [h for h in hits if h.at_s < again.seen_s and h.hits(first.trial)]
        if not before:
            found.append(f"work: {name} was trained twice, though nothing had happened")
            continue
        hit = before[-1]
        lost[hit.index, first.trial, first.epoch] = first.seconds
        damaged = {key for h in before for key in h.damaged}
        stored_s = first.stored_at(hit.at_s, damaged, again, by_number[first.trial])
        if stored_s is not None:
            ago = hit.at_s - stored_s
            what = f"stored {ago:.1f} s before fault {hit.index} and trained again"
            found.append(f"work: {name} was {what}")
    if is_watched:
        found += _resumed_too_early(changes, trials, hits, lost)
    for hit in hits:
        of_hit = [seconds for (index, _, _), seconds in lost.items() if index == hit.index]
        hit.lost_epochs = len(of_hit)
        hit.lost_s = sum(of_hit) + sum(_in_flight_s(trial, hit) for trial in trials)
    return found


def _resumed_too_early(
    changes: Sequence[Change],
    trials: Sequence[Trial],
    hits: Sequence[Hit],
    lost: dict[tuple[int, int, int], float],
) -> list[str]:
    """Each trial went on from its latest stored state; adds what it trained again to ``lost``, its
    seconds by hit, trial and epoch."""
    found = []
    for hit in (hit for hit in hits if hit.loses_workers):
        for trial in (trial for trial in trials if hit.hits(trial.number)):
            went_on = resumption(changes, trial, hit, hits)
            if went_on is None:
                continue
            if went_on.fault:
                found.append(f"work: trial {trial.number}, fault {hit.index}: {went_on.fault}")
            for number in went_on.again:
                seconds = trial.epochs[number].metrics["epoch_seconds"]
                lost[hit.index, trial.number, number] = seconds
    return found


def _in_flight_s(trial: Trial, hit: Hit) -> float:
    """How long the epoch had been trained that a trial lost with its worker; at most, as the
    pause after the epoch before counts in."""
    if not hit.loses_workers or not hit.hits(trial.number):
        return 0.0
    before = [epoch.at_s for epoch in trial.epochs.values() if epoch.at_s < hit.at_s]
    return hit.at_s - max(before) if before else 0.0


def weights_are_whole(world: World, search: str, trials: Sequence[Trial]) -> list[str]:
    """Each completed trial's best weights lie among the checkpoints and the artifacts of its run;
    they fit the sha256 of their manifest and load."""
    found = []
    runs = {run.data.tags.get("hopetune.trial"): run for run in world.runs.of(search)}
    done = [t for t in trials if t.state == "COMPLETE" and t.best_key and t.value is not None]
    for trial in done:
        name = f"store: trial {trial.number}"
        manifest = world.store.get(f"checkpoints/{trial.best_key}/manifest.json")
        if manifest is None:
            found.append(f"{name}: the manifest of its best epoch is missing")
            continue
        part = json.loads(manifest)["parts"]["weights"]
        places = [f"checkpoints/{trial.best_key}/{part['name']}"]
        if run := runs.get(str(trial.number)):
            folder = f"mlflow/{run.info.experiment_id}/{run.info.run_id}/artifacts/checkpoint"
            places.append(f"{folder}/weights.safetensors")
        for place in places:
            if fault := _fault(world.store.get(place), part["sha256"]):
                found.append(f"{name}: {place} {fault}")
    return found


def _fault(content: bytes | None, sha256: str) -> str | None:
    if content is None:
        return "is missing"
    if hashlib.sha256(content).hexdigest() != sha256:
        return "does not have the sha256 of its manifest"
    try:
        load(content)
    except SafetensorError as error:
        return f"does not load: {error}"
    return None


def nothing_is_left_over(world: World, search: str) -> list[str]:
    """The driver has collected at its end all that retention does not keep: `hopetune gc` finds
    nothing, and its list of what nobody explains is empty."""
    said = hopetune("gc", "--json", environment=world.operator_environment())
    if said.returncode != 0:
        return [f"store: `hopetune gc` failed: {said.stderr.strip()}"]
    survey = json.loads(said.stdout)
    left = {"collectable": survey["collectable"].get(search)}
    if world.is_alone:
        left |= {name: survey[name] for name in ("orphans", "young")}
    return [f"store: left over, {name}: {what}" for name, what in left.items() if what]


def nobody_is_left(world: World) -> list[str]:
    """No worker outlives its search."""
    until = time.monotonic() + ENDING_S
    while time.monotonic() < until:
        left = [(node.address, p.pid) for node in world.nodes for p in node.workers()]
        if not left:
            return []
        time.sleep(0.5)
    return [f"processes: workers outlive their search: {left}"]
