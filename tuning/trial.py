"""One trial, from its configuration to its last epoch.

It runs unchanged in a test, in a terminal and in a Ray worker: it is given data and checkpoints,
yields one report an epoch, and knows nothing of who is behind them. Whoever iterates may stop at
any report.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from headpose.config import TrainConfig
from headpose.data.prepared import PreparedSet
from headpose.data.sources import ImageSource
from headpose.data.split import split_by_photo
from headpose.networks.weight_files import file_of
from headpose.training import EpochResult, Training
from tuning.checkpoints import CheckpointStore
from tuning.initial_weights import content_of
from tuning.manifest import OBJECTIVE, Metrics
from tuning.prefix import DataIdentity, prefix_keys


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
    trained: tuple[int, float] = (0, 0.0),
    imagenet: Path | None = None,
) -> Generator[EpochReport]:
    """Trains a configuration, going on from the longest beginning of its plan that is stored.

    A report says that an epoch is trained and that its checkpoint lies on this node's disk; the way
    to the store may take longer. ``images`` are those of ``data`` where they are already at hand;
    ``trained`` says up to which epoch the trial is known to be trained, by whichever worker, and
    how many seconds that took. ``imagenet``: where this node has the ImageNet weights of the plan,
    if not at the place that it names.

    Yields:
        One report for each epoch from 1, those that need no training any more included. An epoch
        whose state is gone, and which therefore is trained again, is reported again. The report of
        the plan's last epoch comes when the weights of the best one are kept. One whose ``val_mae``
        is NaN or infinite is the last one. Nothing is loaded or trained before an epoch is asked
        for that nobody has trained.

    Raises:
        UserError: a configuration that cannot be trained.
        NotHereError: this node lacks what that needs, or the store refuses its keys.
        DiskFullError: this node's disk has no room for a checkpoint.
        torch.OutOfMemoryError: it does not fit into the GPU's memory.
    """
    identity = DataIdentity(data.fingerprint, plan.validation_fraction, plan.split_seed)
    config = plan.config
    if imagenet is None and config.imagenet is not None:
        imagenet = file_of(config.backbone, config.imagenet)
    weights = content_of(imagenet) if imagenet else None
    keys = prefix_keys(config, identity, plan.epochs, weights)
    course = _Course(keys, checkpoints, trained)
    for epoch in range(1, min(course.epochs, plan.epochs - 1) + 1):
        yield course.stored(epoch)

    def training() -> Training:
        return _training(plan, data, device, images, imagenet)

    if course.epochs == plan.epochs:
        last: EpochReport | None = course.stored(plan.epochs)
    else:
        last = yield from course.train(training, plan.epochs)
    best = course.lost_best() if last else None
    if best is not None:  # collected: it belonged to a search that had no use for it any more
        again = yield from course.train(training, best)
        if again and best < plan.epochs:
            yield again
        last = last if again else None
    if last:
        yield last


class _Course:
    """The epochs of one trial: how many there are already, and how the next ones come about."""

    def __init__(
        self, keys: Sequence[str], checkpoints: CheckpointStore, trained: tuple[int, float]
    ) -> None:
        self._keys, self._checkpoints = keys, checkpoints
        self._found = checkpoints.beginning(keys, *trained)
        self._history = list(self._found.history)
        self._saved: set[int] = set()

    @property
    def epochs(self) -> int:
        """How many epochs have been trained, by whomever."""
        return len(self._history)

    def stored(self, epoch: int) -> EpochReport:
        """The report of an epoch that needs no training."""
        return self._report(epoch, self._history[epoch - 1], restored=True)

    def lost_best(self) -> int | None:
        """The best epoch, where its weights are not kept anywhere."""
        values = [metrics[OBJECTIVE] for metrics in self._history]
        best = 1 + values.index(min(values))
        return None if best in self._saved or self._found.has_weights(best) else best

    def train(
        self, new_training: Callable[[], Training], last: int
    ) -> Generator[EpochReport, None, EpochReport | None]:
        """Trains from the latest state before epoch ``last`` to there.

        Yields:
            A report for each epoch before ``last``, and one that is no number.

        Returns:
            The report of ``last``; none where there was one that is no number.
        """
        training = new_training()
        loaded = self._found.load(before=last)
        if loaded:
            training.load_file(loaded[1].weights_file, loaded[1].optimiser)
        begun = loaded[0] if loaded else 0
        del loaded  # it holds a whole checkpoint
        for epoch in range(begun + 1, last + 1):
            report = self._report(epoch, self._train_epoch(training, epoch), restored=False)
            if not math.isfinite(report.metrics[OBJECTIVE]):
                yield report
                return None
            if epoch < last:
                yield report
        return report

    def _train_epoch(self, training: Training, epoch: int) -> Metrics:
        """Trains an epoch; a new one's checkpoint lies on the disk then, if it is a number."""
        is_new = epoch > len(self._history)
        is_kept = is_new or self._found.lacks(epoch)
        saving = self._checkpoints.saving(training.files) if is_kept else None
        metrics = _metrics(training.run_epoch(epoch, saving))
        is_number = math.isfinite(metrics[OBJECTIVE])
        if is_new and is_number:
            self._history.append(metrics)
        if saving and is_number:
            saving.finish(self._keys[epoch - 1], self._history[:epoch])
            self._saved.add(epoch)
        elif saving:
            saving.discard()
        return metrics

    def _report(self, epoch: int, metrics: Metrics, *, restored: bool) -> EpochReport:
        return EpochReport(epoch, metrics, self._keys[epoch - 1], restored)


def _training(
    plan: TrialPlan,
    data: PreparedSet,
    device: torch.device,
    images: ImageSource | None,
    imagenet: Path | None,
) -> Training:
    train, validation = split_by_photo(data.photos, plan.validation_fraction, plan.split_seed)
    images = images or ImageSource(data, device)
    config = replace(plan.config, imagenet=str(imagenet)) if imagenet else plan.config
    return Training(config, data, train, data, validation, device, (images, images))


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
