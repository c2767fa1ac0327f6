"""What was trained, and what was trained twice: read from outside.

Two training runs of the same epoch give the same errors but never the same duration, so the
duration of an epoch tells one run of it from another. Durations are seen in the study (the first
report of each epoch) and in every manifest that passes the gate of S3, each of which holds the
whole history of the training that it comes from. An epoch of which no trace is ever seen was
neither reported nor stored: it was in flight when its worker was hit.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from tests.chaos.gate import Change
from tests.chaos.watching import TIMING, Trial


@dataclass
class Run:
    """One training run of one epoch of one trial; times in seconds since the epoch."""

    trial: int
    epoch: int
    seconds: float
    seen_s: float
    node: str = ""
    """Whose upload showed it first; empty where the study did."""
    stored: dict[str, tuple[float, str]] = field(default_factory=dict)
    """When checkpoints that hold it were whole in the store, and the node that they came from, by
    their keys: its own one, and those of later epochs that came from it."""
    collected: dict[str, float] = field(default_factory=dict)
    """When parts of them were removed again, as later ones had taken their place."""

    def stored_at(
        self, moment_s: float, damaged: Collection[str], again: "Run", trial: Trial
    ) -> float | None:
        """Since when it lay in the store, if it did at a moment, for whoever trained it again.

        Damaged ones do not count, nor does what a node that had been given up stored so late that
        its successor was at work already: both then have the same epoch in flight.
        """
        there = [
            at_s
            for key, (at_s, node) in self.stored.items()
            if at_s < moment_s < self.collected.get(key, math.inf)
            and key not in damaged
            and not _was_late(trial, at_s, node, again.seen_s)
        ]
        return min(there, default=None)

    def attempt_s(self, trial: Trial) -> float:
        """When the attempt began that it belongs to: the latest one, on the node that showed it.

        What a worker trained before it died may come to light after its successor's, when another
        process of its node brings it to a store that was away.
        """
        begun = [attempt for attempt in trial.attempts if attempt[0] <= self.seen_s]
        there = [at_s for at_s, node in begun if node == self.node]
        return max(there or [at_s for at_s, _ in begun], default=0.0)


def _was_late(trial: Trial, stored_s: float, node: str, again_s: float) -> bool:
    """Whether the attempt that was at work when another node stored something still was later."""
    begun = [attempt for attempt in trial.attempts if attempt[0] <= again_s]
    then = [attempt for attempt in begun if attempt[0] <= stored_s]
    return bool(then) and max(then) == max(begun) and max(then)[1] not in ("", node)


def runs_of(log: Iterable[Change], trials: Sequence[Trial]) -> dict[tuple[int, int], list[Run]]:
    """All training runs by trial and epoch, the first one first."""
    found: dict[tuple[int, int, tuple[float, ...]], Run] = {}

    def saw(trial: int, epoch: int, metrics: dict[str, float], at_s: float, node: str = "") -> Run:
        name = (trial, epoch, tuple(metrics[n] for n in TIMING))
        run = found.setdefault(name, Run(trial, epoch, metrics["epoch_seconds"], at_s, node))
        run.seen_s = min(run.seen_s, at_s)
        return run

    trial_of: dict[str, int] = {}
    for trial in trials:
        for number, epoch in trial.epochs.items():
            trial_of[epoch.key] = trial.number
            trial_of[epoch.key.split("/")[0]] = trial.number  # its trunk, where keys have one
            saw(trial.number, number, epoch.metrics, epoch.at_s)
    removed: dict[str, float] = {}
    for put in log:
        _bucket, _, place = put.key.lstrip("/").partition("/")
        if not place.startswith("checkpoints/"):  # what is set aside lies elsewhere
            continue
        if put.method == "DELETE":
            key = place.removeprefix("checkpoints/").rpartition("/")[0]
            removed.setdefault(key, put.at_s)
            continue
        if put.method != "PUT" or not put.key.endswith("/manifest.json") or not put.body:
            continue
        key, history = put.json()["key"], put.json()["history"]
        owner = trial_of.get(key, trial_of.get(key.split("/")[0]))
        if owner is None:
            continue
        for number, metrics in enumerate(history, start=1):
            run = saw(owner, number, metrics, put.at_s, put.client)
            if put.status == 200:
                run.stored.setdefault(key, (put.at_s, put.client))
    for run in found.values():
        run.collected = {key: removed[key] for key in run.stored if key in removed}
    by_epoch: dict[tuple[int, int], list[Run]] = {}
    by_number = {trial.number: trial for trial in trials}
    for run in sorted(
        found.values(), key=lambda run: (run.attempt_s(by_number[run.trial]), run.seen_s)
    ):
        by_epoch.setdefault((run.trial, run.epoch), []).append(run)
    return by_epoch


def repeated(runs: dict[tuple[int, int], list[Run]]) -> list[tuple[Run, Run]]:
    """Pairs of an epoch's run and one that came after it."""
    return [(several[0], again) for several in runs.values() for again in several[1:]]
