"""The three axes of a head, drawn on a copy of its picture."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw

from headpose.angles import rotation_matrices
from headpose.data.crops import Box
from usererror import UserError

#: Of the head's own x (toward the image's right when seen from the front), y (down) and z (out of
#: the face): the colours that published pictures of such networks use.
AXIS_COLOURS = ((255, 0, 0), (0, 200, 0), (0, 64, 255))

_LENGTH_OF_SIDE = 0.45  # of the shorter side of the box (untuned)
_WIDTH_OF_LENGTH = 0.05
_SMOOTHED_UP_TO_PX = 2048  # larger pictures need no smoothing, and four times of them are too many


def draw_axes(
    image: Image.Image, angles_deg: Sequence[float], box: Box | None = None
) -> Image.Image:
    """Draw where a head's axes point, from the middle of its box.

    Args:
        image: any size and mode; it is not changed.
        angles_deg: yaw, pitch, roll.
        box: left, top, right, bottom in pixels; None for the whole picture.

    Returns:
        An RGB copy. Red: the head's x axis, green: y (down), blue: z, where the face looks.

    Raises:
        UserError: not three finite angles.
    """
    tips = _axes(angles_deg)
    left, top, right, bottom = box or (0, 0, *image.size)
    middle = ((left + right) / 2, (top + bottom) / 2)
    length = _LENGTH_OF_SIDE * min(right - left, bottom - top)
    drawn = image.convert("RGB")
    factor = 2 if max(drawn.size) <= _SMOOTHED_UP_TO_PX else 1
    # PIL's lines have hard edges: draw on a mask of twice the size and shrink it.
    large = (drawn.width * factor, drawn.height * factor)
    width = max(factor, round(_WIDTH_OF_LENGTH * length * factor))
    for axis in sorted(range(3), key=lambda axis: tips[axis][2]):  # the nearest is drawn last
        x, y, _ = tips[axis]
        end = (middle[0] + length * x, middle[1] + length * y)
        mask = Image.new("L", large)
        ImageDraw.Draw(mask).line(
            [tuple(factor * value for value in point) for point in (middle, end)],
            fill=255,
            width=width,
        )
        mask = mask.resize(drawn.size, Image.Resampling.BOX)
        drawn.paste(AXIS_COLOURS[axis], (0, 0), mask)
    return drawn


def _axes(angles_deg: Sequence[float]) -> list[list[float]]:
    """Unit vectors of the head's three axes in the picture's frame."""
    angles = torch.as_tensor(angles_deg, dtype=torch.float64)
    if angles.shape != (3,) or not bool(angles.isfinite().all()):
        raise UserError(
            "angles", "cannot be drawn", got=list(angles_deg), rule="yaw, pitch, roll in degrees"
        )
    columns: list[list[float]] = rotation_matrices(angles).T.tolist()
    return columns
