"""MLflow is a projection of the study: runs are written from it, never the other way round.

One background thread in the driver looks at the study and brings the runs up to date. Whatever goes
wrong there is tried again; training and scheduling never wait for it. As every value, time stamp
included, comes from the study, writing it twice changes nothing.
"""

import dataclasses
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

from tuning import pareto
from tuning.exits import FATES, ExitReason
from tuning.extension import changes
from tuning.records import SearchRecord, TrialRecord
from tuning.study import Study
from usererror import UserError

log = logging.getLogger(__name__)

INTERVAL_S = 2.0  # untuned
REST = 9.0
"""So many times as long as a look at the study computed, this thread rests before the next one: the
decisions need the same interpreter, and a look at a thousand trials takes seconds. Untuned."""
GOODBYE_S = 60.0
"""For how long a driver waits at its end while MLflow takes what it is given; untuned."""
GOODBYE_AWAY_S = 5.0
"""The same where MLflow was away when it was last tried; `hopetune sync` catches up. Untuned."""

LONGEST_TAG = 5000  # characters, MLflow's limit

SEARCH_TAG = "hopetune.search"
TRIAL_TAG = "hopetune.trial"
CREATED_TAG = "hopetune.created_ms"
"""When the search was created: another one may have borne its name, or does in another database."""

END_TAGS = frozenset(
    ("hopetune.ended", *(f"hopetune.exit_{name}" for name in ("reason", "meaning", "detail")))
)
"""Tags of what has ended, or rests; they go when it goes on."""

UNENDED = ("RUNNING", "SCHEDULED")
"""Run states in which more may come; a paused trial is scheduled."""


@dataclass(frozen=True)
class Point:
    """One value of a metric."""

    name: str
    value: float
    step: int
    at_ms: int


@dataclass(frozen=True)
class RunState:
    """What a run in MLflow must look like now."""

    trial: int | None
    """Number of the trial; none for the parent run of the search."""
    name: str
    started_ms: int
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    status: str = "RUNNING"
    ended_ms: int | None = None
    checkpoint_key: str | None = None
    """The checkpoint that belongs among the run's artifacts; only once the trial has ended."""


class Runs(Protocol):
    """Where run states are brought to."""

    def bring(self, search: str, states: list[RunState]) -> None:
        """Makes the runs of a search look like ``states``; raises ConnectionError to be retried."""


def run_states(search: SearchRecord, *, driven: bool = True) -> list[RunState]:
    """The runs of a search, the parent first. A pure function of the study.

    Without a driver (``driven`` is false) nothing runs, whatever a dead driver left in the study:
    such runs show as killed until a driver takes the search up again.
    """
    trials = [t for t in search.trials if t.started_ms is not None]
    parent, children = _parent(search), [_child(search, trial) for trial in trials]
    if not driven:
        children = [_killed(child, _last_points_ms(child)) for child in children]
        ends_ms = (child.ended_ms for child in children if child.ended_ms is not None)
        parent = _killed(parent, max(ends_ms, default=parent.started_ms))
    return [parent, *children]


def _killed(state: RunState, ended_ms: int) -> RunState:
    if state.status not in UNENDED:
        return state
    return dataclasses.replace(state, status="KILLED", ended_ms=ended_ms)


def _last_points_ms(state: RunState) -> int:
    return max((point.at_ms for point in state.points), default=state.started_ms)


def _search_tags(search: SearchRecord) -> dict[str, str]:
    # Repeated on every child: the UI's filters do not inherit.
    return {
        SEARCH_TAG: search.name,
        CREATED_TAG: str(search.created_ms),
        "hopetune.data": search.fingerprint[:16],
    }


