"""Boxes are the original ones, and views show exactly the box's central square."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headpose.data.crops import NoBoxError, face_box, square_view
from headpose.data.readers import Layout, scan

SQUARE = np.array([[100.0, 200.0], [100.0, 200.0]])


@pytest.mark.parametrize(("layout", "folder"), [("300w-lp", "300W_LP"), ("aflw2000", "AFLW2000")])
def test_genuine_boxes_are_the_golden_ones(realdata: Path, layout: Layout, folder: str) -> None:
    golden = {
        Path(row["file"]).stem: row
        for row in json.loads((realdata / "loader_golden.json").read_text())
    }
    samples = scan(layout, realdata / folder).samples
    assert len(samples) == {"300w-lp": 2, "aflw2000": 8}[layout]
    for sample in samples:
        row = golden[sample.name.rsplit("/", 1)[-1]]
        box = face_box(layout, sample.landmarks_px, looseness=row["k"])
        assert list(box) == row["crop"], sample.name


def test_updates_are_sequential() -> None:
    # left 100 − .6·.5·100 = 70, right 200 + .6·.5·(200 − 70) = 239; top 0, bottom 200 + .3·200.
    assert face_box("300w-lp", SQUARE, looseness=0.5) == (70, 0, 239, 260)
    # left 0, right 200 + 2·.5·200; top 0, bottom 260.
    assert face_box("aflw2000", SQUARE, looseness=0.5) == (0, 0, 400, 260)


def test_edges_are_truncated_toward_zero() -> None:
    assert face_box("300w-lp", SQUARE - 100.5, looseness=0.0) == (0, 0, 99, 99)


def test_invisible_points_count_only_in_the_original_policy() -> None:
    points = np.concatenate([SQUARE, [[-1.0], [452.0]]], axis=1)
    assert face_box("aflw2000", points, looseness=0.0) == (-1, 100, 200, 452)
    visible = face_box("aflw2000", points, looseness=0.0, policy="visible-landmarks")
    assert visible == (100, 100, 200, 200)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.array([[-1.0, -1.0], [452.0, 452.0]]), "fewer than two visible"),
        (np.array([[5.0, 5.0], [5.0, 9.0]]), "no area"),
        (np.array([[5.0, 1.7e308], [5.0, 9.0]]), "beyond any picture"),
        (np.array([[5.0, 9.0], [5.0, 1e300]]), "beyond any picture"),
    ],
)
def test_landmarks_without_a_box_are_refused(points: np.ndarray, message: str) -> None:
    with pytest.raises(NoBoxError, match=message):
        face_box("aflw2000", points, looseness=0.2, policy="visible-landmarks")


def test_a_view_is_the_central_square_of_the_box() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[40:60, 30:50] = 255
    view = np.asarray(square_view(Image.fromarray(pixels), (20, 40, 60, 60), 20))
    assert (view == 255).all()  # the box is 40 × 20, its central square exactly the bright one
    wider = np.asarray(square_view(Image.fromarray(pixels), (20, 40, 60, 60), 40, scale=2.0))
    assert (wider[10:30, 10:30] == 255).all()
    assert wider.sum() == 20 * 20 * 3 * 255


def test_outside_of_the_picture_is_black() -> None:
    white = Image.new("RGB", (10, 10), "white")
    view = np.asarray(square_view(white, (-10, 0, 10, 20), 20))
    assert (view[:10, 10:] == 255).all()
    assert view.sum() == 10 * 10 * 3 * 255


def test_the_view_agrees_with_resize_and_centre_crop(realdata: Path) -> None:
    from torchvision.transforms import v2

    published = v2.Compose([v2.Resize(224), v2.CenterCrop(224)])
    for sample in scan("aflw2000", realdata / "AFLW2000").samples:
        box = face_box("aflw2000", sample.landmarks_px, looseness=0.2)
        with Image.open(sample.image_path) as picture:
            image = picture.convert("RGB")
        expected = np.asarray(published(image.crop(box)), np.float32)
        ours = np.asarray(square_view(image, box, 224), np.float32)
        # They differ by the rounding of the longer side, less than a pixel; the same view moved
        # by three pixels differs by far more.
        difference = np.abs(ours - expected).mean()
        assert difference < 4.0
        assert difference < 0.5 * np.abs(np.roll(ours, 3, axis=1) - expected).mean()


@pytest.mark.parametrize("box", [(0, 0, 0, 10), (0, 0, 2_000_000_000, 10), (10, 10, 5, 20)])
def test_an_impossible_box_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(NoBoxError):
        square_view(Image.new("RGB", (10, 10)), box, 8)


def test_a_box_whose_square_would_fill_the_memory_is_refused() -> None:
    box = (-8_000, -8_000, 8_000, 8_000)  # eight times the picture, and 256 million pixels
    with pytest.raises(NoBoxError, match="larger than a face can be"):
        square_view(Image.new("RGB", (1_000, 1_000)), box, 8)


def test_of_a_huge_picture_the_whole_can_be_seen() -> None:
    image = Image.new("L", (9_400, 9_400))
    assert square_view(image, (0, 0, *image.size), 8).size == (8, 8)
