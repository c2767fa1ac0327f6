"""Which part of a picture the network sees: boxes from landmarks, and views cut by boxes.

A box is (left, top, right, bottom) in pixels and may reach beyond the picture, where it is black.
The network's view of a box at test time is the box's central square, as torchvision's Resize and
CenterCrop to the same size give it in the original protocol.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from headpose.data.readers import Layout

Box = tuple[int, int, int, int]
CropPolicy = Literal["original", "visible-landmarks"]

# How loosely the box sits. The original draws it from U[0.2, 0.4) for every training image and
# fixes it at 0.2 for tests; a prepared training set takes the middle, and jitter does the rest.
LOOSENESS: dict[Layout, float] = {"300w-lp": 0.3, "aflw2000": 0.2}

# A box this many times larger than its picture comes from damaged landmarks.
_MAX_BOX_TO_PICTURE = 8

# And so does a larger square than this in any but the largest pictures. Pillow takes 89 million
# pixels for an attack, and each of the threads of a preparation may hold one.
_MAX_CUT_PX = 9_000

_MAX_EDGE_PX = 2**31 - 1  # Pillow's own


class NoBoxError(ValueError):
    """The landmarks of one sample span no usable box; the message says why."""


def face_box(
    layout: Layout,
    landmarks_px: npt.NDArray[np.float64],
    *,
    looseness: float,
    policy: CropPolicy = "original",
) -> Box:
    """The box around a face, as the original loaders of each data set draw it.

    Updates are sequential: the right edge is moved by the width that the moved left edge leaves,
    and the bottom likewise; then the edges are truncated toward zero.

    Args:
        layout: 300W-LP widens by .6 k, 2 k, .6 k, .6 k (left, top, right, bottom),
            AFLW2000 by 2 k, 2 k, 2 k, .6 k.
        landmarks_px: (2, P) x and y.
        looseness: k.
        policy: "original" takes all points, invisible ones at (−1, 452) too, as published;
            "visible-landmarks" leaves out points with a negative coordinate.

    Raises:
        NoBoxError: fewer than two usable points, or a box without an area or beyond any picture.
    """
    points = landmarks_px
    if policy == "visible-landmarks":
        points = points[:, (points >= 0).all(axis=0)]
    if points.shape[1] < 2:
        raise NoBoxError("fewer than two visible landmarks")
    side = 2.0 if layout == "aflw2000" else 0.6
    (left, top), (right, bottom) = points.min(axis=1), points.max(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):  # looked for below
        left -= side * looseness * abs(right - left)
        top -= 2 * looseness * abs(bottom - top)
        right += side * looseness * abs(right - left)
        bottom += 0.6 * looseness * abs(bottom - top)
    if not all(abs(edge) <= _MAX_EDGE_PX for edge in (left, top, right, bottom)):  # true for NaN
        raise NoBoxError("the landmarks lie beyond any picture")
    box = (int(left), int(top), int(right), int(bottom))
    if box[2] <= box[0] or box[3] <= box[1]:
        raise NoBoxError(f"the landmarks span no area: box {box}")
    return box


def square_view(image: Image.Image, box: Box, side_px: int, *, scale: float = 1.0) -> Image.Image:
    """Cut the central square of a box, enlarged by ``scale``, and resize it.

    With scale 1 this is the network's view at test time.

    Args:
        image: an RGB picture; what lies outside of it is black.
        box: the face.
        side_px: side of the result.
        scale: side of what is cut, in units of the box's shorter side.

    Returns:
        An RGB picture of side_px × side_px, resized bilinearly with antialiasing.

    Raises:
        NoBoxError: the box has no area or is absurdly large.
    """
    left, top, right, bottom = box
    shorter = min(right - left, bottom - top)
    if shorter <= 0:
        raise NoBoxError(f"the box has no area: {box}")
    if max(map(abs, box)) > _MAX_BOX_TO_PICTURE * max(image.size):
        raise NoBoxError(f"the box {box} lies far beyond the picture of {image.size} pixels")
    if shorter * scale > max(_MAX_CUT_PX, min(image.size)):
        raise NoBoxError(f"the box {box} is larger than a face can be, {_MAX_CUT_PX} pixels")
    half = shorter * scale / 2
    centre_x, centre_y = (left + right) / 2, (top + bottom) / 2
    exact = (centre_x - half, centre_y - half, centre_x + half, centre_y + half)
    # Cut whole pixels first, for only that pads with black; resize the exact part of the cut.
    outer = (*np.floor(exact[:2]).astype(int).tolist(), *np.ceil(exact[2:]).astype(int).tolist())
    cut = image.crop(outer)
    inner = tuple(edge - outer[axis % 2] for axis, edge in enumerate(exact))
    return cut.resize((side_px, side_px), Image.Resampling.BILINEAR, box=inner)
