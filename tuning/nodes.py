"""Which nodes are to be avoided: a pure rule over the attempts that the study keeps.

A node with a broken GPU or a full disk takes every trial that is handed out and fails it, faster
than a good node trains one. A configuration that crashes does so on every node, and blames none.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tuning.exits import ExitReason
from tuning.records import TrialRecord

BLAMED = (
    ExitReason.CRASHED,
    ExitReason.STALLED,
    ExitReason.DISK_FULL,
    ExitReason.UNFIT_NODE,
)
"""Causes that may be the node's fault."""

WINDOW = 6  # untuned
"""The latest attempts on a node that count."""
FAILURES = 3  # untuned
TRIALS = 2  # untuned


@dataclass(frozen=True)
class Outcome:
    """How an attempt on a node ended."""

    node: str
    trial: int
    failed: bool
    at_ms: int


@dataclass(frozen=True)
class Judgement:
    """What the attempts of a search say of its nodes."""

    avoided: dict[str, str]
    """Nodes that must not be used, each with the reason in words."""
    hopeless: str | None
    """Why no node is left that trains anything, in words."""


def judge(trials: Iterable[TrialRecord], nodes: Collection[str]) -> Judgement:
    """Judges the living ``nodes`` of a cluster.

    A node is avoided where ``FAILURES`` of its ``WINDOW`` latest attempts failed, those of at least
    ``TRIALS`` trials, while another node did better. Where all of the latest attempts failed on
    every node, there is nothing to go on with.
    """
    latest = _latest(trials)
    suspects = {node: words for node in nodes if (words := _suspicion(latest.get(node, [])))}
    good = [
        node
        for node in nodes
        if node not in suspects and any(not o.failed for o in latest.get(node, []))
    ]
    if good:
        return Judgement(suspects, None)
    dead = [n for n in suspects if len(latest[n]) == WINDOW and all(o.failed for o in latest[n])]
    if nodes and len(dead) == len(nodes):
        reasons = "; ".join(f"{node}: {suspects[node]}" for node in sorted(dead))
        return Judgement({}, f"no node trains any more ({reasons})")
    return Judgement({}, None)


def _latest(trials: Iterable[TrialRecord]) -> dict[str, list[Outcome]]:
    found = sorted((o for trial in trials for o in _outcomes(trial)), key=lambda o: o.at_ms)
    by_node: dict[str, list[Outcome]] = {}
    for outcome in found:
        by_node.setdefault(outcome.node, []).append(outcome)
    return {node: outcomes[-WINDOW:] for node, outcomes in by_node.items()}


def _outcomes(trial: TrialRecord) -> Iterable[Outcome]:
    for attempt in trial.attempts:
        goes_on = attempt is trial.attempts[-1] and trial.state == "RUNNING" and not attempt.cause
        if attempt.node and not goes_on and attempt.cause != ExitReason.PREEMPTED:
            at_ms = attempt.ended_ms or trial.ended_ms or attempt.begun_ms
            yield Outcome(attempt.node, trial.number, attempt.cause in BLAMED, at_ms)


def _suspicion(latest: list[Outcome]) -> str | None:
    failed = [outcome for outcome in latest if outcome.failed]
    trials = {outcome.trial for outcome in failed}
    if len(failed) < FAILURES or len(trials) < TRIALS:
        return None
    return f"{len(failed)} of its last {len(latest)} attempts failed, of {len(trials)} trials"
