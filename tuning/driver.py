"""The driver of a search: asks the study, lets Ray Tune place the trials, writes down what happens.

It holds no state that the study does not hold: kill it at any moment, start it again under the same
name, and it goes on.

    python -m tuning.driver --name quickstart-1122-0641 quickstart.yaml

Without a file it goes on with the search of that name as the study has it.
"""

import argparse
import contextlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from cluster.settings import Settings, load_settings
from headpose.config import TrainConfig
from tuning.capacity import at_a_time, gpus_of_a_trial
from tuning.collecting import Collecting
from tuning.conductor import Conductor
from tuning.datasets import manifest_of
from tuning.exits import FATES, ExitReason
from tuning.going_on import unfinished
from tuning.initial_weights import require_stored
from tuning.manifest import MANIFEST, DamagedCheckpointError, weights_place
from tuning.mlflow_client import MlflowRuns, registered_checkpoints
from tuning.objects import AbsentObjectError, Objects
from tuning.places import checkpoints
from tuning.progress import ProgressLines
from tuning.projection import Projection
from tuning.records import SearchRecord
from tuning.signals import EndedBySignal, Signals
from tuning.spec import SearchSpec, load_spec
from tuning.storage import Storage
from tuning.storing import Storing
from tuning.study import Study
from usererror import UserError

STUDY_PATIENCE_S = 15 * 60.0
"""How long a driver waits for a study database that is away; untuned."""


def drive(name: str, spec: SearchSpec | None, settings: Settings) -> SearchRecord:
    """Runs a search to its end on the cluster of ``settings``, or goes on with it: without ``spec``
    with the one that the study has, unless it was ended since it was taken up again.

    Raises:
        UserError: a server that is needed cannot be reached or used, the data set is missing or
            too coarse, ImageNet weights are missing, another driver runs this search, no node can
            train, or every trial failed.
        EndedBySignal: SIGTERM or Ctrl-C came; the study is whole.
    """
    objects = Objects(settings)
    objects.check(settings.s3_bucket)
    objects.check_writing(checkpoints(settings))
    progress = ProgressLines()
    with contextlib.ExitStack() as stack:
        storage = stack.enter_context(Storage(settings.require("study_url"), STUDY_PATIENCE_S))
        # Of a driver before this one: whoever asks from here on means this one.
        was_stopped = name in storage.names() and storage.open(name).stop_wanted()
        stack.enter_context(storage.driving(name, progress.line))
        is_taken_up = spec is None  # by somebody who has taken its end back
        spec = spec or storage.open(name).spec
        if is_taken_up and (record := storage.open(name).record()).ended:
            progress.line(f"search {name} was ended before this driver began: nothing is done")
            return record
        require_stored(spec, objects)
        fingerprint = _fingerprint(spec, objects)
        _connect(name, settings)  # before the study: a search that cannot begin leaves nothing
        study = storage.create(name, spec, fingerprint)
        if not is_taken_up and (study.record().ended or was_stopped):
            study.reopen()
        runs = MlflowRuns(settings, objects)
        projection = Projection(storage.open(name), runs)
        try:
            _run(study, storage, settings, projection)
        except Exception:
            if storage.fault is not None:  # Ray Tune hides it in an error of its own
                raise storage.fault from None
            raise
        return study.record()


def _fingerprint(spec: SearchSpec, objects: Objects) -> str:
    """Of the training set, which must be fine enough for the views of the search."""
    data = manifest_of(spec.data.train, objects)
    image_px = spec.fixed.get("image_px", TrainConfig.image_px)
    if isinstance(image_px, int) and "image_px" not in spec.parameters:  # else some trials may do
        data.settings.require_view_px(image_px, spec.data.train)
    return data.fingerprint


def _connect(name: str, settings: Settings) -> None:
    # Ray reads its environment when it is imported.
    settings.enter_environment()
    from tuning import ray_nodes  # noqa: PLC0415

    ray_nodes.connect(settings.require("ray_address"), namespace=f"hopetune-{name}")


