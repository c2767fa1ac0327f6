"""A trial is complete when its checkpoints are stored, and nobody waits for that."""

import io
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from unittest.mock import Mock

import pytest

from tuning.conductor import Conductor
from tuning.events import Work
from tuning.exits import ExitReason
from tuning.going_on import unfinished
from tuning.progress import ProgressLines
from tuning.records import EpochRecord
from tuning.space import Range
from tuning.spec import Budget, Data, Resources, Sampler, SearchSpec, Stopping
from tuning.storage import Storage
from tuning.storing import Storing
from tuning.study import Study
from usererror import UserError


class Store:
    """The store as the driver sees it: which keys are there, and which have lost their weights."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.without_weights: set[str] = set()
        self.away = False
        self.answers = threading.Event()
        self.answers.set()

    def __call__(self, key: str, with_weights: bool) -> bool:
        assert self.answers.wait(60)
        if self.away:
            raise UserError("s3://x", "the S3 server cannot be used")
        return key in self.keys and not (with_weights and key in self.without_weights)


class Nodes:
    """The disks of the nodes: what lies there, and whether they have brought it."""

    def __init__(self) -> None:
        self.asked: list[set[str]] = []
        self.asked_alone: list[tuple[str, ...]] = []
        self.living = {NODE}
        self.are_done = True

    def __call__(self, keys: Collection[str], node: str | None = None) -> Callable[[], bool]:
        if node is not None:
            self.asked_alone.append((node, *sorted(keys)))
            return lambda: self.are_done
        self.asked.append(set(keys))
        return lambda: self.are_done


NODE = "10.0.0.1"


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


@pytest.fixture(autouse=True)
def _settles_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuning.storing.SETTLE_S", 0.5)
    monkeypatch.setattr("tuning.conductor.SETTLE_S", 0.1)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_trial_arrives_with_the_last_of_its_keys(store: Store, nodes: Nodes) -> None:
    storing = Storing(store, nodes)
    storing.add(3, last="last", best="best")
    store.keys.add("best")
    storing.wait(0.5)
    assert (storing.arrived(), storing.waiting()) == ([], 1)
    store.keys.add("last")
    storing.wait(60)
    assert storing.numbers() == {3}, "nobody has heard of its arrival yet"
    assert (storing.arrived(), storing.waiting()) == ([3], 0)
    assert (storing.arrived(), storing.numbers()) == ([], set())


def test_collected_weights_of_the_best_epoch_are_waited_for(store: Store, nodes: Nodes) -> None:
    storing = Storing(store, nodes)
    store.keys = {"best", "last"}
    store.without_weights = {"best", "last"}
    storing.add(3, last="last", best="best")
    storing.wait(0.5)
    assert storing.arrived() == []
    store.without_weights = {"last"}
    storing.wait(60)
    assert storing.arrived() == [3]


def test_a_store_that_is_away_is_asked_again(store: Store, nodes: Nodes) -> None:
    store.away = True
    storing = Storing(store, nodes)
    storing.add(0, "key", "key")
    store.keys.add("key")
    time.sleep(0.3)
    assert storing.arrived() == []
    store.away = False
    storing.wait(60)
    assert storing.arrived() == [0]


def test_time_in_which_the_store_is_away_uses_up_no_patience(store: Store, nodes: Nodes) -> None:
    store.away = True
    storing = Storing(store, nodes)
    storing.add(0, "key", "key")
    time.sleep(1.0)
    assert storing.lost(patience_s=0.1) == []
    assert nodes.asked == []
    store.away = False
    wait_for(lambda: storing.lost(patience_s=0.1) == [0])


def test_what_does_not_come_is_lost_once_the_nodes_have_brought_all_that_they_have(
    store: Store, nodes: Nodes
) -> None:
    nodes.are_done = False
    storing = Storing(store, nodes)
    storing.add(1, "last", "best")
    assert storing.lost() == []
    assert nodes.asked == [], "it has its time"
    for _ in range(10):
        assert storing.lost(patience_s=0.0) == [], "a node has it"
        time.sleep(0.1)
    assert nodes.asked == [{"last", "best"}], "once"
    nodes.are_done = True
    assert storing.lost(patience_s=0.0) == [], "the store was looked into before they had done so"
    wait_for(lambda: storing.lost(patience_s=0.0) == [1])
    assert storing.waiting() == 0
    storing.add(1, "last", "best")
    wait_for(lambda: storing.lost(patience_s=0.0) == [1])
    assert nodes.asked == [{"last", "best"}] * 2


def test_a_node_that_brings_one_trial_for_long_keeps_no_other_from_being_lost(
    store: Store, nodes: Nodes
) -> None:
    nodes.are_done = False
    storing = Storing(store, nodes)
    storing.add(1, "one", "one")
    assert storing.lost(patience_s=0.0) == []
    storing.add(2, "two", "two")
    storing._bring = Nodes()
    wait_for(lambda: storing.lost(patience_s=0.0) == [2])
    assert storing.numbers() == {1}


def test_what_the_nodes_bring_has_arrived(store: Store, nodes: Nodes) -> None:
    nodes.are_done = False
    storing = Storing(store, nodes)
    storing.add(1, "last", "best")
    assert storing.lost(patience_s=0.0) == []
    store.keys = {"last", "best"}
    nodes.are_done = True
    storing.wait(60)
    assert storing.lost(patience_s=0.0) == []
    assert storing.arrived() == [1]


def test_a_node_is_asked_for_more_once_it_has_brought_what_it_was_asked_for(
    store: Store, nodes: Nodes
) -> None:
    """In a long outage of the store each request is one more process on the node."""
    nodes.are_done = False
    storing = Storing(store, nodes)
    for key in ("one", "two", "three"):
        storing.bring(key, NODE)
    storing.bring("other", "10.0.0.2")
    assert storing.lost() == []
    assert nodes.asked_alone == [(NODE, "one"), ("10.0.0.2", "other")]
    nodes.are_done = True
    assert storing.lost() == []
    assert nodes.asked_alone[2:] == [(NODE, "three", "two")]


# -- the driver ------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> Study:
    spec = SearchSpec(
        name="small",
        data=Data(train="/data/train"),
        parameters={"alpha": Range(low=0.1, high=2.0)},
        sampler=Sampler(name="tpe", startup_trials=1),
        stopping=Stopping(rule="none"),
        budget=Budget(trials=3, epochs=2),
        resources=Resources(gpus_per_trial=0.0, retries=1),
    )
    return Storage(f"sqlite:///{tmp_path}/study.db").create("small-1", spec, "fingerprint")


DriverOf = Callable[[], Conductor]


@pytest.fixture
def printed() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def driver_of(study: Study, store: Store, nodes: Nodes, printed: io.StringIO) -> DriverOf:
    """A driver of the search; the one before it is dead."""

    def make() -> Conductor:
        storing = Storing(store, nodes)
        return Conductor(study, ProgressLines(printed), storing, nodes=lambda: nodes.living)

    return make


@pytest.fixture
def driver(driver_of: DriverOf) -> Conductor:
    return driver_of()


def report(driver: Conductor, number: int, epoch: int, mae: float = 5.0) -> bool:
    key = f"trial{number}-epoch{epoch}"
    metrics = {"val_mae": mae, "epoch_seconds": 1.0}
    attempt = driver._running._last[number]
    return driver.on_epoch(number, attempt, EpochRecord(epoch, 1000, metrics, key, False))


def trained(driver: Conductor) -> int:
    work = begun(driver)
    if work.trained_epochs == 0:
        assert report(driver, work.number, 1, mae=4.0)
    assert not report(driver, work.number, 2)
    return work.number


def begun(driver: Conductor) -> Work:
    work = driver.next_trial()
    assert isinstance(work, Work)
    driver.on_start(work.number, work.attempt, NODE, pid=1)
    return work


def test_a_trained_trial_is_complete_once_best_and_last_checkpoint_are_stored(
    driver: Conductor, study: Study, store: Store
) -> None:
    number = trained(driver)
    assert not driver.must_end()
    assert study.trial(number).state == "RUNNING"
    store.keys |= {"trial0-epoch1", "trial0-epoch2"}
    wait_for(lambda: not driver.must_end() and study.trial(number).state == "COMPLETE")
    assert study.trial(number).exit_reason == ExitReason.COMPLETED
    assert not driver.has_lost_checkpoints()


def test_a_lost_checkpoint_runs_its_trial_again_and_no_third_time(
    driver: Conductor, study: Study
) -> None:
    number = trained(driver)
    parameters = study.trial(number).parameters
    assert driver.has_lost_checkpoints()
    assert driver.next_trial() == Work(
        number, parameters, attempt=2, trained_epochs=2, trained_s=2.0
    )
    driver.on_start(number, 2, NODE, pid=2)
    assert not report(driver, number, 2)
    assert not driver.has_lost_checkpoints()
    assert study.trial(number).exit_reason == ExitReason.CRASHED
    assert [a.cause for a in study.record().trials[0].attempts] == [ExitReason.CRASHED] * 2


def test_a_driver_that_is_started_again_goes_on_counting(driver_of: DriverOf, study: Study) -> None:
    driver = driver_of()
    number = trained(driver)
    assert driver.has_lost_checkpoints()
    successor = driver_of()
    assert trained(successor) == number
    assert not successor.has_lost_checkpoints()
    assert study.trial(number).exit_reason == ExitReason.CRASHED


def test_checkpoints_that_went_with_their_node_are_no_failure(
    driver: Conductor, study: Study, store: Store, nodes: Nodes, printed: io.StringIO
) -> None:
    number = trained(driver)
    nodes.living = {"10.0.0.2"}
    for attempt in (2, 3, 4):
        assert driver.has_lost_checkpoints()
        expected = f"trial   0 goes on elsewhere: its last checkpoint is lost (attempt {attempt})"
        assert expected in printed.getvalue()
        assert trained(driver) == number
    store.keys |= {"trial0-epoch1", "trial0-epoch2"}
    assert not driver.has_lost_checkpoints()
    assert study.trial(number).exit_reason == ExitReason.COMPLETED
    causes = [attempt.cause for attempt in study.trial(number).attempts]
    assert causes == [ExitReason.PREEMPTED] * 3 + [None]


def test_at_its_end_a_search_waits_for_what_lies_on_a_disk(
    driver: Conductor, study: Study, store: Store, nodes: Nodes, printed: io.StringIO
) -> None:
    number = trained(driver)
    store.away = True
    nodes.are_done = False

    def back() -> None:
        store.away = False
        wait_for(lambda: bool(nodes.asked) and "not stored yet" in printed.getvalue())
        time.sleep(2.0)  # by far longer than anything is waited for that no node has
        store.keys.update({"trial0-epoch1", "trial0-epoch2"})
        nodes.are_done = True

    threading.Timer(2.0, back).start()
    assert not driver.has_lost_checkpoints()
    assert study.trial(number).exit_reason == ExitReason.COMPLETED
    assert nodes.asked == [{"trial0-epoch1", "trial0-epoch2"}]
    assert "checkpoints of 1 trained trials are not stored yet" in printed.getvalue()


def test_a_budget_that_is_used_up_meanwhile_ends_no_waiting(
    driver: Conductor, study: Study, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = trained(driver)
    store.away = True
    monkeypatch.setattr("tuning.conductor.ended_by", lambda *_: "its hours are used up")

    def back() -> None:
        wait_for(lambda: driver.ended_by == "its hours are used up")
        store.keys.update({"trial0-epoch1", "trial0-epoch2"})
        store.away = False

    threading.Timer(2.0, back).start()
    assert not driver.has_lost_checkpoints()
    assert study.record().ended == "its hours are used up"
    assert study.trial(number).exit_reason == ExitReason.COMPLETED


def test_a_search_that_is_stopped_waits_for_no_store_and_can_go_on(
    driver: Conductor, study: Study, store: Store
) -> None:
    number = trained(driver)
    store.away = True
    threading.Timer(1.0, study.want_stop).start()
    assert not driver.has_lost_checkpoints()
    study.finish_running(ExitReason.SEARCH_ENDED, driver.ended_by)  # as its driver does
    assert driver.ended_by == "stopped by its user"
    assert [t.number for t in unfinished(study.record())] == [number]


def test_what_a_worker_that_died_may_have_left_is_asked_of_its_node(
    driver: Conductor, nodes: Nodes
) -> None:
    work = begun(driver)
    driver.on_end(work.number, work.attempt, ExitReason.CRASHED, "its worker process died")
    assert nodes.asked_alone == [], "it had trained nothing"
    work = begun(driver)
    assert report(driver, work.number, 1)
    driver.on_end(work.number, work.attempt, ExitReason.PREEMPTED, "its worker was told to leave")
    assert nodes.asked_alone == [(NODE, "trial0-epoch1")]


@pytest.mark.parametrize(
    ("cause", "asked"),
    [
        (ExitReason.UNFIT_NODE, []),
        (ExitReason.DISK_FULL, [(NODE, "trial0-epoch1")]),
        (ExitReason.STALLED, [(NODE, "trial0-epoch1")]),
    ],
)
def test_a_worker_that_lives_on_uploads_by_itself(
    driver: Conductor, nodes: Nodes, cause: ExitReason, asked: list[tuple[str, str]]
) -> None:
    nodes.living.add("10.0.0.2")
    work = begun(driver)
    assert report(driver, work.number, 1)
    driver.on_end(work.number, work.attempt, cause, "")
    assert nodes.asked_alone == asked


def test_sigterm_ends_the_waiting_at_once(driver: Conductor, study: Study, store: Store) -> None:
    number = trained(driver)
    store.away = True
    threading.Timer(1.0, driver.ask_to_end, ["SIGTERM"], {"at_once": True}).start()
    assert not driver.has_lost_checkpoints()
    assert study.trial(number).exit_reason == ExitReason.SEARCH_ENDED


def test_a_driver_that_died_meanwhile_leaves_the_trial_to_the_next_one(
    driver_of: DriverOf, study: Study, store: Store
) -> None:
    number = trained(driver_of())
    successor = driver_of()
    parameters = study.trial(number).parameters
    assert successor.next_trial() == Work(
        number, parameters, attempt=2, trained_epochs=2, trained_s=2.0
    )
    store.keys |= {"trial0-epoch1", "trial0-epoch2"}
    assert not report(successor, number, 2)
    assert not successor.has_lost_checkpoints()
    assert study.trial(number).state == "COMPLETE"


def test_with_others_running_no_proposal_waits(
    driver: Conductor, study: Study, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = driver.next_trial()
    assert isinstance(first, Work)
    store.answers.clear()
    try:
        trained(driver)
        waits = Mock(side_effect=AssertionError("a proposal waits"))
        monkeypatch.setattr(driver._storing, "wait", waits)
        assert isinstance(driver.next_trial(), Work), "though the store is silent"
        assert [t.state for t in study.record().trials] == ["RUNNING"] * 3
    finally:
        store.answers.set()
