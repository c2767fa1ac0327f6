"""What becomes of a trial when an attempt at it ends, and who is listened to."""

import io
from collections.abc import Callable, Collection

import pytest

from tuning.attempts import GOES_ON_AFTER, is_over
from tuning.conductor import Conductor
from tuning.events import Idle, Work
from tuning.exits import ExitReason
from tuning.progress import ProgressLines
from tuning.records import Attempt, EpochRecord
from tuning.simulation.clock import VirtualClock
from tuning.space import Range
from tuning.spec import Budget, Data, Resources, Sampler, SearchSpec, Stopping
from tuning.storage import Storage
from tuning.storing import AtOnce
from tuning.study import Study

CRASHED, PREEMPTED, STALLED = ExitReason.CRASHED, ExitReason.PREEMPTED, ExitReason.STALLED
DISK_FULL = ExitReason.DISK_FULL


def attempts(*causes: ExitReason) -> list[Attempt]:
    return [Attempt(i, 1000, "node", 7, 2000, cause) for i, cause in enumerate(causes, start=1)]


@pytest.mark.parametrize("reason", [r for r in ExitReason if r not in GOES_ON_AFTER])
def test_what_is_the_configurations_own_doing_is_never_tried_again(reason: ExitReason) -> None:
    assert is_over(reason, attempts(reason), Resources(retries=5))


def test_a_crash_is_tried_again_as_often_as_the_search_file_says() -> None:
    limits = Resources(retries=2)
    assert not is_over(CRASHED, attempts(CRASHED, CRASHED), limits)
    assert is_over(CRASHED, attempts(CRASHED, CRASHED, CRASHED), limits)
    assert is_over(CRASHED, attempts(CRASHED), Resources(retries=0))


def test_being_sent_away_costs_nothing() -> None:
    assert not is_over(PREEMPTED, attempts(*[PREEMPTED] * 50), Resources(retries=0))
    mixed = attempts(CRASHED, *[PREEMPTED] * 9, CRASHED)
    assert not is_over(CRASHED, mixed, Resources(retries=2))


def test_stalls_have_a_limit_of_their_own_and_full_disks_none() -> None:
    limits = Resources(retries=0, stall_retries=1)
    assert not is_over(STALLED, attempts(STALLED), limits)
    assert is_over(STALLED, attempts(STALLED, DISK_FULL, STALLED), limits)
    for cause in (DISK_FULL, ExitReason.UNFIT_NODE):
        assert not is_over(cause, attempts(*[cause] * 5), limits)


def test_what_an_avoided_node_does_is_excused_but_not_for_ever() -> None:
    limits = Resources(retries=1)
    assert not is_over(CRASHED, attempts(*[CRASHED] * 7), limits, avoided={"node"})
    assert is_over(CRASHED, attempts(*[CRASHED] * 8), limits, avoided={"node"})
    assert is_over(CRASHED, attempts(*[CRASHED] * 2), limits, avoided={"other"})


# -- the conductor ---------------------------------------------------------------------------------


@pytest.fixture
def study() -> Study:
    spec = SearchSpec(
        name="small",
        data=Data(train="simulated"),
        parameters={"alpha": Range(low=0.1, high=2.0)},
        sampler=Sampler(name="random"),
        stopping=Stopping(rule="none"),
        budget=Budget(trials=2, epochs=3),
        resources=Resources(retries=1),
    )
    return Storage.in_memory().create("small-1", spec, "simulated", VirtualClock())


@pytest.fixture
def printed() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def start(study: Study, printed: io.StringIO) -> Callable[[], Conductor]:
    return lambda: Conductor(study, ProgressLines(printed), AtOnce(), VirtualClock())


@pytest.fixture
def conductor(start: Callable[[], Conductor]) -> Conductor:
    return start()


def handed_out(conductor: Conductor) -> Work:
    work = conductor.next_trial()
    assert isinstance(work, Work)
    conductor.on_start(work.number, work.attempt, "10.0.0.7", 4711)
    return work


def report(conductor: Conductor, work: Work, epoch: int, mae: float = 5.0) -> bool:
    metrics = {"val_mae": mae, "epoch_seconds": 1.0}
    record = EpochRecord(epoch, 1000, metrics, f"key{epoch}", restored=False)
    return conductor.on_epoch(work.number, work.attempt, record)


