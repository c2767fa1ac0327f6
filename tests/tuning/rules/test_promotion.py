"""``promotion``: successive halving that pauses and takes up again."""

import random
from dataclasses import replace

import pytest

from tuning.exits import FATES, ExitReason
from tuning.records import EpochRecord, TrialRecord
from tuning.rules import Rule, rebuilt, rule_of
from tuning.rules.base import Verdict
from tuning.spec import Stopping

LAST = 27
EARLY = Stopping(first_rung=1, compare="best")


def promotion() -> Rule:
    return rule_of(EARLY, LAST)


def arrives(rule: Rule, trial: int, epoch: int, value: float) -> Verdict:
    rule.enter(trial, epoch, value)
    verdict = rule.verdict(trial, epoch)
    if verdict == Verdict.PAUSE:
        rule.pause(trial, epoch)
    return verdict


def test_the_first_two_wait_and_the_third_shows_who_goes_on() -> None:
    rule = promotion()
    assert arrives(rule, 0, 1, 9.0) == Verdict.PAUSE
    assert arrives(rule, 1, 1, 8.0) == Verdict.PAUSE
    assert rule.take_up(closing=False) is None
    assert arrives(rule, 2, 1, 10.0) == Verdict.PAUSE
    assert rule.take_up(closing=False) == 1
    assert rule.take_up(closing=False) is None


def test_who_leads_on_arrival_goes_on_at_once() -> None:
    rule = promotion()
    arrives(rule, 0, 1, 9.0)
    arrives(rule, 1, 1, 8.0)
    assert arrives(rule, 2, 1, 7.0) == Verdict.GO_ON
    assert rule.take_up(closing=False) is None


def test_a_paused_trial_is_taken_up_when_worse_ones_have_come() -> None:
    rule = promotion()
    for trial, value in enumerate([7.0, 8.0, 9.0]):
        arrives(rule, trial, 1, value)
    assert rule.take_up(closing=False) == 0
    for trial in (3, 4, 5):
        assert rule.take_up(closing=False) is None
        arrives(rule, trial, 1, 20.0)
    assert rule.take_up(closing=False) == 1


def test_the_highest_rung_comes_first() -> None:
    rule = promotion()
    for trial, value in enumerate([7.0, 8.0, 9.0, 9.1, 9.2, 9.3, 9.4, 9.5, 9.6]):
        arrives(rule, trial, 1, value)
    taken = [rule.take_up(closing=False) for _ in range(3)]
    assert taken == [0, 1, 2]
    for trial, value in zip((2, 1, 0), (6.0, 6.1, 6.2), strict=True):
        arrives(rule, trial, 3, value)
    arrives(rule, 9, 1, 1.0)
    arrives(rule, 10, 1, 1.0)
    arrives(rule, 11, 1, 1.0)
    assert rule.take_up(closing=False) == 2


def test_at_the_close_the_leader_finishes_even_without_company() -> None:
    rule = promotion()
    arrives(rule, 0, 1, 9.0)
    arrives(rule, 1, 1, 8.0)
    assert rule.take_up(closing=False) is None
    assert rule.take_up(closing=True) == 1
    assert rule.take_up(closing=True) is None


def test_at_the_close_a_leader_that_failed_keeps_nobody_waiting() -> None:
    rule = promotion()
    arrives(rule, 0, 1, 9.0)
    arrives(rule, 1, 1, 8.0)
    assert arrives(rule, 2, 1, 7.0) == Verdict.GO_ON
    rule.fail(2)
    assert rule.take_up(closing=False) is None, "it still shows how well others must do"
    assert rule.take_up(closing=True) == 1
    assert arrives(rule, 1, 3, 7.5) == Verdict.PAUSE
    assert rule.take_up(closing=True) == 1, "it leads its next rung, too"
    assert rule.take_up(closing=True) is None