def _run(study: Study, storage: Storage, settings: Settings, projection: Projection) -> None:
    from tuning import ray_nodes, ray_tune  # noqa: PLC0415 (Ray: as above)

    progress = ProgressLines()
    gpus = _gpus(study, ray_nodes.gpus(), progress)
    for text in study.earlier():
        progress.line(f"warm start: {text}")
    storing = Storing(_looks_into_the_store(settings), ray_nodes.bring)
    driver = Conductor(study, progress, storing, nodes=lambda: ray_nodes.living(gpus))
    collecting = _collecting(study.name, settings)
    record = study.record()
    if left := _latest_keys(record):
        ray_nodes.bring(left)  # their nodes may get no worker of this driver

    def under_way() -> int:
        """How many trials may be: as many as the cluster has room for now."""
        return at_a_time(study.spec.resources.parallel_trials, gpus, ray_nodes.gpus())

    def run() -> None:
        ray_tune.run_trials(driver, study.spec, record.fingerprint, gpus, under_way)

    def ask(why: str) -> None:
        driver.ask_to_end(why, at_once=True)
        storage.hurry(0.0)

    with Signals(ask) as signals:
        projection.start()
        collecting.start()
        try:
            run()
            while driver.has_lost_checkpoints():
                run()
            # Not where an exception passes: such a search has not ended, its next driver goes on.
            why = driver.ended_by
            study.finish_running(ExitReason.SEARCH_ENDED, why)
            study.end(why)
        except Exception:
            projection.finish()
            raise
        projection.finish()
        progress.search_ended(study.record())
        if signals.received is not None:
            raise EndedBySignal(signals.received)
        collecting.finish()
    if driver.hopeless:
        remedy = f"see `hopetune show {study.name}`; mend that, then resume the search"
        raise UserError(study.name, "the search ended early", got=driver.hopeless, remedy=remedy)
    require_a_success(study.record())


def require_a_success(search: SearchRecord) -> None:
    """Nothing may go on, say in a script, as if a search had a result of which every trial failed.

    Raises:
        UserError: every trial failed.
    """
    over = [trial for trial in search.trials if not trial.is_complete]
    ends = [(trial.exit_reason, trial.detail) for trial in over if trial.exit_reason]
    failed = [end for end in ends if FATES[end[0]].run_status == "FAILED"]
    if failed and len(failed) == len(search.trials):
        reason, detail = failed[-1]
        got = f"{len(failed)} of {len(failed)}, the last one: {detail or FATES[reason].meaning}"
        remedy = f"see `hopetune show {search.name}`"
        raise UserError(search.name, "every trial failed", got=got, remedy=remedy)


def _latest_keys(search: SearchRecord) -> list[str]:
    """The latest checkpoints of trials that go on: a worker or driver that died, or a search that
    was stopped while the store was away, may have left them on a node's disk."""
    going_on = [t for t in search.trials if t.state == "RUNNING"] + unfinished(search)
    return [trial.epochs[-1].checkpoint_key for trial in going_on if trial.epochs]


def _collecting(name: str, settings: Settings) -> Collecting:
    return Collecting(
        lambda: Storage(settings.require("study_url")),
        name,
        Objects(settings),
        checkpoints(settings),
        lambda: registered_checkpoints(settings),
    )


def _looks_into_the_store(settings: Settings) -> Callable[[str, bool], bool]:
    # Impatient: it only looks, and looks again.
    objects = Objects(settings, timeout_s=10.0, attempts=1)
    root = checkpoints(settings)

    def is_stored(key: str, with_weights: bool) -> bool:
        if not with_weights:
            return objects.exists(root / key / MANIFEST)
        try:
            return objects.exists(weights_place(objects, root, key))
        except (AbsentObjectError, DamagedCheckpointError):
            return False

    return is_stored


def _gpus(study: Study, offered: float, progress: ProgressLines) -> float:
    """GPUs for each trial, on a cluster that has ``offered`` now."""
    wanted = study.spec.resources.gpus_per_trial
    gpus = gpus_of_a_trial(wanted, offered, has_had_gpus=study.has_had_gpus)
    if gpus > offered:
        progress.line(
            f"NOTICE: the cluster has {offered:g} GPUs now, a trial asks for {gpus:g}; "
            "this search has trained on GPUs and waits for their return"
        )
    elif gpus:
        study.note_gpus()
    elif wanted:
        progress.line("NOTICE: the cluster offers no GPU; trials run on CPUs")
    return gpus


def main() -> int:
    """Entry of the Ray job."""
    parser = argparse.ArgumentParser(description="Drives one search.")
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--name", required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    try:
        spec = load_spec(arguments.file) if arguments.file else None
        drive(arguments.name, spec, load_settings())
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