def test_a_lost_trial_goes_on_under_its_number_with_what_it_has_learnt(
    conductor: Conductor, study: Study, printed: io.StringIO
) -> None:
    first = handed_out(conductor)
    report(conductor, first, 1)
    conductor.on_end(first.number, first.attempt, PREEMPTED, "its node is lost")
    assert "trial   0 goes on elsewhere: its node is lost (attempt 2)" in printed.getvalue()
    again = handed_out(conductor)
    assert again == Work(0, first.parameters, attempt=2, trained_epochs=1, trained_s=1.0)
    report(conductor, again, 2)
    assert not report(conductor, again, 3)
    conductor.must_end()
    trial = study.trial(0)
    assert (trial.exit_reason, sorted(trial.curve)) == (ExitReason.COMPLETED, [1, 2, 3])
    assert [(a.cause, a.detail) for a in trial.attempts] == [
        (PREEMPTED, "its node is lost"),
        (None, None),
    ]
    assert (trial.node, trial.attempts[0].pid) == ("10.0.0.7", 4711)


def test_a_driver_that_did_not_listen_takes_nobody_for_hung(study: Study) -> None:
    """Its database was away for hours, or its machine slept."""
    clock = VirtualClock()
    conductor = Conductor(study, ProgressLines(io.StringIO()), AtOnce(), clock)

    def looks(seconds: int) -> list[tuple[int, int]]:
        found = []
        for _ in range(seconds):
            clock.move_to(clock() + 1000)
            found += conductor.hung()
        return found

    work = handed_out(conductor)
    report(conductor, work, 1)
    limit_s = round(60 * study.spec.resources.stall_minutes)
    assert looks(limit_s - 60) == []
    clock.move_to(clock() + 5 * 3600 * 1000)
    assert conductor.hung() == []
    assert looks(50) == []
    assert looks(20) == [(work.number, work.attempt)], "it is silent for as long as is allowed"
    assert [a.cause for a in study.trial(work.number).attempts] == [STALLED]


def test_a_trial_goes_on_only_where_the_same_is_trained(conductor: Conductor, study: Study) -> None:
    """Its ImageNet weights were replaced, or a node has others."""
    first = handed_out(conductor)
    report(conductor, first, 1, mae=5.0)
    conductor.on_end(first.number, first.attempt, PREEMPTED, None)
    again = handed_out(conductor)
    other = EpochRecord(1, 1000, {"val_mae": 4.0, "epoch_seconds": 1.0}, "other/1", restored=False)
    assert not conductor.on_epoch(again.number, again.attempt, other)
    trial = study.trial(first.number)
    assert trial.curve == {1: 5.0}
    assert [a.cause for a in trial.attempts] == [PREEMPTED, ExitReason.UNFIT_NODE]
    assert "other ImageNet weights" in (trial.attempts[-1].detail or "")


def test_what_a_stale_worker_says_is_not_listened_to(conductor: Conductor, study: Study) -> None:
    stale = handed_out(conductor)
    conductor.on_end(stale.number, stale.attempt, PREEMPTED, None)
    again = handed_out(conductor)
    assert not report(conductor, stale, 1, mae=1.0)
    conductor.on_end(stale.number, stale.attempt, ExitReason.OUT_OF_MEMORY, None)
    assert report(conductor, again, 1, mae=5.0)
    assert study.trial(0).curve == {1: 5.0}


def test_a_trial_that_keeps_crashing_fails_with_its_last_detail(
    conductor: Conductor, study: Study
) -> None:
    for attempt in (1, 2):
        work = handed_out(conductor)
        assert (work.number, work.attempt) == (0, attempt)
        conductor.on_end(0, attempt, CRASHED, f"crash {attempt}")
    trial = study.trial(0)
    assert (trial.state, trial.exit_reason, trial.detail) == ("FAIL", CRASHED, "crash 2")
    assert handed_out(conductor).number == 1


