"""Training a network, one epoch at a time.

What an epoch does follows from the configuration, the number of the epoch, and the weights and
Adam's averages after the epoch before; from nothing else. All randomness of epoch e comes from
generators seeded by (seed, e), so a training that was stored and loaded goes on bit for bit as if
nothing had happened (on a CPU, with the same number of threads).

Letters: N images of a batch, P side of a view in pixels.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from headpose.bins import Binning
from headpose.config import TrainConfig
from headpose.data.augment import Augmentation, Views, draw_views
from headpose.data.prepared import PreparedSet
from headpose.data.render import render
from headpose.data.sources import ImageSource
from headpose.evaluate import PoseErrors, autocast, pose_errors, predict_set
from headpose.loss import headpose_loss
from headpose.networks.network import build_network
from headpose.networks.snapshots import LoadedNetwork, read_weights, weights_file
from headpose.networks.state_dicts import load_strictly
from headpose.optimiser import Optimiser
from headpose.schedule import schedule_of
from headpose.tensor_file import TensorFile
from usererror import UserError

Indices = npt.NDArray[np.int64]

# As many batches as so many images hold, at least four, are rendered at a time: each time costs a
# GPU the same number of launches, and a CPU cold caches (benchmarks/loop.py). Four of 224 px need
# as much memory as a step of ResNet18 in bf16, which comes afterwards (calculated, not measured).
_RENDERED_AT_A_TIME = 256
_FEWEST_BATCHES_AT_A_TIME = 4
# Of more batches than one; in values of stored crops. As floats these take a GB, and operations of
# a GPU that count in 32 bits are far from their end. Untuned.
_LARGEST_PART = 2**28


@dataclass(frozen=True)
class EpochResult:
    """What an epoch gave.

    Attributes:
        epoch: counted from 1.
        train_loss: mean over the epoch's batches; NaN or infinite where it diverged.
        val: errors on the validation images after the epoch.
        seconds: duration, validation included.
        images_per_s: speed of the training part.
    """

    epoch: int
    train_loss: float
    val: PoseErrors
    seconds: float
    images_per_s: float


class Training:
    """One configuration being trained on one device.

    Args:
        config: the settings.
        train: the set to learn from.
        train_index: its rows that are used.
        validation: the set to validate on; may be the same object.
        validation_index: its rows that are used.
        device: where to compute.
        sources: the images of both sets on the device; None = made for this training. Trainings
            one after the other in a process share them, so that a set moves to a GPU once.

    Raises:
        UserError: too few images, sets too coarse for the views, or a network that cannot be built
            or cannot take such views.
    """

    def __init__(
        self,
        config: TrainConfig,
        train: PreparedSet,
        train_index: Indices,
        validation: PreparedSet,
        validation_index: Indices,
        device: torch.device,
        sources: tuple[ImageSource, ImageSource] | None = None,
    ) -> None:
        _check_sizes(train, train_index, validation, validation_index, config.image_px)
        self._config, self._device = config, device
        self._train, self._validation = train, validation
        self._train_index = torch.from_numpy(np.array(train_index))
        self._validation_index = validation_index
        self._binning = Binning(config.bin_width, config.centres)
        self._augmentation = Augmentation(
            config.flip, config.blur, config.rotate_deg, config.crop_jitter, config.rotate_share
        )
        net = build_network(
            config.backbone, self._binning.count, imagenet=config.imagenet, seed=config.seed
        )
        net.require_image_px(config.image_px)
        # Channels last is up to three times faster on CPUs too (MobileNetV2 at 64 px).
        self._net = net.to(device).to(memory_format=torch.channels_last)
        self._optimiser = Optimiser(
            self._net, config.head_learning_rate_factor, config.weight_decay
        )
        self._images, self._validation_images = sources or _sources(train, validation, device)
        self._true_deg = torch.from_numpy(np.array(train.angles_deg))
        self._validation_true_deg = np.array(validation.angles_deg)[validation_index]

    def run_epoch(
        self,
        epoch: int,
        validating: AbstractContextManager[object] | None = None,
    ) -> EpochResult:
        """Train one epoch and validate, within ``validating`` where it is given.

        Epochs count from 1 and are run in order. From the beginning of the validation to the next
        epoch :meth:`files` gives the state after this one.

        Raises:
            UserError: ``epoch`` is below 1.
        """
        began = time.perf_counter()
        schedule = schedule_of(self._config, epoch)
        self._net.set_stem_frozen(schedule.stem_frozen)
        self._optimiser.set_learning_rate(schedule.learning_rate)
        with _seeded(self._device, _stream_seed(self._config.seed, epoch, "dropout")):
            train_loss, images = self._train_epoch(epoch)
        trained = time.perf_counter()
        with validating or contextlib.nullcontext():
            val = self._validate()
        return EpochResult(
            epoch=epoch,
            train_loss=train_loss,
            val=val,
            seconds=time.perf_counter() - began,
            images_per_s=images / (trained - began),
        )

    def network(self) -> LoadedNetwork:
        """The network as it is now, with what it takes to use it; not a copy."""
        return LoadedNetwork(self._net, self._binning, self._config.image_px)

    def files(self) -> tuple[TensorFile, TensorFile]:
        """Weights and Adam's averages as files: what it takes to go on.

        On a CPU they are no copies, so they must be written before the next epoch is run. Another
        thread may do so while the network is validated; on a GPU, too, it waits only for what was
        asked of that before.
        """
        with _beside(self._device):
            return weights_file(self.network()), TensorFile(self._optimiser.state())

    def weights(self) -> dict[str, Tensor]:
        """A copy of the network's state on the CPU."""
        return {
            name: value.detach().to("cpu", copy=True)
            for name, value in self._net.state_dict().items()
        }

    def optimiser_state(self) -> dict[str, Tensor]:
        """A copy of Adam's averages, see :meth:`headpose.optimiser.Optimiser.state`."""
        return {name: value.clone() for name, value in self._optimiser.state().items()}

    def load(self, weights: Mapping[str, Tensor], optimiser_state: Mapping[str, Tensor]) -> None:
        """Go on from an earlier state, which :meth:`weights` and :meth:`optimiser_state` gave.

        Raises:
            UserError: the state does not fit this configuration.
        """
        load_strictly(self._net, weights, "checkpoint")
        self._optimiser.load(optimiser_state)

    def load_file(self, weights_file: bytes, optimiser_state: Mapping[str, Tensor]) -> None:
        """As :meth:`load`, from the content of a weights file.

        Raises:
            UserError: the file is damaged, or the state does not fit this configuration.
        """
        stored = read_weights(weights_file, "checkpoint")
        expected = (self._config.backbone, self._binning, self._config.image_px)
        found = (stored.backbone, stored.binning, stored.image_px)
        if found != expected:
            raise UserError(
                "checkpoint", "belongs to another network", got=found, rule=f"expected {expected}"
            )
        self.load(stored.state, optimiser_state)

    def _train_epoch(self, epoch: int) -> tuple[float, int]:
        """Mean loss and number of images used."""
        order = self._order(epoch)
        generator = _generator(self._config.seed, epoch, "augmentation")
        views = draw_views(
            self._true_deg[order], self._train.view_fraction, self._augmentation, generator
        )
        views = views.on(self._device)
        self._net.train()
        size = min(self._config.batch_size, len(order))
        count = len(order) // size
        whole = slice(0, count * size)
        batches = self._batches(order[whole], views.of(whole), size)
        losses = [self._step(seen, true_deg) for seen, true_deg in batches]
        return _sum(losses) / count, count * size

    def _batches(self, rows: Tensor, views: Views, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Views (N, 3, P, P) and their labels (N, 3), one batch after the other."""
        room = _LARGEST_PART // (size * self._train.images_u8[0].size)
        wanted = max(_FEWEST_BATCHES_AT_A_TIME, _RENDERED_AT_A_TIME // size)
        at_a_time = size * max(1, min(room, wanted))
        first = size if self._images.gathers_ahead else at_a_time
        parts = _parts(len(rows), first, at_a_time)
        images = self._images.batches(rows[part] for part in parts)
        for part, images_u8 in zip(parts, images, strict=True):
            seen = render(images_u8, views.of(part), self._config.image_px)
            true_deg = views.angles_deg[part]
            yield from zip(torch.split(seen, size), torch.split(true_deg, size), strict=True)

    def _step(self, seen: Tensor, true_deg: Tensor) -> Tensor:
        """One step of Adam; returns the loss without waiting for the device."""
        self._optimiser.zero_grad()
        with autocast(self._device, self._config.precision):
            logits = self._net(seen)
        loss = headpose_loss(logits, true_deg, self._binning, self._config.alpha)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return loss.detach()

    def _order(self, epoch: int) -> Tensor:
        """The training rows in the order of this epoch."""
        generator = _generator(self._config.seed, epoch, "order")
        return self._train_index[torch.randperm(len(self._train_index), generator=generator)]

    def _validate(self) -> PoseErrors:
        predicted_deg = predict_set(
            self._net,
            self._binning,
            self._validation,
            self._validation_index,
            self._config.image_px,
            self._device,
            precision=self._config.precision,
            source=self._validation_images,
        )
        return pose_errors(predicted_deg, self._validation_true_deg)


def _parts(count: int, first: int, most: int) -> list[slice]:
    """Rows rendered at a time: from ``first`` on twice as many each time, up to ``most``. A device
    that would wait for all rows of a large first part to be gathered begins with a small one."""
    parts, start, size = [], 0, first
    while start < count:
        parts.append(slice(start, min(start + size, count)))
        start, size = start + size, min(2 * size, most)
    return parts


def _sum(losses: list[Tensor]) -> float:
    """One after the other, in float32 as they are; from a GPU they come together, once."""
    with np.errstate(all="ignore"):  # those of a diverged training
        return float(np.add.accumulate(torch.stack(losses).cpu().numpy())[-1])


def _sources(
    train: PreparedSet, validation: PreparedSet, device: torch.device
) -> tuple[ImageSource, ImageSource]:
    images = ImageSource(train, device)
    return images, images if validation is train else ImageSource(validation, device)


def _check_sizes(
    train: PreparedSet,
    train_index: Indices,
    validation: PreparedSet,
    validation_index: Indices,
    image_px: int,
) -> None:
    for prepared, index, least, use in (
        (train, train_index, 2, "training"),
        (validation, validation_index, 1, "validation"),
    ):
        prepared.require_view_px(image_px)
        if len(index) < least:
            raise UserError(
                str(prepared.folder),
                f"too few images for {use}",
                got=len(index),
                rule=f"at least {least}",
                remedy="use a larger data set or another validation fraction",
            )


def _stream_seed(seed: int, epoch: int, stream: str) -> int:
    """Independent seeds for each use in each epoch."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _generator(seed: int, epoch: int, stream: str) -> torch.Generator:
    return torch.Generator().manual_seed(_stream_seed(seed, epoch, stream))


def _beside(device: torch.device) -> AbstractContextManager[object]:
    """What is copied within from a GPU waits for nothing that is launched meanwhile."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    return torch.cuda.stream(stream)


@contextlib.contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the global generators, which dropout draws from, and put them back afterwards."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed(seed)
        yield
