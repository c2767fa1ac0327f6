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
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from cluster.settings import Settings, load_settings
from tuning.collecting import Collecting
from tuning.conductor import Conductor
from tuning.datasets import fingerprint_of
from tuning.exits import ExitReason
from tuning.manifest import MANIFEST
from tuning.mlflow_client import MlflowRuns, pointers
from tuning.objects import Objects
from tuning.places import checkpoints
from tuning.progress import ProgressLines
from tuning.projection import Projection
from tuning.records import SearchRecord
from tuning.spec import SearchSpec, load_spec
from tuning.storing import Storing
from tuning.study import Storage, Study
from usererror import UserError

STUDY_PATIENCE_S = 15 * 60.0
"""How long a driver waits for a study database that is away; untuned."""


def drive(name: str, spec: SearchSpec, settings: Settings) -> SearchRecord:
    """Runs a search to its end on the cluster of ``settings``, or goes on with it.

    Raises:
        UserError: a server that is needed cannot be reached, the data set is missing, or another
            driver runs this search.
    """
    objects = Objects(settings)
    objects.check(settings.s3_bucket)
    fingerprint = fingerprint_of(spec.data.train, objects)
    progress = ProgressLines()
    with (
        Storage(settings.require("study_url"), STUDY_PATIENCE_S) as storage,
        storage.driving(name, progress.line),
    ):
        study = storage.create(name, spec, fingerprint)
        projection = Projection(storage.open(name), MlflowRuns(settings, objects))
        try:
            _run(study, settings, projection, progress)
        except Exception:
            if storage.fault is not None:  # Ray Tune hides it in an error of its own
                raise storage.fault from None
            raise
        return study.record()


def _run(study: Study, settings: Settings, projection: Projection, progress: ProgressLines) -> None:
    # Ray reads its environment when it is imported.
    os.environ.update(settings.client_environment())
    from tuning import ray_tune  # noqa: PLC0415

    ray_tune.connect(settings.require("ray_address"), namespace=f"hopetune-{study.name}")
    gpus, parallel = _placement(study.spec, ray_tune.gpus_of_cluster(), progress)
    for text in study.earlier():
        progress.line(f"warm start: {text}")
    storing = Storing(_looks_into_the_store(settings))
    driver = Conductor(study, progress, storing, nodes=ray_tune.living_nodes)
    signal.signal(signal.SIGTERM, _asks_to_end(driver))
    collecting = _collecting(study.name, settings)
    projection.start()
    collecting.start()
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
    collecting.finish()
    if driver.hopeless:
        remedy = f"see `hopetune show {study.name}`; mend the nodes, then resume the search"
        raise UserError(study.name, "the search ended early", got=driver.hopeless, remedy=remedy)


def _collecting(name: str, settings: Settings) -> Collecting:
    return Collecting(
        lambda: Storage(settings.require("study_url")),
        name,
        Objects(settings),
        checkpoints(settings),
        lambda: pointers(settings),
    )


def _looks_into_the_store(settings: Settings) -> Callable[[str], bool]:
    # Impatient: it only looks, and looks again.
    objects = Objects(settings, timeout_s=10.0, attempts=1)
    root = checkpoints(settings)
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


def _asks_to_end(driver: Conductor) -> Callable[[int, FrameType | None], None]:
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
