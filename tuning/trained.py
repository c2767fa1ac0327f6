"""What a trial has trained, taken out of the store and tried on a set."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cluster.settings import Settings
from headpose.data.prepared import PreparedSet
from headpose.evaluate import PoseErrors, pose_errors, predict_set
from headpose.networks.snapshots import load_weights
from tuning.datasets import open_set
from tuning.manifest import DamagedCheckpointError, read_manifest
from tuning.objects import AbsentObjectError, Objects, Place
from tuning.places import checkpoints, data_cache
from tuning.records import SearchRecord, TrialRecord
from usererror import UserError


def fetch_weights(
    trial: TrialRecord, settings: Settings, objects: Objects, folder: Path
) -> tuple[Path, str]:
    """The weights of a trial's best validation epoch, as a file in ``folder``, and the key of their
    checkpoint. Those of a later and better one may never have arrived where the trial was complete
    and its search extended: then the best of before.

    Raises:
        UserError: the trial has no checkpoint, it was collected, or it is not what was written.
    """
    if trial.best_epoch is None:
        raise UserError(f"trial {trial.number}", "has no checkpoint")
    path, absent = folder / "weights.safetensors", ""
    for best in trial.best_epochs:
        try:
            _fetch(trial.number, best.checkpoint_key, checkpoints(settings), objects, path)
        except AbsentObjectError as error:
            absent = str(error)
        else:
            return path, best.checkpoint_key
    what = "the weights are not there (any more)"
    rule = "those of complete trials stay, and those of the best, see `checkpoints.keep_top`"
    place = checkpoints(settings) / trial.best_epoch.checkpoint_key
    raise UserError(str(place), what, got=absent, rule=rule)


def _fetch(number: int, key: str, root: Place, objects: Objects, path: Path) -> None:
    """The weights of one checkpoint, checked.

    Raises:
        AbsentObjectError: they are not there.
        UserError: they are not what was written.
    """
    place = root / key
    try:
        manifest = read_manifest(objects, root, key)
        if manifest is None:
            raise AbsentObjectError(str(place))
        file = manifest.parts["weights"]
        objects.download(place / file.name, path)
        file.check(path.read_bytes())
    except DamagedCheckpointError as error:
        remedy = (
            f"take another trial, or put there what lies among the artifacts of trial "
            f"{number}'s run in MLflow, if that is whole"
        )
        raise UserError(str(place), "is damaged", got=str(error), remedy=remedy) from None


def place_of_test_set(search: SearchRecord) -> str:
    """Where the test set of a search lies.

    Raises:
        UserError: it names none.
    """
    if search.spec.data.test is None:
        rule = "a search keeps the file that it was begun with"
        remedy = (
            "begin another search whose file names one: of what both share, nothing is trained "
            "again that is still stored"
        )
        raise UserError(f"{search.name}: data.test", "no test set", rule=rule, remedy=remedy)
    return search.spec.data.test


def predict_test(weights: Path, test: PreparedSet) -> NDArray[np.floating]:
    """(N, 3) yaw, pitch, roll in degrees of a whole set, as the network of a weights file says."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_weights(weights)
    found = predict_set(loaded.net, loaded.binning, test, None, loaded.image_px, device)
    return np.asarray(found)


def errors_on_test(
    search: SearchRecord, settings: Settings, tell: Callable[[str], None]
) -> dict[int, PoseErrors]:
    """Errors on the search's test set by the number of each completed trial.

    A trial whose checkpoint was collected is left out, and told of.

    Raises:
        UserError: the search names no test set, or a server cannot be reached.
    """
    place = place_of_test_set(search)
    objects = Objects(settings)
    objects.check(settings.s3_bucket)
    test = open_set(place, data_cache(settings), objects)
    found = {}
    for trial in search.trials:
        if not trial.is_complete:
            continue
        tell(f"evaluating trial {trial.number} on {len(test)} test images")
        try:
            with tempfile.TemporaryDirectory(prefix="hopetune-report-") as scratch:
                weights, _ = fetch_weights(trial, settings, objects, Path(scratch))
                predicted = predict_test(weights, test)
        except UserError as error:
            tell(f"trial {trial.number} is left out: {error}")
            continue
        found[trial.number] = pose_errors(predicted, test.angles_deg)
    return found
