"""Shares of ranges, and the legal values nearest to them."""

import pytest

from tuning.scale import share_of, value_at
from tuning.space import Range

LOG = Range(low=1e-5, high=1e-1, log=True)


@pytest.mark.parametrize(
    ("name", "parameter", "value", "share"),
    [
        ("learning_rate", LOG, 1e-3, 0.5),
        ("decay_rate", Range(low=0.8, high=1.0), 0.85, 0.25),
        ("unfreeze_epoch", Range(low=2, high=10), 4, 0.25),
        ("decay_rate", Range(low=0.8, high=1.0, step=0.05), 0.95, 0.75),
    ],
)
def test_there_and_back(name: str, parameter: Range, value: float, share: float) -> None:
    assert share_of(parameter, value) == pytest.approx(share)
    assert value_at(name, parameter, share) == pytest.approx(value)


def test_values_are_legal_wherever_they_come_from() -> None:
    assert value_at("learning_rate", LOG, 1.7) == 1e-1
    assert value_at("learning_rate", LOG, -0.1) == pytest.approx(1e-5)
    found = value_at("unfreeze_epoch", Range(low=0, high=3), 0.4)
    assert found == 1
    assert isinstance(found, int)
    # The last step that fits lies below the upper edge.
    assert value_at("decay_rate", Range(low=0.8, high=0.98, step=0.05), 1.0) == pytest.approx(0.95)


def test_a_range_of_one_value() -> None:
    assert share_of(Range(low=2, high=2), 2) == 0.0
    assert value_at("unfreeze_epoch", Range(low=2, high=2), 0.0) == 2
