"""The driver of a search: asks the study, lets Ray Tune place the trials, writes down what happens.

It holds no state that the study does not hold: kill it at any moment, start it again under the same
name, and it goes on.

    python -m tuning.driver quickstart.yaml --name quickstart-1122-0641
"""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from cluster.settings import Settings, load_settings
from tuning.budget import Usage, ended_by
from tuning.checkpoints import MANIFEST
from tuning.datasets import fingerprint_of
from tuning.exits import FATES, ExitReason
from tuning.mlflow_client import MlflowRuns
from tuning.objects import Objects
from tuning.places import checkpoints
from tuning.progress import ProgressLines
from tuning.projection import Projection
from tuning.records import EpochRecord, SearchRecord
from tuning.spec import SearchSpec, load_spec
from tuning.spec import Settings as Parameters
from tuning.stopping import is_diverged, should_stop
from tuning.storing import PATIENCE_S, Storing
from tuning.study import Storage, Study, now_ms
from usererror import UserError

SETTLE_S = 5.0
"""How long the last checkpoints are looked for after the workers have ended; untuned."""
POLL_S = 1.0
"""How often the wish to stop and the budget are looked at; untuned."""


class Driver:
    """Decides from the study, and is its only writer; Ray Tune's events come in here."""

    def __init__(self, study: Study, progress: ProgressLines, storing: Storing) -> None:
        self._study = study
        self._spec = study.spec
        self._progress = progress
        self._adopted = study.adopt()
        self._storing = storing
        self._end: str | None = None
        self._polled_s = 0.0

    @property
    def ended_by(self) -> str:
        """Why no trial runs any more, in words."""
        if self._end:
            return self._end
        left = self._study.record().count("RUNNING")
        return f"interrupted with {left} trials running" if left else "all trials done"

    def next_trial(self) -> tuple[int, Parameters] | None:
        """First what a dead driver left running, then new proposals while the budget lasts."""
        self._settle()
        if self._adopted:
            number, parameters = self._adopted.pop(0)
            self._progress.line(f"trial {number} goes on")
            return number, parameters
        started = self._study.record().count("RUNNING", "COMPLETE", "PRUNED", "FAIL")
        if self._end or started >= self._spec.budget.trials:
            return None
        self._wait_for_what_was_learnt()
        number, parameters = self._study.ask()
        self._progress.started(number, parameters)
        return number, parameters

    def on_epoch(self, number: int, record: EpochRecord, node: str) -> bool:
        """Keeps the epoch, then lets divergence, the plan and the early-stopping rule speak."""
        if not self._study.is_open(number):
            return False  # a worker that died just after its trial's end made Ray Tune retry it
        if record.epoch == 1:
            self._study.record_node(number, node)
        self._study.record_epoch(number, record)
        search = self._study.record()
        trial = search.trials[number]
        self._progress.epoch(search, trial, record)
        if is_diverged(record.metrics["val_mae"]):
            self.on_end(number, ExitReason.DIVERGED, f"in epoch {record.epoch}")
            return False
        last = self._spec.budget.epochs
        if record.epoch >= last:
            best = trial.best_epoch or record
            self._storing.add(number, {record.checkpoint_key, best.checkpoint_key})
            return False  # complete as soon as these are stored; its worker is free already
        others = [t.curve for t in search.trials if t.number != number]
        curve = {epoch: v for epoch, v in trial.curve.items() if epoch <= record.epoch}
        if should_stop(self._spec.stopping, curve, others, last):
            detail = f"after epoch {record.epoch} of {last} by rule {self._spec.stopping.rule!r}"
            self.on_end(number, ExitReason.STOPPED_EARLY, detail)
            return False
        return True

    def on_note(self, number: int, text: str) -> None:
        self._progress.line(f"trial {number:>3} {text}")

    def on_end(self, number: int, reason: ExitReason, detail: str | None) -> None:
        if not self._study.is_open(number):
            return
        self._study.finish(number, reason, detail)
        self._progress.ended(self._study.record(), number, FATES[reason].meaning, detail)

    def ask_to_end(self, why: str) -> None:
        self._end = self._end or why

    def must_end(self) -> bool:
        """Whether running trials must stop now: asked to, or a budget used up."""
        self._settle()
        now = time.monotonic()
        if self._end is None and now - self._polled_s >= POLL_S:
            self._polled_s = now
            if self._study.stop_wanted():
                self.ask_to_end("stopped by its user")
            elif why := ended_by(self._spec.budget, _usage(self._study.record())):
                self.ask_to_end(why)
        return self._end is not None

    def has_lost_checkpoints(self) -> bool:
        """To be asked when no worker is left: whether trials must run again for a checkpoint that
        did not arrive. They are next."""
        self._storing.wait(SETTLE_S)
        self._settle(patience_s=0.0)
        return bool(self._adopted) and self._end is None

    def _settle(self, patience_s: float = PATIENCE_S) -> None:
        """Completes trials whose checkpoints have arrived; runs again those whose never will."""
        for number in self._storing.arrived():
            self.on_end(number, ExitReason.COMPLETED, None)
        for number, is_worth_it in self._storing.overdue(patience_s):
            if is_worth_it:
                self._progress.line(f"trial {number:>3} runs again: its last checkpoint is lost")
                self._adopted.append((number, self._study.trial(number).parameters))
            else:
                self.on_end(number, ExitReason.CRASHED, "its last checkpoint cannot be stored")

    def _wait_for_what_was_learnt(self) -> None:
        """Keeps a search repeatable that trains one trial at a time: its next proposal sees the
        trial before it. With several at a time the clock decides anyway, and nothing waits."""
        sampler, search = self._spec.sampler, self._study.record()
        learns = sampler.name != "random" and len(search.trials) >= sampler.startup_trials
        if learns and search.count("RUNNING") == self._storing.waiting():
            self._storing.wait(PATIENCE_S)
            self._settle()


