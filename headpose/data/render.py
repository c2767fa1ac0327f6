"""What the network sees: views resampled from stored crops, on the device where the crops lie.

On a GPU a batch takes as few launches as possible, for small networks wait for the processor that
launches. A CPU renders a few images at a time, so that each step finds in a core's cache what the
one before it wrote.

Letters: N images, S side of the stored crops, P side of a view, both in pixels.
"""

import functools
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from headpose.data.augment import Views
from headpose.normalisation import IMAGENET_MEAN, IMAGENET_STD

# Hopenet blurs with PIL's BLUR, a ring with a standard deviation of 1.66 px, on crops of about
# 300 px of a side.
_BLUR_SIGMA_OF_SIDE = 1.66 / 300

# Of crops as floats that a core resamples at a time. Measured from 64 to 224 px with 2 MiB of cache
# a core, where half or twice as much took up to 4% longer.
_CACHED_BYTES = 600_000


def render(images_u8: Tensor, views: Views, image_px: int) -> Tensor:
    """Resample stored crops into views.

    Args:
        images_u8: (N, S, S, 3) uint8.
        views: of the same N images; may lie on the CPU.
        image_px: P.

    Returns:
        (N, 3, P, P) float32, channels last, normalised for ImageNet weights; black beyond the
        stored crop.
    """
    device, size = images_u8.device, _part_size(images_u8)
    shape = (len(images_u8), 3, image_px, image_px)
    seen = torch.empty(shape, device=device, memory_format=torch.channels_last)
    along_x, along_y = _lines(views.thetas.to(device, non_blocking=True), image_px)
    # Each part writes over what the one before it wrote.
    floats = torch.empty((size, *images_u8.shape[1:]), device=device)
    grid = torch.empty((size, 2, image_px, image_px), device=device)
    sharp = []
    parts = _split(size, images_u8, along_x, along_y, views.blurred, seen)
    for images, x, y, blurred, out in parts:
        sources = floats[: len(images)].copy_(images)
        points = torch.add(x, y, out=grid[: len(images)])
        pixels = _resampled(sources, points, views.view_fraction)
        rows = blurred.nonzero().flatten()
        if len(rows):  # looked at on the CPU, so that no step waits for a GPU
            sharp.append(pixels.index_select(0, rows.to(device, non_blocking=True)))
        _normalise(pixels, out)
    if sharp:  # gathered over all parts, for few at a time take as many steps as many
        all_rows = views.blurred.nonzero().flatten().to(device, non_blocking=True)
        # A GPU has one part; joining one would be a launch for nothing.
        joined = torch.cat(sharp) if len(sharp) > 1 else sharp[0]
        for rows, pixels in _split(size, all_rows, joined):
            blurry = _blur(pixels)
            _normalise(blurry, blurry)
            seen.index_copy_(0, rows, blurry)
    return seen


def _part_size(images_u8: Tensor) -> int:
    """How many are rendered at a time; a view does not depend on its part."""
    if images_u8.device.type != "cpu":
        return max(1, len(images_u8))
    float_bytes = 4 * images_u8.shape[1:].numel()
    return math.ceil(_CACHED_BYTES / float_bytes) * torch.get_num_threads()


def _split(size: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """So many rows at a time of all tensors."""
    return zip(*(torch.split(tensor, size) for tensor in tensors), strict=True)


def _resampled(sources: Tensor, points: Tensor, view_fraction: float) -> Tensor:
    """(N, 3, P, P) of [0, 255] from crops (N, S, S, 3) at stored coordinates (N, 2, P, P)."""
    sources, side = sources.permute(0, 3, 1, 2), sources.shape[1]
    # Two points a pixel's distance apart must not skip stored pixels between them.
    reduction = int(side * view_fraction / points.shape[-1])
    if reduction >= 2:
        sources = F.adaptive_avg_pool2d(sources, side // reduction)
    return F.grid_sample(sources, points.permute(0, 2, 3, 1), mode="bilinear", align_corners=False)


def _lines(thetas: Tensor, image_px: int) -> tuple[Tensor, Tensor]:
    """(N, 2, 1, P) and (N, 2, P, 1), whose sum is the stored coordinates of each view pixel's
    centre, x and y.

    What ``F.affine_grid`` gives without ``align_corners``, to rounding, at a twentieth of its time
    on a CPU: by broadcasting instead of a product of matrices for each pixel.
    """
    centres = _centres(image_px, thetas.device)
    along_x = thetas[:, :, 0:1] * centres
    along_y = thetas[:, :, 1:2] * centres + thetas[:, :, 2:3]
    return along_x[:, :, None, :], along_y[:, :, :, None]


def _normalise(pixels: Tensor, out: Tensor) -> None:
    """From [0, 255] to the input of ImageNet weights, in the layout of ``out``, which may be
    ``pixels``; on a CPU these change too."""
    scale, shift = _normalisation(pixels.device)
    if pixels.device.type == "cpu":  # where one pass across the layouts takes longer than three
        out.copy_(pixels.mul_(scale).add_(shift))
    else:
        torch.addcmul(shift, pixels, scale, out=out)


def _blur(pixels: Tensor) -> Tensor:
    """A Gaussian that is as wide, in shares of the side, as the original's blur. (N, 3, P, P)"""
    weights = _gaussian(pixels.shape[-1])
    padded = F.pad(pixels, (len(weights) // 2,) * 4, mode="replicate")
    if pixels.device.type == "cpu":
        return _weighted(_weighted(padded, weights, dim=3), weights, dim=2)
    return F.conv2d(padded, _kernel(pixels.shape[-1], pixels.device), groups=3)


def _weighted(pixels: Tensor, weights: Sequence[float], dim: int) -> Tensor:
    """Weighted sums of neighbours along a side, which gets shorter by all weights but one. Shifted
    slices, for on a CPU they take a third to a tenth of the time of a convolution."""
    length = pixels.shape[dim] - len(weights) + 1
    sums = pixels.narrow(dim, 0, length) * weights[0]
    for start, weight in enumerate(weights[1:], start=1):
        sums.add_(pixels.narrow(dim, start, length), alpha=weight)
    return sums


def _gaussian(image_px: int) -> list[float]:
    """The blur's weights along a side, an odd number with the sum 1."""
    sigma = _BLUR_SIGMA_OF_SIDE * image_px
    radius = max(1, math.ceil(3 * sigma))
    heights = [math.exp(-((x / sigma) ** 2) / 2) for x in range(-radius, radius + 1)]
    total = sum(heights)
    return [height / total for height in heights]


# What every batch needs is made once, as a copy to a GPU waits for all its work; and never in
# inference mode, for training uses it too, whoever is the first to ask.


@functools.lru_cache
@torch.inference_mode(False)
def _centres(image_px: int, device: torch.device) -> Tensor:
    """(P,) positions of a view's pixels along a side, which is 2 units about 0."""
    return (2 * torch.arange(image_px, device=device) + 1) / image_px - 1


@functools.lru_cache
@torch.inference_mode(False)
def _normalisation(device: torch.device) -> tuple[Tensor, Tensor]:
    """(1, 3, 1, 1) factor and summand."""
    mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    return (1 / (255 * std)).to(device), (-mean / std).to(device)


@functools.lru_cache
@torch.inference_mode(False)
def _kernel(image_px: int, device: torch.device) -> Tensor:
    """(3, 1, K, K) the blur as a convolution of each colour."""
    weights = torch.tensor(_gaussian(image_px))
    return torch.outer(weights, weights).to(device).repeat(3, 1, 1, 1)