def test_a_restarted_driver_counts_on(start: Callable[[], Conductor], study: Study) -> None:
    dead = start()
    work = handed_out(dead)
    dead.on_end(0, work.attempt, CRASHED, "first")
    handed_out(dead)
    successor = start()
    work = handed_out(successor)
    assert (work.number, work.attempt) == (0, 3)
    successor.on_end(0, 3, CRASHED, "second")
    trial = study.trial(0)
    assert trial.exit_reason == CRASHED
    assert [a.cause for a in trial.attempts] == [CRASHED, PREEMPTED, CRASHED]


def test_nothing_goes_on_once_the_search_ends(conductor: Conductor) -> None:
    work = handed_out(conductor)
    conductor.ask_to_end("enough")
    conductor.on_end(work.number, work.attempt, PREEMPTED, None)
    assert conductor.next_trial() is Idle.DONE
    assert not conductor.has_lost_checkpoints()


def test_where_no_node_can_have_the_data_the_search_ends_and_no_trial_fails(
    study: Study, printed: io.StringIO
) -> None:
    def on_two_nodes() -> Conductor:
        nodes = ("10.0.0.7", "10.0.0.8")
        return Conductor(study, ProgressLines(printed), AtOnce(), VirtualClock(), lambda: nodes)

    conductor = on_two_nodes()
    first = handed_out(conductor)
    conductor.on_end(0, first.attempt, ExitReason.UNFIT_NODE, "no set")
    assert conductor.hopeless is None
    again = conductor.next_trial()
    assert isinstance(again, Work)
    assert (again.number, again.attempt, again.avoid) == (0, 2, ("10.0.0.7",))
    conductor.on_start(0, 2, "10.0.0.8", 4711)
    conductor.on_end(0, 2, ExitReason.UNFIT_NODE, "no set")
    assert conductor.hopeless == "no node has what a training needs"
    assert "trial   0 cannot go on: no set" in printed.getvalue()
    assert conductor.next_trial() is Idle.DONE
    assert conductor.must_end()
    assert study.trial(0).exit_reason == ExitReason.SEARCH_ENDED
    assert "attempt 2" in printed.getvalue()
    assert "attempt 3" not in printed.getvalue()
    study.reopen()
    later = on_two_nodes().next_trial()
    assert isinstance(later, Work)
    assert (later.number, later.avoid) == (0, ())


def on_nodes(study: Study, nodes: Collection[str], clock: VirtualClock | None = None) -> Conductor:
    progress = ProgressLines(io.StringIO())
    return Conductor(study, progress, AtOnce(), clock or VirtualClock(), lambda: nodes)


def given_up(conductor: Conductor, work: Work, clock: VirtualClock) -> None:
    """Ray Tune hands back what has waited in vain for the nodes that it may go to."""
    assert conductor.has_place(work.avoid)
    clock.move_to(clock() + 301_000)
    assert not conductor.has_place(work.avoid)
    conductor.on_end(work.number, work.attempt, PREEMPTED, "no node is left that it may go to")


@pytest.mark.parametrize("earlier", [ExitReason.UNFIT_NODE, DISK_FULL])
def test_a_node_that_was_unfit_once_and_is_the_only_one_left_costs_no_later_attempt(
    study: Study, earlier: ExitReason
) -> None:
    nodes, clock = ["10.0.0.7", "10.0.0.8"], VirtualClock()
    conductor = on_nodes(study, nodes, clock)
    work = handed_out(conductor)
    conductor.on_end(0, work.attempt, earlier, "not now")
    again = conductor.next_trial()
    assert isinstance(again, Work)
    conductor.on_start(0, again.attempt, "10.0.0.8", 4711)
    report(conductor, again, 1)
    nodes.remove("10.0.0.8")
    conductor.on_end(0, again.attempt, PREEMPTED, "its node is lost")
    queued = conductor.next_trial()
    assert isinstance(queued, Work)
    assert queued.avoid == ("10.0.0.7",), "the other one may only be started again"
    given_up(conductor, queued, clock)
    later = handed_out(conductor)
    assert (later.number, later.avoid, later.trained_epochs) == (0, (), 1)
    conductor.on_end(0, later.attempt, CRASHED, "first")
    last = handed_out(conductor)
    assert last.number == 0
    conductor.on_end(0, last.attempt, CRASHED, "second")
    assert study.trial(0).exit_reason == CRASHED, "no more often than the search file allows"


