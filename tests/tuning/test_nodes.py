"""Which nodes are avoided, and when there is none left to go on with."""

from tuning.exits import ExitReason
from tuning.nodes import judge
from tuning.placing import Placing
from tuning.records import Attempt, TrialRecord
from tuning.simulation.clock import VirtualClock
from tuning.space import Range
from tuning.spec import Budget, Data, SearchSpec
from tuning.storage import Storage

CRASHED, DISK_FULL, PREEMPTED = ExitReason.CRASHED, ExitReason.DISK_FULL, ExitReason.PREEMPTED
GOOD, BAD = "10.0.0.1", "10.0.0.2"


def trial(number: int, *attempts: tuple[str, ExitReason | None]) -> TrialRecord:
    kept = tuple(
        Attempt(i, 1000, node, 7, 1000 * number + i if cause else None, cause)
        for i, (node, cause) in enumerate(attempts, start=1)
    )
    done = attempts[-1][1] is None
    return TrialRecord(
        number,
        "COMPLETE" if done else "RUNNING",
        {},
        (),
        1000,
        1000 * number + 9 if done else None,
        ExitReason.COMPLETED if done else None,
        None,
        None,
        attempts=kept,
    )


def test_a_node_on_which_different_trials_fail_is_avoided_while_another_trains() -> None:
    trials = [
        trial(1, (BAD, CRASHED), (BAD, CRASHED), (GOOD, None)),
        trial(2, (BAD, DISK_FULL), (GOOD, None)),
    ]
    found = judge(trials, [GOOD, BAD])
    assert found.avoided == {BAD: "3 of its last 3 attempts failed, of 2 trials"}
    assert found.hopeless is None


def test_one_configuration_that_crashes_everywhere_blames_no_node() -> None:
    crashing = trial(1, (BAD, CRASHED), (BAD, CRASHED), (BAD, CRASHED))
    assert judge([crashing, trial(2, (GOOD, None))], [GOOD, BAD]).avoided == {}


def test_configurations_that_crash_on_all_nodes_blame_none_while_something_trains_there() -> None:
    trials = [
        trial(1, (BAD, CRASHED), (GOOD, CRASHED), (BAD, CRASHED)),
        trial(2, (GOOD, CRASHED), (BAD, CRASHED), (GOOD, CRASHED)),
        trial(3, (GOOD, None)),
        trial(4, (BAD, None)),
    ]
    assert judge(trials, [GOOD, BAD]) == judge([], [GOOD, BAD])


def test_nodes_that_are_taken_away_are_not_to_blame() -> None:
    gone = [trial(i, (BAD, PREEMPTED), (GOOD, None)) for i in range(9)]
    assert judge(gone, [GOOD, BAD]).avoided == {}


def test_where_every_node_fails_all_its_latest_trials_there_is_an_end() -> None:
    failing = [trial(i, (BAD, CRASHED), (BAD, CRASHED)) for i in range(3)]
    assert "no node trains any more (10.0.0.2: 6 of its last 6" in str(
        judge(failing, [BAD]).hopeless
    )
    assert judge(failing[:2], [BAD]).hopeless is None, "four attempts are no proof"
    assert judge([*failing, trial(9, (BAD, None))], [BAD]).hopeless is None
    assert judge(failing, [GOOD, BAD]).hopeless is None, "nobody has tried the other one"


# -- where a trial goes ----------------------------------------------------------------------------


def placing(*nodes: str, avoided: dict[str, str] | None = None) -> Placing:
    spec = SearchSpec(
        name="small",
        data=Data(train="simulated"),
        parameters={"alpha": Range(low=0.1, high=2.0)},
        budget=Budget(trials=2, epochs=3),
    )
    study = Storage.in_memory().create("small-1", spec, "simulated", VirtualClock())
    study.record_avoided_nodes(avoided or {})
    return Placing(study, lambda: nodes, lambda _: None)


def attempt(cause: ExitReason) -> Attempt:
    return Attempt(1, 1000, BAD, 7, 2000, cause)


def test_a_full_disk_sends_its_trial_to_another_node_or_ends_it() -> None:
    assert placing(GOOD, BAD).avoid([attempt(DISK_FULL)]) == (BAD,)
    assert placing(BAD).avoid([attempt(DISK_FULL)]) is None


def test_a_node_that_cannot_have_the_data_is_not_tried_again() -> None:
    assert placing(GOOD, BAD).avoid([attempt(ExitReason.UNFIT_NODE)]) == (BAD,)
    assert placing(BAD).avoid([attempt(ExitReason.UNFIT_NODE)]) is None


def test_a_stalled_trial_goes_elsewhere_if_there_is_an_elsewhere() -> None:
    assert placing(GOOD, BAD).avoid([attempt(ExitReason.STALLED)]) == (BAD,)
    assert placing(BAD).avoid([attempt(ExitReason.STALLED)]) == ()


def test_a_crash_does_not_bind_a_trial_and_avoided_nodes_are_remembered() -> None:
    assert placing(GOOD, BAD).avoid([attempt(CRASHED)]) == ()
    assert placing(GOOD, BAD, avoided={BAD: "because"}).avoid([]) == (BAD,)
