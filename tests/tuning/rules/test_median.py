"""``median``, ``hyperband`` and ``none``."""

import math

import pytest

from tuning.rules import is_diverged, rule_of
from tuning.rules.base import Rule, Verdict
from tuning.spec import Stopping


def enter(rule: Rule, trial: int, value: float, epochs: int) -> None:
    for epoch in range(1, epochs + 1):
        rule.enter(trial, epoch, value)


@pytest.mark.parametrize(("value", "epochs", "stops"), [(9.0, 2, True), (6.5, 2, False)])
def test_median_stops_what_is_worse_than_most(value: float, epochs: int, stops: bool) -> None:
    rule = rule_of(Stopping(rule="median", first_rung=2), 9)
    for trial, other in enumerate((5.0, 6.0, 7.0, 8.0)):
        enter(rule, trial, other, 5)
    enter(rule, 9, value, epochs)
    assert rule.verdict(9, 1) == Verdict.GO_ON
    assert (rule.verdict(9, epochs) == Verdict.STOP) is stops


def test_hyperband_spares_the_patient_brackets_early_on() -> None:
    rule = rule_of(Stopping(rule="hyperband", first_rung=1), 27)
    for trial in range(130):
        enter(rule, trial, float(trial), 9)
    # A round is 9 trials that may stop after epoch 1, 3 after epoch 3, 1 after epoch 9.
    early = [rule.verdict(117 + place, 1) == Verdict.STOP for place in range(13)]
    assert early == [True] * 9 + [False] * 4
    late = [rule.verdict(117 + place, 9) == Verdict.STOP for place in range(13)]
    assert late == [True] * 13


def test_none_never_stops() -> None:
    rule = rule_of(Stopping(rule="none"), 9)
    enter(rule, 0, 1.0, 3)
    enter(rule, 1, 99.0, 3)
    assert rule.verdict(1, 3) == Verdict.GO_ON


@pytest.mark.parametrize(("value", "verdict"), [(math.nan, True), (math.inf, True), (5.0, False)])
def test_divergence(value: float, verdict: bool) -> None:
    assert is_diverged(value) is verdict
