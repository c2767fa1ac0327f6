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
from tuning.checkpoints import CheckpointStore, Metrics, Snapshot
from tuning.prefix import DataIdentity, prefix_keys

log = logging.getLogger(__name__)

OBJECTIVE = "val_mae"


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

    A report says that an epoch is trained; its checkpoint may still be on its way, that of the last
    one too. ``images`` are those of ``data`` where they are already at hand; ``trained_epochs``
    says up to which epoch the trial is known to be trained, by whichever worker.

    Yields:
        One report for each epoch from 1, those that need no training any more included. A report
        whose ``val_mae`` is NaN or infinite is the last one.

    Raises:
        UserError: a configuration that cannot be trained, or a storage that stayed away too long.
        torch.OutOfMemoryError: it does not fit into the GPU's memory.
    """
    identity = DataIdentity(data.fingerprint, plan.validation_fraction, plan.split_seed)
    keys = prefix_keys(plan.config, identity, plan.epochs)
    history: list[Metrics] = []
    found = checkpoints.longest(keys, trained_epochs)
    if found:
        history = list(found[0].history)
        for epoch, metrics in enumerate(history, start=1):
            yield EpochReport(epoch, metrics, keys[epoch - 1], restored=True)
    if len(history) == plan.epochs:
        return

    training = _training(plan, data, device, images)
    if found:
        training.load_file(found[1].weights_file, found[1].optimiser)
    for epoch in range(len(history) + 1, plan.epochs + 1):
        metrics = _metrics(training.run_epoch(epoch))
        key = keys[epoch - 1]
        if math.isfinite(metrics[OBJECTIVE]):
            history.append(metrics)
            checkpoints.check(keys)
            checkpoints.save(key, history, _snapshot(training))
        yield EpochReport(epoch, metrics, key, restored=False)
        if not math.isfinite(metrics[OBJECTIVE]):
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
