"""What a trial has trained, taken out of the store and tried on a set."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cluster.settings import Settings
from headpose.data.prepared import PreparedSet
from headpose.evaluate import predict_set
from headpose.networks.snapshots import load_weights
from tuning.manifest import DamagedCheckpointError, weights_place
from tuning.objects import AbsentObjectError, Objects
from tuning.places import checkpoints
from tuning.records import TrialRecord
from usererror import UserError


def fetch_weights(trial: TrialRecord, settings: Settings, objects: Objects, folder: Path) -> Path:
    """The weights of a trial's best validation epoch, as a file in ``folder``.

    Raises:
        UserError: the trial has no checkpoint, or it was collected.
    """
    best = trial.best_epoch
    if best is None:
        raise UserError(f"trial {trial.number}", "has no checkpoint")
    path = folder / "weights.safetensors"
    root = checkpoints(settings)
    try:
        objects.download(weights_place(objects, root, best.checkpoint_key), path)
    except (AbsentObjectError, DamagedCheckpointError) as error:
        where = str(root / best.checkpoint_key)
        what = "the weights are not there (any more)"
        rule = "an ended search keeps those of its best trials, see `checkpoints.keep_top`"
        raise UserError(where, what, got=str(error), rule=rule) from None
    return path


def predict_test(weights: Path, test: PreparedSet) -> NDArray[np.floating]:
    """(N, 3) yaw, pitch, roll in degrees of a whole set, as the network of a weights file says."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_weights(weights)
    found = predict_set(loaded.net, loaded.binning, test, None, loaded.image_px, device)
    return np.asarray(found)
