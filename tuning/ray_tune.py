"""The one door to Ray Tune: a searcher and a scheduler over the study (its workers are in
``tuning.ray_worker``, what a driver asks of the cluster's nodes in ``tuning.ray_nodes``).

Ray Tune places trials and keeps workers warm. What is proposed, stopped, tried again and remembered
belongs to the study; nothing is read back from Ray Tune's own snapshots, and it retries nothing.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.execution import class_cache, tune_controller
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tuning.events import Idle, PlacedEvents, SearchEvents
from tuning.exits import ExitReason
from tuning.ray_nodes import ID_LABEL, ids_of
from tuning.ray_worker import (
    ATTEMPT,
    DETAIL,
    ENDED,
    FINGERPRINT,
    NOTES,
    NUMBER,
    PARAMETERS,
    REPORT,
    SPEC,
    TRAINED,
    AttemptFailedError,
    HeadposeTrainable,
)
from tuning.records import EpochRecord
from tuning.spec import SearchSpec
from tuning.study import now_ms

log = logging.getLogger(__name__)


# Ray Tune would put keys of the driver's environment into that of its actors, where all see them.
class_cache.ENV_VARS_TO_PROPAGATE -= {
    name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")
}

_AVOID, _AVOID_IDS = "avoid", "avoid_ids"
_UNLIMITED = 1_000_000
LOOK_S = 5.0
"""How often it is looked whether waiting trials can still be placed; untuned."""


class _Unsaved:
    """Ray Tune pickles what it is given into a snapshot, passwords and all; nobody reads it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudySearcher(_Unsaved, Searcher):  # type: ignore[misc]
    """Ray Tune asks, the study answers.

    Ray Tune's own limit on trials under way is a number for good; here it is asked for each time,
    as the cluster grows and shrinks.
    """

    def __init__(
        self,
        events: SearchEvents,
        spec: SearchSpec,
        fingerprint: str,
        under_way: Callable[[], int],
    ) -> None:
        super().__init__()
        self._events = events
        self._spec = spec.model_dump_json()
        self._fingerprint = fingerprint
        self._most = under_way
        self._under_way: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._under_way and len(self._under_way) >= self._most():
            return None  # Ray Tune asks again
        work = self._events.next_trial()
        if work is Idle.WAIT:
            return None  # Ray Tune asks again
        if isinstance(work, Idle):
            finished: str = Searcher.FINISHED
            return finished
        self._under_way.add(trial_id)
        return {
            NUMBER: work.number,
            ATTEMPT: work.attempt,
            PARAMETERS: work.parameters,
            TRAINED: (work.trained_epochs, work.trained_s),
            SPEC: self._spec,
            FINGERPRINT: self._fingerprint,
            _AVOID: list(work.avoid),
            _AVOID_IDS: ids_of(work.avoid),
        }

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,  # noqa: ARG002
        error: bool = False,  # noqa: ARG002
    ) -> None:
        """Nothing to learn: the scheduler has told the study already."""
        self._under_way.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep: the study has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to take up: the study has it."""


class _Starts(_Unsaved, tune.Callback):  # type: ignore[misc]
    """Asks each worker that begins a trial where it is; no decision waits for the answer."""

    def __init__(self, events: SearchEvents) -> None:
        self._events = events
        self._asked: dict[ray.ObjectRef, Trial] = {}

    def on_trial_start(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Trial],  # noqa: ARG002
        trial: Trial,
        **info: Any,  # noqa: ARG002
    ) -> None:
        actor = trial.temporary_state.ray_actor
        self._asked[actor.get_current_ip_pid.remote()] = trial

    def tell(self) -> None:
        """Passes on the answers that have come."""
        if not self._asked:
            return
        ready, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        for answer in ready:
            trial = self._asked.pop(answer)
            try:
                node, pid = ray.get(answer)
            except (RayActorError, RayTaskError):
                continue  # it died at once, of which Ray Tune hears by itself
            self._events.on_start(*_attempt(trial), node, pid)


class StudyScheduler(_Unsaved, FIFOScheduler):  # type: ignore[misc]
    """Hands every report to the study's rules and obeys them."""

    def __init__(self, events: PlacedEvents, starts: _Starts) -> None:
        super().__init__()
        self._events = events
        self._starts = starts
        self._looked_s = -LOOK_S

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Called at every turn of Ray Tune's loop, about ten times a second."""
        self._starts.tell()
        given_up = set(self._events.hung())
        if given_up:
            for trial in tune_controller.get_trials():
                actor = trial.temporary_state.ray_actor
                if actor is not None and _attempt(trial) in given_up:
                    ray.kill(actor)  # of which Ray Tune hears as of any other death
        if time.monotonic() - self._looked_s >= LOOK_S:
            self._take_back(tune_controller)
            self._looked_s = time.monotonic()
        return super().choose_trial_to_run(tune_controller)

    def _take_back(self, tune_controller: Any) -> None:
        """Trials that wait for a worker on nodes that do not come back: where they may go is
        decided anew."""
        waiting = [
            trial
            for trial in tune_controller.get_trials()
            # Without a folder it has not been asked a worker for yet, nor could it be ended.
            if trial.status == Trial.PENDING and trial.relative_logdir and trial.config.get(_AVOID)
        ]
        for trial in waiting:
            if not self._events.has_place(trial.config[_AVOID]):
                why = "no node is left that it may go to"
                self._events.on_end(*_attempt(trial), ExitReason.PREEMPTED, why)
                if trial in tune_controller._staged_trials:  # Ray Tune would count on it for ever
                    tune_controller._unstage_trial_with_resources(trial)
                # Not `stop_trial`, which prints that it is complete.
                tune_controller.search_alg.on_trial_complete(trial.trial_id)
                tune_controller._schedule_trial_stop(trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ARG002
        self._starts.tell()
        number, attempt = _attempt(trial)
        if ENDED in result:
            self._events.on_end(number, attempt, ExitReason(result[ENDED]), result[DETAIL])
            return str(TrialScheduler.STOP)
        for text in result.get(NOTES, "").splitlines():
            self._events.on_note(number, text)
        goes_on = self._events.on_epoch(number, attempt, _epoch_record(result))
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:  # noqa: ARG002
        """Called once for every failure, as Ray Tune retries nothing."""
        self._starts.tell()
        cause, detail = failure(_error(trial))
        self._events.on_end(*_attempt(trial), cause, detail)


def _attempt(trial: Trial) -> tuple[int, int]:
    return trial.config[NUMBER], trial.config[ATTEMPT]


def _error(trial: Trial) -> Exception | None:
    # Ray Tune's own reader looks where the file comes to lie later.
    path = trial.pickled_error_file
    if path is None or not Path(path).is_file():
        return None
    error: Exception = cloudpickle.loads(Path(path).read_bytes())
    return error


def _epoch_record(result: dict[str, Any]) -> EpochRecord:
    prefix = f"{REPORT}/"
    flat = {key.removeprefix(prefix): v for key, v in result.items() if key.startswith(prefix)}
    metrics = {
        name.removeprefix("metrics/"): value
        for name, value in flat.items()
        if name.startswith("metrics/")
    }
    return EpochRecord(
        flat["epoch"], now_ms(), metrics, flat["checkpoint_key"], restored=flat["restored"]
    )


def failure(error: Exception | None) -> tuple[ExitReason, str]:
    """The cause of an attempt's end, from what Ray says of its worker; and words for people."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, AttemptFailedError):
            if cause.cause == ExitReason.CRASHED:
                log.error("a worker failed: %s", error)
            return cause.cause, cause.detail
        return ExitReason.CRASHED, _last_line(error)
    if isinstance(error, RayActorError) and error.preempted:
        return ExitReason.PREEMPTED, "its node was taken away"
    for phrase, reason, words in _LAST_WORDS:
        if phrase in str(error):
            return reason, words
    if isinstance(error, RayActorError) and error.actor_init_failed:
        return ExitReason.CRASHED, _last_line(error)
    log.error("a worker is lost: %s", error)
    return ExitReason.CRASHED, "its worker process died"


_NO_HOST_MEMORY = "the memory of its node (not of its GPU) is full"

_LAST_WORDS = (
    ("node has died", ExitReason.PREEMPTED, "its node is lost"),
    ("SIGTERM", ExitReason.PREEMPTED, "its worker was told to leave"),
    (_NO_HOST_MEMORY, ExitReason.CRASHED, _NO_HOST_MEMORY),
)
"""Ray keeps most of what it knows of a dead worker in the text of its error only; the phrases were
seen with ray 2.60."""


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


class _Actors(RayActorManager):  # type: ignore[misc]
    """Ray Tune's manager of workers, which would end the whole search upon an error of a worker
    that it does not expect (ray 2.60), one killed as its node ran out of memory among them."""

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if not isinstance(exception, RayActorError | RayTaskError):
            is_memory = isinstance(exception, ray.exceptions.OutOfMemoryError)
            text = _NO_HOST_MEMORY if is_memory else _last_line(exception)
            exception = RayActorError(error_msg=text)
        super()._actor_task_failed(tracked_actor_task, exception)


class _MustEnd(_Unsaved, tune.Stopper):  # type: ignore[misc]
    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        return False

    def stop_all(self) -> bool:
        return self._asked()


def _resources(wanted: dict[str, float]) -> Callable[[dict[str, Any]], tune.PlacementGroupFactory]:
    """What a trial asks for: so much, and not on a node that must not have it."""

    def of(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        if not config.get(_AVOID_IDS):
            return tune.PlacementGroupFactory([wanted])
        elsewhere = {ID_LABEL: f"!in({','.join(config[_AVOID_IDS])})"}
        return tune.PlacementGroupFactory([wanted], bundle_label_selector=[elsewhere])

    return of


def run_trials(
    events: PlacedEvents,
    spec: SearchSpec,
    fingerprint: str,
    gpus: float,
    under_way: Callable[[], int],
) -> None:
    """Runs trials on the connected cluster until ``events`` says that the search has ended.

    Args:
        events: decides.
        spec: of the search.
        fingerprint: of the training set that it was begun with.
        gpus: what each trial gets.
        under_way: how many trials may be under way now; asked again and again.
    """
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output prints tables even at verbose=0
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # the driver has its own (tuning/signals.py)
    # How many trials may wait for a worker at the same time; the searcher has the limit.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(_UNLIMITED)
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"  # the conductor tells of them
    # It warns that it finds no result files, which are switched off, and counts failed attempts as
    # failed trials: the study has the results.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    tune_controller.RayActorManager = _Actors
    resources = _resources({"CPU": spec.resources.cpus_per_trial, "GPU": gpus})
    starts = _Starts(events)
    # Ray Tune wants a folder for its own files; nothing in it is ever read again.
    with tempfile.TemporaryDirectory(prefix="hopetune-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(HeadposeTrainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(events, spec, fingerprint, under_way),
                scheduler=StudyScheduler(events, starts),
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=scratch,
                stop=_MustEnd(events.must_end),
                failure_config=tune.FailureConfig(max_failures=0),
                callbacks=[starts],
                # Left to itself, Ray Tune saves a trainable of this kind at its end.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        tuner.fit()
