"""Figures; drawn without a screen and without pyplot's global state."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_BAR_HEIGHT = 0.8  # of a row; untuned, as all sizes here
_ROW_INCHES, _LEAST_INCHES, _WIDTH_INCHES = 0.45, 2.5, 9.0


def bar_chart(
    path: Path,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    *,
    title: str,
    x_label: str,
    y_label: str = "",
) -> None:
    """Write horizontal bars as a PNG: a row for each label, in it a bar for each series.

    Args:
        path: of the picture.
        labels: from top to bottom.
        series: its name to one value a row; None leaves the bar out.
        title, x_label, y_label: what the figure shows, its unit, what the labels are values of.
    """
    height = max(_LEAST_INCHES, 1.2 + _ROW_INCHES * len(labels))
    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    thickness = _BAR_HEIGHT / max(1, len(series))
    for index, (name, values) in enumerate(series.items()):
        drawn = [(row, value) for row, value in enumerate(values) if value is not None]
        offset = (index + 0.5) * thickness - _BAR_HEIGHT / 2
        places = [row + offset for row, _ in drawn]
        bars = axes.barh(places, [value for _, value in drawn], thickness, label=name)
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title)
    axes.margins(x=0.1)
    if series:
        axes.legend()
    figure.savefig(path, dpi=120)
