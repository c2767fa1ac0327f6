"""Figures of a set: percentiles, histograms that lose nobody, reasons by kind."""

import numpy as np

from headpose.data.readers import LeftOut
from headpose.data.statistics import histogram, percentiles, reasons


def test_percentiles_by_angle() -> None:
    angles_deg = np.stack([np.linspace(-80, 80, 101), np.zeros(101), np.full(101, 7.0)], axis=1)
    found = percentiles(angles_deg, (5, 50, 95))
    assert found == {
        "yaw": {5: -72.0, 50: 0.0, 95: 72.0},
        "pitch": {5: 0.0, 50: 0.0, 95: 0.0},
        "roll": {5: 7.0, 50: 7.0, 95: 7.0},
    }


def test_a_histogram_counts_every_image_once_the_limit_included() -> None:
    angles_deg = np.array([[-99.0, 0.0, 19.99], [99.0, -0.01, 20.0], [98.0, 0.0, 20.01]])
    found = histogram(angles_deg)
    assert all(sum(bins.values()) == 3 for bins in found.values())
    assert len(found["yaw"]) == 10
    assert (found["yaw"][-100.0], found["yaw"][80.0]) == (1, 2)
    assert (found["pitch"][-20.0], found["pitch"][0.0]) == (1, 2)
    assert (found["roll"][0.0], found["roll"][20.0]) == (1, 2)


def test_reasons_are_counted_by_kind() -> None:
    left_out = [
        LeftOut("a", "the jpg file is damaged: truncated"),
        LeftOut("b", "an angle lies beyond ±99°: yaw 120", is_damage=False),
        LeftOut("c", "an angle lies beyond ±99°: yaw 101", is_damage=False),
    ]
    assert list(reasons(left_out).items()) == [
        ("an angle lies beyond ±99°", 2),
        ("the jpg file is damaged", 1),
    ]
