"""Which views are taken: random ones for training, the central one for everything else.

A view is one affine resampling of a stored crop: moved, scaled, turned and mirrored at once. The
parameters of a whole epoch are drawn in one go, labels included; a step only renders
(``headpose.data.render``). Letters: N images.
"""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from headpose.angles import mirror, turn_clockwise, within_limit


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