def _parent(search: SearchRecord) -> RunState:
    spec = search.spec
    best = search.best()
    points: tuple[Point, ...] = ()
    tags = _search_tags(search)
    if best is not None and best.value is not None and search.ended_ms:
        points = (Point("best_val_mae", best.value, 0, search.ended_ms),)
        tags["hopetune.best_trial"] = str(best.number)
    if len(spec.objectives) > 1:
        tags["hopetune.pareto_front"] = pareto.describe(search)[:LONGEST_TAG] or "-"
    if search.avoided_nodes:
        words = (f"{node}: {why}" for node, why in search.avoided_nodes.items())
        tags["hopetune.avoided_nodes"] = "; ".join(words)[:LONGEST_TAG]
    if search.ended:
        tags["hopetune.ended"] = search.ended
    first = search.earlier[0][1] if search.earlier else spec
    if search.earlier:
        tags["hopetune.extended"] = changes(first, spec)
    return RunState(
        trial=None,
        name=search.name,
        started_ms=search.created_ms,
        tags=tags,
        params={
            "sampler": spec.sampler.name,
            "objectives": ", ".join(spec.objectives),
            "stopping": spec.stopping.rule,
            # A run's parameters cannot be changed: those of an extended search stay the first ones.
            "trials": str(first.budget.trials),
            "epochs": str(first.budget.epochs),
            "data": spec.data.train,
        },
        points=points,
        status="FINISHED" if search.ended else "RUNNING",
        ended_ms=search.ended_ms,
    )


def _child(search: SearchRecord, trial: TrialRecord) -> RunState:
    tags = _search_tags(search) | {TRIAL_TAG: str(trial.number)}
    if trial.node:
        tags["hopetune.node"] = trial.node
    if trial.attempts:
        tags["hopetune.attempts"] = str(trial.attempts[-1].number)
        if lost := [a for a in trial.attempts if a.cause]:
            tags["hopetune.lost_attempts"] = "; ".join(a.in_words for a in lost)[:LONGEST_TAG]
    reason = trial.exit_reason
    if reason == ExitReason.PAUSED and search.ended:
        reason = ExitReason.STOPPED_EARLY  # nobody will take it up any more
    if reason:
        tags["hopetune.exit_reason"] = reason.value
        tags["hopetune.exit_meaning"] = FATES[reason].meaning
        # Always written: it takes the place of what was said when the trial was paused before.
        is_complete = reason == ExitReason.COMPLETED
        tags["hopetune.exit_detail"] = "-" if is_complete else trial.detail or "-"
    status = FATES[reason].run_status if reason else "RUNNING"
    best = trial.best_epoch
    has_ended = status not in UNENDED
    settings = {**search.spec.fixed, **trial.parameters}
    return RunState(
        trial=trial.number,
        name=f"{search.name}-{trial.number:03d}",
        started_ms=trial.started_ms or search.created_ms,
        tags=tags,
        params={name: str(value) for name, value in settings.items()},
        points=_points(trial),
        status=status,
        ended_ms=trial.ended_ms if has_ended else None,
        checkpoint_key=best.checkpoint_key if has_ended and trial.is_complete and best else None,
    )


def _points(trial: TrialRecord) -> tuple[Point, ...]:
    found = [
        Point(name, value, record.epoch, record.at_ms)
        for record in trial.epochs
        for name, value in record.metrics.items()
    ]
    # The UI's table shows a metric's latest value, so the best one has a curve of its own.
    best: float | None = None
    for record in trial.epochs:
        value = record.metrics["val_mae"]
        best = value if best is None or value < best else best
        found.append(Point("best_val_mae", best, record.epoch, record.at_ms))
    return tuple(found)


class Projection:
    """The background thread that keeps MLflow up to date with one study."""

    def __init__(self, study: Study, runs: Runs) -> None:
        self._study = study
        self._runs = runs
        self._finishing = threading.Event()
        self._behind = False
        """Whether MLflow did not take what it was given last."""
        self._thread = threading.Thread(target=self._loop, daemon=True, name="projection")

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Brings everything up to date once more; says so where MLflow cannot be reached.

        Waits for MLflow where it answers, and hardly where it does not or hangs.
        """
        self._finishing.set()
        self._thread.join(GOODBYE_AWAY_S if self._behind else GOODBYE_S)
        if self._behind or self._thread.is_alive():
            log.error("MLflow is behind; run `hopetune sync %s` when it is back", self._study.name)

    def _loop(self) -> None:
        pause = 0.0
        while not self._finishing.wait(pause):
            began_s = time.thread_time()
            self._bring()
            rest_s = max(INTERVAL_S, REST * (time.thread_time() - began_s))
            pause = min(60.0, max(INTERVAL_S, 2 * pause)) if self._behind else rest_s
        self._bring()

    def _bring(self) -> None:
        is_behind = True
        try:
            self._runs.bring(self._study.name, run_states(self._study.record()))
            is_behind = False
        except (ConnectionError, UserError) as error:
            log.warning("MLflow is not up to date: %s", error)
        finally:  # an error of another kind ends this thread
            self._behind = is_behind
