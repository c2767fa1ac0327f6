"""One trial, from its configuration to its last epoch.

It runs unchanged in a test, in a terminal and in a Ray worker: it is given data and checkpoints,
yields one report an epoch, and knows nothing of who is behind them. Whoever iterates may stop at
any report.
"""

import logging
import math
from collections.abc import Generator
from dataclasses import dataclass

import torch

from headpose.config import TrainConfig
from headpose.data.prepared import PreparedSet
from headpose.data.sources import ImageSource
from headpose.data.split import split_by_photo
from headpose.networks.snapshots import weights_to_bytes
from headpose.training import EpochResult, Training
from tuning.checkpoints import CheckpointStore, Snapshot
from tuning.manifest import OBJECTIVE, Metrics
from tuning.prefix import DataIdentity, prefix_keys

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialPlan:
    """What a trial is going to train: all that decides its result, and nothing else."""

    config: TrainConfig
    epochs: int
    validation_fraction: float
    split_seed: int


@dataclass(frozen=True)
class EpochReport:
    """What is known after an epoch; ``restored`` where it was trained earlier, by whomever."""

    epoch: int
    metrics: Metrics
    checkpoint_key: str
    restored: bool


def train_trial(
    plan: TrialPlan,
    data: PreparedSet,
    checkpoints: CheckpointStore,
    device: torch.device,
    images: ImageSource | None = None,
    trained_epochs: int = 0,
) -> Generator[EpochReport]:
    """Trains a configuration, going on from the longest beginning of its plan that is stored.

    A report says that an epoch is trained and that its checkpoint lies on this node's disk; the way
    to the store may take longer. ``images`` are those of ``data`` where they are already at hand;
    ``trained_epochs`` says up to which epoch the trial is known to be trained, by whichever worker.

    Yields:
        One report for each epoch from 1, those that need no training any more included. A report
        whose ``val_mae`` is NaN or infinite is the last one. Nothing is loaded or trained before an
        epoch is asked for that nobody has trained.

    Raises:
        UserError: a configuration that cannot be trained, or a store that refuses its keys.
        DiskFullError: this node's disk has no room for a checkpoint.
        torch.OutOfMemoryError: it does not fit into the GPU's memory.
    """
    identity = DataIdentity(data.fingerprint, plan.validation_fraction, plan.split_seed)
    keys = prefix_keys(plan.config, identity, plan.epochs)
    found = checkpoints.beginning(keys, trained_epochs)
    history = list(found.history)
    for epoch, metrics in enumerate(history, start=1):
        yield EpochReport(epoch, metrics, keys[epoch - 1], restored=True)
    reported = len(history)
    if reported == plan.epochs:
        return

    training = _training(plan, data, device, images)
    loaded = found.load()
    if loaded:
        training.load_file(loaded[1].weights_file, loaded[1].optimiser)
    begun = loaded[0] if loaded else 0
    del loaded  # it holds a whole checkpoint
    for epoch in range(begun + 1, plan.epochs + 1):
        metrics = _metrics(training.run_epoch(epoch))
        key = keys[epoch - 1]
        finite = math.isfinite(metrics[OBJECTIVE])
        if epoch > reported and finite:
            history.append(metrics)
        if finite and (epoch > reported or found.lacks(epoch)):
            checkpoints.save(key, history[:epoch], _snapshot(training))
        if epoch > reported or not finite:
            yield EpochReport(epoch, metrics, key, restored=False)
        if not finite:
            return


def _training(
    plan: TrialPlan, data: PreparedSet, device: torch.device, images: ImageSource | None
) -> Training:
    train, validation = split_by_photo(data.photos, plan.validation_fraction, plan.split_seed)
    images = images or ImageSource(data, device)
    return Training(plan.config, data, train, data, validation, device, (images, images))


def _snapshot(training: Training) -> Snapshot:
    return Snapshot(weights_to_bytes(training.network()), training.optimiser_state())


def _metrics(result: EpochResult) -> Metrics:
    # A loss that is no number spoils the weights even where the error still looks like one.
    mae = result.val.mae if math.isfinite(result.train_loss) else math.nan
    return {
        **result.val.as_dict("val_"),
        OBJECTIVE: mae,
        "train_loss": result.train_loss,
        "epoch_seconds": result.seconds,
        "images_per_second": result.images_per_s,
    }
