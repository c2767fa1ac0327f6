"""The drawn axes point where the head does."""

import math

import numpy as np
import pytest
from PIL import Image

from headpose.draw import AXIS_COLOURS, draw_axes
from usererror import UserError

X, Y, Z = range(3)
SIDE = 101


def drawn_pixels(picture: Image.Image, axis: int) -> np.ndarray:
    """(n, 2) x, y of the pixels in the axis's colour, from the middle of the picture."""
    found = (np.asarray(picture) == AXIS_COLOURS[axis]).all(axis=2)
    rows, columns = np.nonzero(found)
    return np.stack([columns, rows], axis=1) - np.array(picture.size) // 2


def grey() -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), (128, 128, 128))


@pytest.mark.parametrize(
    ("angles_deg", "axis", "direction"),
    [
        ((0, 0, 0), X, (1, 0)),
        ((0, 0, 0), Y, (0, 1)),
        ((60, 0, 0), Z, (-1, 0)),  # yaw > 0: toward the image's left
        ((-60, 0, 0), Z, (1, 0)),
        ((0, 60, 0), Z, (0, -1)),  # pitch > 0: up
        ((0, -60, 0), Z, (0, 1)),
        ((0, 0, 30), X, (math.cos(math.pi / 6), 0.5)),  # roll > 0: clockwise
        ((0, 0, 30), Y, (-0.5, math.cos(math.pi / 6))),
    ],
)
def test_each_axis_points_where_the_convention_says(
    angles_deg: tuple[float, ...], axis: int, direction: tuple[float, float]
) -> None:
    pixels = drawn_pixels(draw_axes(grey(), angles_deg), axis)
    far = pixels[np.argmax((pixels**2).sum(axis=1))]
    np.testing.assert_allclose(far / np.linalg.norm(far), direction, atol=0.08)


def test_the_axes_start_in_the_middle_of_the_box() -> None:
    picture = draw_axes(grey(), (0, 0, 0), box=(0, 0, 40, 30))
    changed = np.argwhere((np.asarray(picture) != 128).any(axis=2))
    assert changed.min(axis=0).tolist() == pytest.approx([15, 20], abs=2)
    # x to the right and y down, 0.45 of the shorter side long.
    assert changed.max(axis=0).tolist() == pytest.approx([15 + 13.5, 20 + 13.5], abs=2)


def test_the_axis_toward_the_viewer_lies_on_top() -> None:
    # Turned away, x and z share a line on the picture: the one nearer to the viewer hides it.
    toward = draw_axes(grey(), (10, 0, 0))
    assert len(drawn_pixels(toward, Z)) > 0
    behind = draw_axes(grey(), (170, 0, 0))  # z points away from the viewer, over the x axis
    assert len(drawn_pixels(behind, Z)) < len(drawn_pixels(toward, Z))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_any_picture_is_copied_to_rgb_and_left_unchanged(mode: str) -> None:
    source = grey().convert(mode)
    before = source.tobytes()
    picture = draw_axes(source, (20, 10, 5))
    assert (picture.mode, picture.size) == ("RGB", source.size)
    assert source.tobytes() == before
    assert picture.tobytes() != before


@pytest.mark.parametrize("angles_deg", [(1.0, 2.0), (float("nan"), 0.0, 0.0)])
def test_what_is_no_pose_is_refused(angles_deg: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="angles: cannot be drawn"):
        draw_axes(grey(), angles_deg)