def test_after_an_outage_on_the_only_node_a_resumed_trial_may_be_sent_away(study: Study) -> None:
    conductor = on_nodes(study, ["10.0.0.7"])
    conductor.on_end(0, handed_out(conductor).attempt, ExitReason.UNFIT_NODE, "no store")
    assert conductor.must_end()
    study.reopen()
    conductor = on_nodes(study, ["10.0.0.7"])
    work = handed_out(conductor)
    conductor.on_end(0, work.attempt, PREEMPTED, "its worker was told to leave")
    assert study.is_open(0)
    again = handed_out(conductor)
    assert again.number == 0
    conductor.on_end(0, again.attempt, DISK_FULL, "no space left")
    assert study.trial(0).exit_reason == DISK_FULL, "there is no other node"


@pytest.mark.parametrize("cause", [ExitReason.UNFIT_NODE, DISK_FULL])
def test_a_queued_trial_waits_for_a_node_that_is_started_again(
    study: Study, cause: ExitReason
) -> None:
    nodes, clock = ["10.0.0.7", "10.0.0.8"], VirtualClock()
    conductor = on_nodes(study, nodes, clock)
    conductor.on_end(0, handed_out(conductor).attempt, cause, "not here")
    queued = conductor.next_trial()
    assert isinstance(queued, Work)
    nodes.remove("10.0.0.8")
    assert conductor.has_place(queued.avoid)
    other = handed_out(conductor)
    assert other.avoid == ()
    conductor.on_end(other.number, other.attempt, cause, "not here")
    assert study.is_open(other.number)
    assert conductor.hopeless is None, "nor is that one over"
    clock.move_to(clock() + 120_000)
    nodes.append("10.0.0.8")
    assert conductor.has_place(queued.avoid)
    nodes.remove("10.0.0.8")
    given_up(conductor, queued, clock)
    assert handed_out(conductor).avoid == ()


def test_a_driver_knows_the_nodes_of_the_one_before_it(study: Study) -> None:
    """The whole cluster was started again, and its nodes come back one by one."""
    nodes = ["10.0.0.7", "10.0.0.8"]
    conductor = on_nodes(study, nodes)
    conductor.on_end(0, handed_out(conductor).attempt, DISK_FULL, "no space left")
    queued = conductor.next_trial()
    assert isinstance(queued, Work)
    conductor.on_start(0, queued.attempt, "10.0.0.8", 4711)
    again = on_nodes(study, ["10.0.0.7"]).next_trial()
    assert isinstance(again, Work)
    assert (again.number, again.avoid) == (0, ("10.0.0.7",))


def test_a_search_that_has_nothing_left_to_train_waits_for_no_node(study: Study) -> None:
    nodes = ["bad", "good"]
    study.record_avoided_nodes({"bad": "it fails every trial"})
    conductor = on_nodes(study, nodes)
    for _ in range(2):
        work = handed_out(conductor)
        for epoch in (1, 2, 3):
            report(conductor, work, epoch)
    nodes.remove("good")
    assert conductor.next_trial() is Idle.DONE


def test_while_only_avoided_nodes_are_left_others_are_waited_for_and_no_trial_fails(
    study: Study, printed: io.StringIO
) -> None:
    nodes, clock = ["bad", "good"], VirtualClock()
    study.record_avoided_nodes({"bad": "it fails every trial"})
    conductor = Conductor(study, ProgressLines(printed), AtOnce(), clock, lambda: nodes)
    first, second = handed_out(conductor), handed_out(conductor)
    assert first.avoid == second.avoid == ("bad",)
    nodes.remove("good")
    for work in (first, second):
        conductor.on_end(work.number, work.attempt, PREEMPTED, "its node is lost")
    queued = conductor.next_trial()
    assert isinstance(queued, Work)
    assert queued.avoid == ("bad",)
    assert "trial   0 waits for 300 s for another node than bad" in printed.getvalue()
    given_up(conductor, queued, clock)
    for _ in range(3):
        work = handed_out(conductor)
        assert work.avoid == ()
        conductor.on_start(work.number, work.attempt, "bad", 4711)
        conductor.on_end(work.number, work.attempt, CRASHED, "a broken GPU")
    assert study.record().count("RUNNING") == 2
