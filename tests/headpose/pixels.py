"""What tests of views share: seeds, and light instead of normalised colours."""

import torch
from torch import Tensor

from headpose.normalisation import IMAGENET_MEAN, IMAGENET_STD


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def brightness(views: Tensor) -> Tensor:
    """(N, P, P) within [0, 1], of the first channel."""
    return views[:, 0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]
