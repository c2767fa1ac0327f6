"""Figures are pictures that show what they were given."""

from pathlib import Path

import numpy as np
from PIL import Image

from headpose.figures import bar_chart


def draw(path: Path, values: list[float | None]) -> np.ndarray:
    bar_chart(path, ["one", "two"], {"test": values}, title="a search", x_label="degrees")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"), np.int64)


def test_bars_are_as_long_as_their_values_and_absent_ones_are_not_drawn(tmp_path: Path) -> None:
    blue = np.array([31, 119, 180])  # matplotlib's first colour

    def bar_rows(pixels: np.ndarray) -> list[int]:
        is_blue = (np.abs(pixels - blue).sum(axis=2) < 10).sum(axis=1)
        return [int(n) for n in is_blue if n > 50]

    both, one = draw(tmp_path / "both.png", [8.0, 4.0]), draw(tmp_path / "one.png", [8.0, None])
    lengths = bar_rows(both)
    assert 1.9 < max(lengths) / min(lengths) < 2.1
    alone = bar_rows(one)
    assert max(alone) - min(alone) <= 1
    assert len(alone) < len(lengths)


def test_a_figure_of_nothing_is_still_a_picture(tmp_path: Path) -> None:
    bar_chart(tmp_path / "none.png", [], {}, title="a search", x_label="degrees")
    assert (tmp_path / "none.png").stat().st_size > 1000