@pytest.mark.parametrize("reason", [r for r in ExitReason if FATES[r].run_status == "FAILED"])
def test_a_rebuilt_rule_knows_who_failed(reason: ExitReason) -> None:
    waiting = [record_of(trial, {1: 9.0 - trial}, True) for trial in (0, 1)]
    leader = replace(record_of(2, {1: 7.0, 2: 6.0}, False), state="PRUNED", exit_reason=reason)
    before_any_epoch = replace(leader, number=3, epochs=())
    rule = rebuilt(EARLY, LAST, [*waiting, leader, before_any_epoch])
    assert rule.take_up(closing=False) is None
    assert rule.take_up(closing=True) == 1


@pytest.mark.parametrize("reason", [ExitReason.COMPLETED, ExitReason.SEARCH_ENDED])
def test_who_leads_and_did_not_fail_keeps_the_others_waiting(reason: ExitReason) -> None:
    waiting = [record_of(trial, {1: 9.0 - trial}, True) for trial in (0, 1)]
    leader = replace(record_of(2, {1: 7.0}, False), exit_reason=reason)
    assert rebuilt(EARLY, LAST, [*waiting, leader]).take_up(closing=True) is None


def test_a_trial_that_diverged_counts_as_come_and_never_goes_on() -> None:
    rule = promotion()
    rule.enter(0, 1, float("nan"))
    rule.enter(1, 1, float("nan"))
    assert arrives(rule, 2, 1, 50.0) == Verdict.GO_ON


def test_where_its_rung_is_gone_a_paused_trial_waits_at_the_last_one_that_it_passed() -> None:
    """A search of 30 epochs paused them at 7 and 17; extended to 40, it has rungs at 9 and 22."""
    passed = [record_of(trial, dict.fromkeys(range(1, 18), 5.0 + trial), True) for trial in (0, 1)]
    before = [record_of(trial, dict.fromkeys(range(1, 8), 1.0), True) for trial in (2, 3)]
    worse = [record_of(trial, dict.fromkeys(range(1, 31), 9.0), False) for trial in (4, 5)]
    rule = rebuilt(Stopping(compare="best"), 40, [*passed, *before, *worse])
    assert rule.take_up(closing=False) == 0
    assert rule.take_up(closing=True) is None


def record_of(trial: int, curve: dict[int, float], paused: bool) -> TrialRecord:
    epochs = tuple(EpochRecord(e, 0, {"val_mae": v}, "", False) for e, v in curve.items())
    reason = ExitReason.PAUSED if paused else None
    state = "PRUNED" if paused else "RUNNING"
    return TrialRecord(trial, state, {}, epochs, 0, None, reason, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_a_rebuilt_rule_decides_like_the_one_that_ran_through(seed: int) -> None:
    """The last 50 of hundreds of decisions, by a rule that saw the first only in the records."""
    draw = random.Random(seed)
    curves: dict[int, dict[int, float]] = {}
    resting: set[int] = set()

    def decisions(rule: Rule, count: int) -> list[object]:
        made: list[object] = []
        while len(made) < count:
            trial = rule.take_up(closing=False)
            if trial is None:
                trial = len(curves)
                curves[trial] = {}
            resting.discard(trial)
            made.append(trial)
            for epoch in range(len(curves[trial]) + 1, LAST):
                curves[trial][epoch] = draw.gauss(10, 2)
                verdict = arrives(rule, trial, epoch, curves[trial][epoch])
                if verdict == Verdict.PAUSE:
                    resting.add(trial)
                    made.append((trial, epoch))
                    break
        return made

    ran_through = promotion()
    decisions(ran_through, 400)
    in_any_order = list(curves.items())
    draw.shuffle(in_any_order)
    again = rebuilt(EARLY, LAST, [record_of(t, curve, t in resting) for t, curve in in_any_order])
    state, kept = draw.getstate(), ({t: dict(c) for t, c in curves.items()}, set(resting))
    expected = decisions(ran_through, 50)
    draw.setstate(state)
    curves, resting = kept
    assert decisions(again, 50) == expected
