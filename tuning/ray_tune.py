"""The one door to Ray Tune: the worker's trainable, and a searcher and a scheduler over the study.

Ray Tune places trials and keeps workers warm. What is proposed, what is stopped and what is
remembered belongs to the study; nothing is read back from Ray Tune's own snapshots.
"""

import logging
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tuning.events import Idle, SearchEvents
from tuning.exits import ExitReason
from tuning.records import EpochRecord
from tuning.spec import SearchSpec
from tuning.study import now_ms
from tuning.trial import EpochReport
from tuning.worker import Worker
from usererror import UserError

NUMBER = "trial_number"
_SPEC = "spec"
_PARAMETERS = "parameters"
_REPORT = "report"
_ENDED = "ended"
_DETAIL = "detail"
_NOTES = "notes"


class HeadposeTrainable(tune.Trainable):  # type: ignore[misc]
    """One trial after the other in one warm process; a Ray Tune step is an epoch."""

    def setup(self, config: dict[str, Any]) -> None:
        self._worker = Worker()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        try:
            report = next(self._reports)
        except torch.OutOfMemoryError as error:
            return _ended(ExitReason.OUT_OF_MEMORY, str(error))
        except UserError as error:
            return _ended(ExitReason.INVALID_CONFIG, str(error))
        notes = self._worker.take_notes()
        return {_REPORT: vars(report), **({_NOTES: "\n".join(notes)} if notes else {})}

    def cleanup(self) -> None:
        self._worker.close()

    def _begin(self, config: dict[str, Any]) -> None:
        spec = SearchSpec.model_validate_json(config[_SPEC])
        self._reports: Iterator[EpochReport] = self._worker.start(spec, config[_PARAMETERS])


def _ended(reason: ExitReason, detail: str) -> dict[str, Any]:
    return {_ENDED: reason.value, _DETAIL: detail}


class _Unsaved:
    """Ray Tune pickles what it is given into a snapshot, passwords and all; nobody reads it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudySearcher(_Unsaved, Searcher):  # type: ignore[misc]
    """Ray Tune asks, the study answers."""

    def __init__(self, events: SearchEvents, spec: SearchSpec) -> None:
        super().__init__()
        self._events = events
        self._spec = spec.model_dump_json()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # noqa: ARG002
        work = self._events.next_trial()
        if work is Idle.WAIT:
            return None  # Ray Tune asks again
        if isinstance(work, Idle):
            finished: str = Searcher.FINISHED
            return finished
        return {NUMBER: work.number, _PARAMETERS: work.parameters, _SPEC: self._spec}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing to learn: the scheduler has told the study already."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep: the study has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to take up: the study has it."""


class StudyScheduler(_Unsaved, FIFOScheduler):  # type: ignore[misc]
    """Hands every report to the study's rules and obeys them."""

    def __init__(self, events: SearchEvents) -> None:
        super().__init__()
        self._events = events

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ARG002
        number = trial.config[NUMBER]
        if _ENDED in result:
            self._events.on_end(number, ExitReason(result[_ENDED]), result[_DETAIL])
            return str(TrialScheduler.STOP)
        for text in result.get(_NOTES, "").splitlines():
            self._events.on_note(number, text)
        record = _epoch_record(result)
        goes_on = self._events.on_epoch(number, record, str(result.get("node_ip", "")))
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:  # noqa: ARG002
        # Called for every failure; Ray Tune starts the trial again until its retries are used up.
        if trial.should_recover():
            return
        self._events.on_end(trial.config[NUMBER], ExitReason.CRASHED, _last_line(trial))


def _epoch_record(result: dict[str, Any]) -> EpochRecord:
    prefix = f"{_REPORT}/"
    flat = {key.removeprefix(prefix): v for key, v in result.items() if key.startswith(prefix)}
    metrics = {
        name.removeprefix("metrics/"): value
        for name, value in flat.items()
        if name.startswith("metrics/")
    }
    return EpochRecord(
        flat["epoch"], now_ms(), metrics, flat["checkpoint_key"], restored=flat["restored"]
    )


def _last_line(trial: Trial) -> str:
    error = trial.get_error()
    if error is None:
        return "the worker died"
    lines = traceback.format_exception_only(error)
    return lines[-1].strip().splitlines()[-1]


class _MustEnd(_Unsaved, tune.Stopper):  # type: ignore[misc]
    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        return False

    def stop_all(self) -> bool:
        return self._asked()


def gpus_of_cluster() -> float:
    """GPUs that the connected cluster offers, logical ones included."""
    return float(ray.cluster_resources().get("GPU", 0))


def connect(address: str, namespace: str) -> None:
    """Joins the cluster at ``address``, and no other."""
    ray.init(address=address, namespace=namespace, log_to_driver=False, configure_logging=False)


def run_trials(events: SearchEvents, spec: SearchSpec, gpus: float, parallel: int) -> None:
    """Runs trials on the connected cluster until ``events`` says that the search has ended."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output prints tables even at verbose=0
    # It warns that it finds no result files, which are switched off: the study has the results.
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    resources = {"cpu": spec.resources.cpus_per_trial, "gpu": gpus}
    # Ray Tune wants a folder for its own files; nothing in it is ever read again.
    with tempfile.TemporaryDirectory(prefix="hopetune-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(HeadposeTrainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(events, spec),
                scheduler=StudyScheduler(events),
                num_samples=-1,
                max_concurrent_trials=parallel,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=scratch,
                stop=_MustEnd(events.must_end),
                failure_config=tune.FailureConfig(max_failures=spec.resources.retries),
                # Left to itself, Ray Tune saves a trainable of this kind at its end.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        tuner.fit()
