"""A data pipeline as the published head-pose trainers have it, to compare with.

For every image, in every epoch: decode the jpg, read the .mat for the landmarks and again for the
pose, cut the box by the landmarks with a random looseness, flip, blur, resize to 240, cut 224 at
random, to a normalised tensor; batches are put together from a list. Written anew after
``code/datasets.py`` and ``code/train_hopenet.py`` of github.com/natanielruiz/deep-head-pose.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import scipy.io
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms

# The loader processes of Hopenet's trainer.
PUBLISHED_WORKERS = 2

_Batch = TypeVar("_Batch")

_FEWEST_TIMED = 30  # untuned, as is the next
_TIMED_WAVES = 10

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def batches_needed(workers: int) -> tuple[int, int]:
    """How many batches :func:`batches_per_s` lets pass, and how many it times: whole waves, as
    loaders that began together deliver together."""
    timed = max(_FEWEST_TIMED, _TIMED_WAVES * workers)
    return 2 * workers, -(-timed // workers) * workers


def batches_per_s(
    batches: Iterable[_Batch],
    step: Callable[[_Batch], None],
    workers: int,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """The pace of steps that loaders feed, once each loader has delivered twice.

    Args:
        batches: at least as many as :func:`batches_needed` says in all.
        step: what is done with each.
        workers: loaders that take turns, at least one.
        clock: in seconds; waits for what the steps have left to a GPU.
    """
    before, timed = batches_needed(workers)
    coming = iter(batches)
    for batch in itertools.islice(coming, before):
        step(batch)
    began, steps = clock(), 0
    for batch in itertools.islice(coming, timed):
        step(batch)
        steps += 1
    if steps < timed:
        raise ValueError(f"{before + steps} batches where {before + timed} are needed")
    return timed / (clock() - began)


class PilDataset(torch.utils.data.Dataset[tuple[Tensor, Tensor, Tensor]]):
    """300W-LP, picture by picture."""

    def __init__(self, root: Path, image_px: int, seed: int = 0) -> None:
        self._stems = sorted(path.with_suffix("") for path in root.rglob("*.jpg"))
        self._rng = np.random.default_rng(seed)
        self._transform = transforms.Compose(
            [
                transforms.Resize(round(image_px * 240 / 224)),
                transforms.RandomCrop(image_px),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self._stems)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """(3, P, P) float32, (3,) bin labels, (3,) degrees."""
        stem = self._stems[index]
        image = Image.open(f"{stem}.jpg").convert("RGB")
        x, y = scipy.io.loadmat(f"{stem}.mat")["pt2d"]
        k = self._rng.random() * 0.2 + 0.2
        x_min, y_min, x_max, y_max = min(x), min(y), max(x), max(y)
        x_min -= 0.6 * k * abs(x_max - x_min)
        y_min -= 2 * k * abs(y_max - y_min)
        x_max += 0.6 * k * abs(x_max - x_min)
        y_max += 0.6 * k * abs(y_max - y_min)
        image = image.crop((int(x_min), int(y_min), int(x_max), int(y_max)))
        pitch, yaw, roll = np.rad2deg(scipy.io.loadmat(f"{stem}.mat")["Pose_Para"][0][:3])
        if self._rng.random() < 0.5:
            yaw, roll = -yaw, -roll
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self._rng.random() < 0.05:
            image = image.filter(ImageFilter.BLUR)
        degrees = np.array([yaw, pitch, roll])
        labels = np.digitize(degrees, np.arange(-99, 102, 3)) - 1
        return (
            self._transform(image),
            torch.from_numpy(labels),
            torch.tensor(degrees, dtype=torch.float32),
        )

    def batches(
        self, size: int, workers: int, count: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """A shuffled epoch through PyTorch's loader, or ``count`` batches of as many epochs as it
        takes by the same loaders; ``workers`` 0 = in this process."""
        order = torch.utils.data.RandomSampler(self, num_samples=count and count * size)
        loader = torch.utils.data.DataLoader(
            self, size, sampler=order, drop_last=True, num_workers=workers
        )
        yield from loader
