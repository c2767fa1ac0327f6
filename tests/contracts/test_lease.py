"""One driver at a time writes a search, on each database that may hold it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.settings import Settings
from tuning import lease
from tuning.exits import ExitReason
from tuning.lease import Lease, LeaseLostError, holder_of
from tuning.records import EpochRecord
from tuning.space import Range
from tuning.spec import Budget, Data, SearchSpec
from tuning.storage import Storage
from usererror import UserError

SPEC = SearchSpec(
    name="small",
    data=Data(train="/data/train"),
    parameters={"learning_rate": Range(low=1e-5, high=1e-3, log=True)},
    budget=Budget(trials=6, epochs=3),
)
EPOCH = EpochRecord(1, 1001, {"val_mae": 9.0}, "key", restored=False)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        settings: Settings = request.getfixturevalue("servers")
        return settings.require("study_url")
    return f"sqlite:///{tmp_path}/study.db"


@pytest.fixture
def storage(url: str) -> Iterator[Storage]:
    with Storage(url) as opened:
        yield opened


@pytest.fixture
def other(url: str) -> Iterator[Storage]:
    """The same studies, as another driver sees them."""
    with Storage(url) as opened:
        yield opened


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"lease-{abs(hash(request.node.name))}"


@pytest.fixture
def said() -> list[str]:
    return []


def driver_elsewhere(url: str, name: str, end: str) -> "subprocess.Popen[str]":
    """A process that drives the search, tells so, and then does ``end``."""
    code = (
        "import sys, time\n"
        "from tuning.storage import Storage\n"
        f"with Storage({url!r}) as storage, storage.driving({name!r}, print):\n"
        "    print('drives', flush=True)\n"
        f"    {end}\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "drives\n"
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    assert process.stdout is not None
    process.stdout.close()


def test_a_second_driver_does_not_start_beside_a_living_one(
    url: str, storage: Storage, name: str, said: list[str]
) -> None:
    living = driver_elsewhere(url, name, "time.sleep(300)")
    try:
        with (
            pytest.raises(UserError, match=rf"another driver.*process {living.pid} on .* since"),
            storage.driving(name, said.append),
        ):
            pytest.fail("two drivers")
        assert storage.drivers()[name].pid == living.pid
    finally:
        kill(living)


def test_after_a_killed_driver_of_this_machine_the_next_takes_over_at_once(
    url: str, storage: Storage, name: str, said: list[str]
) -> None:
    kill(driver_elsewhere(url, name, "time.sleep(300)"))
    assert name not in storage.drivers()
    with storage.driving(name, said.append):
        assert storage.drivers()[name].pid == os.getpid()
    assert said == [], "nothing to wait for"
    assert name not in storage.drivers()


def test_the_next_driver_waits_for_one_that_may_live_on_another_machine(
    storage: Storage,
    other: Storage,
    name: str,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, "TTL_S", 300.0)

    def say(text: str) -> None:
        said.append(text)
        monkeypatch.setattr(lease, "TTL_S", 1.0)  # the rest of it is waited for

    assert storage._rdb is not None
    silent = Lease(storage._rdb.engine, name)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(lease, "machine_mark", lambda: "another machine")
        assert silent._try(None)
    assert name in other.drivers()
    with other.driving(name, say):
        assert len(said) == 1
        assert "waiting up to 300 s" in said[0]


def test_a_beating_driver_on_another_machine_is_not_taken_for_dead(
    storage: Storage,
    other: Storage,
    name: str,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.2)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(lease, "machine_mark", lambda: "another machine")
        with storage.driving(name, said.append):
            elsewhere.setattr(lease, "machine_mark", lambda: "this machine")
            with (
                pytest.raises(UserError, match="another driver runs this search"),
                other.driving(name, said.append),
            ):
                pytest.fail("two drivers")


def test_a_driver_that_was_frozen_and_replaced_writes_nothing_more(
    storage: Storage, other: Storage, name: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 3600.0)  # as if frozen
    with storage.driving(name, said.append):
        frozen = storage.create(name, SPEC, "abc")
        found = frozen.ask()
        assert found is not None
        number = found[0]
        monkeypatch.setattr(lease, "TTL_S", 0.0)
        with other.driving(name, said.append):
            successor = other.open(name)
            assert [n for n, _ in successor.adopt()] == [number]
            for write in (
                lambda: frozen.record_epoch(number, EPOCH),
                lambda: frozen.finish(number, ExitReason.CRASHED),
                frozen.ask,
                lambda: frozen.end("it thinks so"),
            ):
                storage._rdb.lease._lost.clear()  # type: ignore[union-attr] # not even noticed yet
                with pytest.raises(LeaseLostError, match="another driver has taken it over"):
                    write()
            record = other.open(name).record()
            assert (record.ended, len(record.trials), record.trials[0].curve) == (None, 1, {})
            assert successor.record_epoch(number, EPOCH)
        assert isinstance(storage.fault, LeaseLostError)


def test_the_row_stays_while_its_holder_beats(
    storage: Storage, name: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    assert storage._rdb is not None
    engine = storage._rdb.engine
    with storage.driving(name, said.append):
        first = last = holder_of(engine, name)
        assert first is not None
        while last is None or last.beat_s <= first.beat_s:
            last = holder_of(engine, name)
        assert (last.token, last.since_s) == (first.token, first.since_s)
