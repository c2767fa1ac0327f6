"""Early-stopping rules are pure: curves in, verdict out."""

import math

import pytest

from tuning.spec import Stopping
from tuning.stopping import is_diverged, rungs, should_stop


def flat(value: float, epochs: int) -> dict[int, float]:
    return dict.fromkeys(range(1, epochs + 1), value)


def test_rungs_grow_by_the_factor_and_end_below_the_last_epoch() -> None:
    assert rungs(1, 3, 27) == [1, 3, 9]
    assert rungs(2, 2, 9) == [2, 4, 8]
    assert rungs(5, 3, 5) == []


def test_the_first_at_a_rung_always_goes_on() -> None:
    assert not should_stop(Stopping(), {1: 50.0}, [], 9)


@pytest.mark.parametrize(
    ("rank", "stops"), [(0, False), (1, False), (2, False), (3, True), (8, True)]
)
def test_the_best_third_goes_on(rank: int, stops: bool) -> None:
    others = [{1: float(v)} for v in range(10, 18)]
    mine = {1: 9.5 + rank}
    assert should_stop(Stopping(factor=3), mine, others, 9) is stops


def test_nothing_is_stopped_between_rungs_or_at_the_end() -> None:
    others = [flat(1.0, 9) for _ in range(20)]
    assert not should_stop(Stopping(), flat(99.0, 2), others, 9)
    assert not should_stop(Stopping(), flat(99.0, 9), others, 9)
    assert should_stop(Stopping(), flat(99.0, 3), others, 9)


def test_a_nan_rival_neither_stops_nor_shields() -> None:
    others: list[dict[int, float]] = [{1: math.nan} for _ in range(9)]
    assert not should_stop(Stopping(), {1: 50.0}, others, 9)


def test_median_stops_what_is_worse_than_most() -> None:
    rule = Stopping(rule="median", first_rung=2)
    others = [flat(v, 5) for v in (5.0, 6.0, 7.0, 8.0)]
    assert should_stop(rule, flat(9.0, 2), others, 9)
    assert not should_stop(rule, flat(6.5, 2), others, 9)
    assert not should_stop(rule, flat(9.0, 1), others, 9)


def test_none_never_stops() -> None:
    assert not should_stop(Stopping(rule="none"), {1: 99.0}, [{1: 1.0}] * 50, 9)


@pytest.mark.parametrize(("value", "verdict"), [(math.nan, True), (math.inf, True), (5.0, False)])
def test_divergence(value: float, verdict: bool) -> None:
    assert is_diverged(value) is verdict
