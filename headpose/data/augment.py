"""What the network sees: random views for training, the central view for everything else.

A view is one affine resampling of a stored crop: moved, scaled, turned and mirrored at once. The
parameters of a whole epoch are drawn in one go, labels included; a step only resamples.

Letters: N images, S side of the stored crops, P side of a view, both in pixels.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from headpose.angles import mirror, turn_clockwise, within_limit

# Normalisation of all torchvision weights, of pixels scaled to [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Hopenet blurs with PIL's BLUR, a ring with a standard deviation of 1.66 px, on crops of about
# 300 px of a side.
_BLUR_SIGMA_OF_SIDE = 1.66 / 300

# Of crops as floats that a core resamples at a time. Measured from 64 to 224 px with 1 MiB of cache
# a core, where half or twice as much took up to a fifth longer.
_CACHED_BYTES = 1_000_000


@dataclass(frozen=True)
class Augmentation:
    """How views vary; the fields are those of ``headpose.config.TrainConfig``."""

    flip: float = 0.0
    blur: float = 0.0
    rotate_deg: float = 0.0
    crop_jitter: float = 0.0
    rotate_share: float = 1.0


@dataclass(frozen=True)
class Views:
    """Views of N images.

    Attributes:
        thetas: (N, 2, 3) float32, from view to stored coordinates, both within [−1, 1] from edge
            to edge, x to the right and y down; as ``torch.nn.functional.affine_grid`` takes them.
        angles_deg: (N, 3) float32 yaw, pitch, roll of what the views show.
        blurred: (N,) bool, on the CPU.
        view_fraction: share of the stored side that an unscaled view covers.
    """

    thetas: Tensor
    angles_deg: Tensor
    blurred: Tensor
    view_fraction: float

    def of(self, index: slice) -> "Views":
        """The views of some of the images."""
        return replace(
            self,
            thetas=self.thetas[index],
            angles_deg=self.angles_deg[index],
            blurred=self.blurred[index],
        )

    def on(self, device: torch.device) -> "Views":
        """The views with what a device computes with on it; which are blurred stays on the CPU,
        where looking at it waits for nothing."""
        return replace(self, thetas=self.thetas.to(device), angles_deg=self.angles_deg.to(device))


def draw_views(
    angles_deg: Tensor, view_fraction: float, augmentation: Augmentation, generator: Generator
) -> Views:
    """Draw a random view of each image, on the CPU.

    The view is moved and scaled, its content turned about its centre, and mirrored last. A turn
    that would lead the label beyond ±99° is left out for that image.

    Args:
        angles_deg: (N, 3) yaw, pitch, roll of the stored crops.
        view_fraction: share of the stored side that an unscaled view covers.
        augmentation: how much.
        generator: the only source of randomness.
    """
    count = len(angles_deg)
    # One row a property, always drawn: switching one off changes no other.
    unit = torch.rand(6, count, generator=generator)
    jitter = augmentation.crop_jitter
    scale = 1 + jitter * (2 * unit[0] - 1)
    shift = jitter * (2 * unit[1:3] - 1)
    turn_deg = augmentation.rotate_deg * (2 * unit[3] - 1)
    flipped = unit[4] < augmentation.flip
    blurred = unit[5] < augmentation.blur
    # Drawn after the others, for it came later: what they draw stays as it was.
    chosen = torch.rand(count, generator=generator) < augmentation.rotate_share
    turn_deg = torch.where(chosen, turn_deg, 0.0)

    turned_deg = turn_clockwise(angles_deg, turn_deg)
    keeps_label = within_limit(turned_deg)
    turn_deg = torch.where(keeps_label, turn_deg, 0.0)
    # Without a turn the label stays as it is, to the last bit.
    is_turned = (keeps_label & (turn_deg != 0))[:, None]
    labels_deg = torch.where(is_turned, turned_deg, angles_deg)
    labels_deg = torch.where(flipped[:, None], mirror(labels_deg), labels_deg)
    thetas = _thetas(view_fraction, scale, shift, turn_deg, flipped)
    return Views(thetas, labels_deg, blurred, view_fraction)


def central_views(angles_deg: Tensor, view_fraction: float) -> Views:
    """The view of each image at test time: nothing moved, turned, mirrored or blurred."""
    count = len(angles_deg)
    zeros = torch.zeros(count)
    thetas = _thetas(
        view_fraction, torch.ones(count), torch.zeros(2, count), zeros, zeros.to(torch.bool)
    )
    return Views(thetas, angles_deg, zeros.to(torch.bool), view_fraction)


def _thetas(
    view_fraction: float, scale: Tensor, shift: Tensor, turn_deg: Tensor, flipped: Tensor
) -> Tensor:
    """(N, 2, 3) maps from view to stored coordinates.

    Content turned clockwise by a (y down) lies at view position R(a)·p for stored position p, so
    the map from view to stored is R(−a). Shifts are shares of the view's side, which is 2 units.
    """
    radians = torch.deg2rad(turn_deg)
    cos, sin = view_fraction * scale * radians.cos(), view_fraction * scale * radians.sin()
    sign = torch.where(flipped, -1.0, 1.0)  # mirrored last, so undone first: acts on view x
    move = 2 * view_fraction * shift
    rows = (torch.stack((sign * cos, sin, move[0])), torch.stack((-sign * sin, cos, move[1])))
    return torch.stack(rows).permute(2, 0, 1).contiguous()


def render(images_u8: Tensor, views: Views, image_px: int) -> Tensor:
    """Resample stored crops into views, on the device of the crops.

    Args:
        images_u8: (N, S, S, 3) uint8.
        views: of the same N images; may lie on the CPU.
        image_px: P.

    Returns:
        (N, 3, P, P) float32, channels last, normalised for ImageNet weights; black beyond the
        stored crop.
    """
    shape = (len(images_u8), 3, image_px, image_px)
    seen = torch.empty(shape, device=images_u8.device, memory_format=torch.channels_last)
    for part in _parts(images_u8):
        seen[part] = _normalised(_resampled(images_u8[part], views.of(part), image_px))
    return seen


def _parts(images_u8: Tensor) -> list[slice]:
    """All images at once on a GPU; on a CPU so few that each step finds in a core's cache what the
    one before it wrote, which halves the time at 224 px. A view does not depend on its part."""
    count = len(images_u8)
    if images_u8.device.type == "cpu":
        float_bytes = 4 * images_u8.shape[1:].numel()
        count = math.ceil(_CACHED_BYTES / float_bytes) * torch.get_num_threads()
    return [slice(start, start + count) for start in range(0, len(images_u8), count)]


def _resampled(images_u8: Tensor, views: Views, image_px: int) -> Tensor:
    """(N, 3, P, P) of [0, 255], blurred where wanted."""
    device = images_u8.device
    sources = images_u8.permute(0, 3, 1, 2).float()
    # Two points a pixel's distance apart must not skip stored pixels between them.
    reduction = int(sources.shape[-1] * views.view_fraction / image_px)
    if reduction >= 2:
        sources = F.adaptive_avg_pool2d(sources, sources.shape[-1] // reduction)
    grid = _grid(views.thetas.to(device, non_blocking=True), image_px)
    pixels = F.grid_sample(sources, grid, mode="bilinear", align_corners=False)
    blurred = views.blurred.nonzero().flatten()
    if len(blurred):  # looked at on the CPU, so that no step waits for a GPU
        index = blurred.to(device, non_blocking=True)
        pixels[index] = _blur(pixels[index])
    return pixels


def _grid(thetas: Tensor, image_px: int) -> Tensor:
    """(N, P, P, 2) stored coordinates of each view pixel's centre.

    What ``F.affine_grid`` gives without ``align_corners``, to rounding, at a twentieth of its time
    on a CPU: x and y planes by broadcasting instead of a product of matrices for each pixel.
    """
    centres = (2 * torch.arange(image_px, device=thetas.device) + 1) / image_px - 1
    along_x = thetas[:, :, 0:1] * centres  # (N, 2, P)
    along_y = thetas[:, :, 1:2] * centres + thetas[:, :, 2:3]
    return (along_y[:, :, :, None] + along_x[:, :, None, :]).permute(0, 2, 3, 1)


def _normalised(pixels: Tensor) -> Tensor:
    """From [0, 255] to the input of ImageNet weights, in place."""
    scale, shift = _normalisation(pixels.device)
    return pixels.mul_(scale).sub_(shift)


@functools.lru_cache
def _normalisation(device: torch.device) -> tuple[Tensor, Tensor]:
    """(1, 3, 1, 1) factor and subtrahend. Made once: a copy to a GPU waits for all its work."""
    with torch.inference_mode(False):  # for training too, whoever is the first to ask
        mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
        std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
        return (1 / (255 * std)).to(device), (mean / std).to(device)


def _blur(pixels: Tensor) -> Tensor:
    """A Gaussian that is as wide, in shares of the side, as the original's blur. (N, 3, P, P)"""
    sigma = _BLUR_SIGMA_OF_SIDE * pixels.shape[-1]
    radius = max(1, math.ceil(3 * sigma))
    heights = [math.exp(-((x / sigma) ** 2) / 2) for x in range(-radius, radius + 1)]
    total = sum(heights)
    weights = [height / total for height in heights]
    padded = F.pad(pixels, (radius,) * 4, mode="replicate")
    return _weighted(_weighted(padded, weights, dim=3), weights, dim=2)


def _weighted(pixels: Tensor, weights: Sequence[float], dim: int) -> Tensor:
    """Weighted sums of neighbours along a side, which gets shorter by all weights but one. Shifted
    slices, for on a CPU they take a third to a tenth of the time of a convolution."""
    length = pixels.shape[dim] - len(weights) + 1
    sums = pixels.narrow(dim, 0, length) * weights[0]
    for start, weight in enumerate(weights[1:], start=1):
        sums.add_(pixels.narrow(dim, start, length), alpha=weight)
    return sums
