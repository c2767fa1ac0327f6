"""``stopping``: successive halving that kills."""

import math

import pytest

from tuning.rules import rule_of
from tuning.rules.base import Rule, Verdict, rungs
from tuning.spec import Stopping


def halving(factor: int = 3, last_epoch: int = 9) -> Rule:
    return rule_of(
        Stopping(rule="stopping", first_rung=1, factor=factor, compare="best"), last_epoch
    )


def test_rungs_grow_by_the_factor_and_end_below_the_last_epoch() -> None:
    assert rungs(Stopping(), 27) == [6, 15]
    assert [rungs(Stopping(), last) for last in (1, 2, 6, 30)] == [[], [1], [1, 3], [7, 17]]
    assert rungs(Stopping(first_rung=1), 27) == [1, 3, 9]
    assert rungs(Stopping(first_rung=2, factor=2), 9) == [2, 4, 8]
    assert rungs(Stopping(first_rung=5), 5) == []
    assert rungs(Stopping(rungs=(2, 5, 30)), 25) == [2, 5]


def test_the_first_at_a_rung_always_goes_on() -> None:
    rule = halving()
    rule.enter(0, 1, 50.0)
    assert rule.verdict(0, 1) == Verdict.GO_ON


@pytest.mark.parametrize(
    ("rank", "stops"), [(0, False), (1, False), (2, False), (3, True), (8, True)]
)
def test_the_best_third_goes_on(rank: int, stops: bool) -> None:
    rule = halving()
    for other in range(8):
        rule.enter(other, 1, 10.0 + other)
    rule.enter(8, 1, 9.5 + rank)
    assert (rule.verdict(8, 1) == Verdict.STOP) is stops


def test_nothing_is_stopped_between_rungs_or_at_the_end() -> None:
    rule = halving()
    for trial in range(20):
        for epoch in range(1, 10):
            rule.enter(trial, epoch, 1.0 + trial)
    verdicts = [rule.verdict(19, epoch) == Verdict.STOP for epoch in (2, 3, 9)]
    assert verdicts == [False, True, False]


def test_a_nan_rival_neither_stops_nor_goes_on() -> None:
    rule = halving()
    for other in range(9):
        rule.enter(other, 1, math.nan)
    rule.enter(9, 1, 50.0)
    assert rule.verdict(9, 1) == Verdict.GO_ON
    assert rule.verdict(8, 1) == Verdict.STOP


def test_a_trial_is_judged_by_its_best_epoch_so_far() -> None:
    rule = halving(factor=2)
    for trial, curve in enumerate([(9.0, 9.0, 9.0), (8.0, 8.0, 8.0), (20.0, 5.0, 30.0)]):
        for epoch, value in enumerate(curve, start=1):
            rule.enter(trial, epoch, value)
    assert rule.verdict(2, 2) == Verdict.GO_ON
    rule = rule_of(Stopping(rule="stopping", rungs=(3,), factor=3), 9)
    for trial, curve in enumerate([(9.0, 9.0, 9.0), (8.0, 8.0, 8.0), (20.0, 5.0, 30.0)]):
        for epoch, value in enumerate(curve, start=1):
            rule.enter(trial, epoch, value)
    assert [rule.verdict(t, 3) for t in range(3)] == [Verdict.STOP, Verdict.STOP, Verdict.GO_ON]