def _usage(search: SearchRecord) -> Usage:
    best = search.best(("COMPLETE", "RUNNING", "PRUNED"))
    started = search.count("RUNNING", "COMPLETE", "PRUNED", "FAIL")
    minutes = (now_ms() - search.created_ms) / 60_000
    return Usage(started, search.gpu_hours(now_ms()), minutes, best.value if best else None)


def drive(name: str, spec: SearchSpec, settings: Settings) -> SearchRecord:
    """Runs a search to its end on the cluster of ``settings``, or goes on with it.

    Raises:
        UserError: a server that is needed cannot be reached, or the data set is missing.
    """
    objects = Objects(settings)
    objects.check(settings.s3_bucket)
    fingerprint = fingerprint_of(spec.data.train, objects)
    with Storage(settings.require("study_url")) as storage:
        study = storage.create(name, spec, fingerprint)
        projection = Projection(storage.open(name), MlflowRuns(settings, objects))
        _run(study, settings, projection)
        return study.record()


def _run(study: Study, settings: Settings, projection: Projection) -> None:
    # Ray reads its environment when it is imported.
    os.environ.update(settings.client_environment())
    from tuning import ray_tune  # noqa: PLC0415

    ray_tune.connect(settings.require("ray_address"), namespace=f"hopetune-{study.name}")
    progress = ProgressLines()
    gpus, parallel = _placement(study.spec, ray_tune.gpus_of_cluster(), progress)
    driver = Driver(study, progress, Storing(_looks_into_the_store(settings)))
    signal.signal(signal.SIGTERM, _asks_to_end(driver))
    projection.start()
    try:
        ray_tune.run_trials(driver, study.spec, gpus, parallel)
        while driver.has_lost_checkpoints():
            ray_tune.run_trials(driver, study.spec, gpus, parallel)
        # Not where an exception passes: such a search has not ended, its next driver goes on.
        why = driver.ended_by
        study.finish_running(ExitReason.SEARCH_ENDED, why)
        study.end(why)
    finally:
        projection.finish()
    progress.search_ended(study.record())


def _looks_into_the_store(settings: Settings) -> Callable[[str], bool]:
    objects, root = Objects(settings), checkpoints(settings)
    return lambda key: objects.exists(root / key / MANIFEST)


def _placement(spec: SearchSpec, available: float, progress: ProgressLines) -> tuple[float, int]:
    """GPUs for each trial, and how many trials run at a time on a cluster of ``available`` GPUs."""
    wanted = spec.resources.gpus_per_trial
    if wanted and not available:
        progress.line("NOTICE: the cluster offers no GPU; trials run on CPUs")
        return 0.0, spec.resources.parallel_trials or 1
    if wanted > available:
        rule = f"the cluster has {available:g}"
        raise UserError("resources.gpus_per_trial", "more than there are", got=wanted, rule=rule)
    at_a_time = int(available / wanted) if wanted else 1
    return wanted, spec.resources.parallel_trials or at_a_time


def _asks_to_end(driver: Driver) -> Callable[[int, FrameType | None], None]:
    def handler(_signal: int, _frame: FrameType | None) -> None:
        driver.ask_to_end("stopped by SIGTERM")

    return handler


def main() -> int:
    """Entry of the Ray job."""
    parser = argparse.ArgumentParser(description="Drives one search.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--name", required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    try:
        drive(arguments.name, load_spec(arguments.file), load_settings())
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
