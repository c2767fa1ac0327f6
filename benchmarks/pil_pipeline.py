"""A data pipeline as the published head-pose trainers have it, to compare with.

For every image, in every epoch: decode the jpg, read the .mat for the landmarks and again for the
pose, cut the box by the landmarks with a random looseness, flip, blur, resize to 240, cut 224 at
random, to a normalised tensor; batches are put together from a list. Written anew after
``code/datasets.py`` and ``code/train_hopenet.py`` of github.com/natanielruiz/deep-head-pose.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.io
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms

# The loader processes of Hopenet's trainer.
PUBLISHED_WORKERS = 2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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

    def batches(self, size: int, workers: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """A shuffled epoch through PyTorch's loader; ``workers`` 0 = in this process."""
        loader = torch.utils.data.DataLoader(
            self, size, shuffle=True, drop_last=True, num_workers=workers
        )
        yield from loader
