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
from tuning.objects import AbsentObjectError, Objects
from tuning.places import checkpoints, data_cache
from tuning.records import SearchRecord, TrialRecord
from usererror import UserError


def fetch_weights(trial: TrialRecord, settings: Settings, objects: Objects, folder: Path) -> Path:
    """The weights of a trial's best validation epoch, as a file in ``folder``.

    Raises:
        UserError: the trial has no checkpoint, it was collected, or it is not what was written.
    """
    best = trial.best_epoch
    if best is None:
        raise UserError(f"trial {trial.number}", "has no checkpoint")
    path = folder / "weights.safetensors"
    place = checkpoints(settings) / best.checkpoint_key
    try:
        manifest = read_manifest(objects, checkpoints(settings), best.checkpoint_key)
        if manifest is None:
            raise AbsentObjectError(str(place))
        file = manifest.parts["weights"]
        objects.download(place / file.name, path)
        file.check(path.read_bytes())
    except AbsentObjectError as error:
        what = "the weights are not there (any more)"
        rule = "those of complete trials stay, and those of the best, see `checkpoints.keep_top`"
        raise UserError(str(place), what, got=str(error), rule=rule) from None
    except DamagedCheckpointError as error:
        remedy = (
            f"take another trial, or put there what lies among the artifacts of trial "
            f"{trial.number}'s run in MLflow, if that is whole"
        )
        raise UserError(str(place), "is damaged", got=str(error), remedy=remedy) from None
    return path


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
    if search.spec.data.test is None:
        raise UserError(f"{search.name}: data.test", "no test set", remedy="name one in the search")
    objects = Objects(settings)
    objects.check(settings.s3_bucket)
    test = open_set(search.spec.data.test, data_cache(settings), objects)
    found = {}
    for trial in search.trials:
        if not trial.is_complete:
            continue
        tell(f"evaluating trial {trial.number} on {len(test)} test images")
        try:
            with tempfile.TemporaryDirectory(prefix="hopetune-report-") as scratch:
                weights = fetch_weights(trial, settings, objects, Path(scratch))
                predicted = predict_test(weights, test)
        except UserError as error:
            tell(f"trial {trial.number} is left out: {error}")
            continue
        found[trial.number] = pose_errors(predicted, test.angles_deg)
    return found
