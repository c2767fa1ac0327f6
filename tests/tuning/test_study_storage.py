"""A study outlasts its database's absence, and nothing is in it twice."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from cluster.local import postgres
from cluster.local.ports import LOOPBACK
from tuning.exits import ExitReason
from tuning.records import EpochRecord
from tuning.space import Range
from tuning.spec import Budget, Data, SearchSpec
from tuning.storage import Storage
from tuning.study import Study
from usererror import UserError

SPEC = SearchSpec(
    name="small",
    data=Data(train="/data/train"),
    parameters={"learning_rate": Range(low=1e-5, high=1e-3, log=True)},
    budget=Budget(trials=100, epochs=3),
)


def epoch(number: int) -> EpochRecord:
    return EpochRecord(number, 1000 + number, {"val_mae": 9.0 - number}, "key", restored=False)


def whole_trial(study: Study) -> int:
    found = study.ask()
    assert found is not None
    number, _ = found
    for index in (1, 2, 3):
        study.record_epoch(number, epoch(index))
    study.finish(number, ExitReason.COMPLETED)
    return number


class OwnPostgres:
    """A PostgreSQL of this test alone, which may be killed."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(self._data, 65534, 65534)
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            self._port: int = probe.getsockname()[1]
        self.url = f"postgresql+psycopg://postgres@{LOOPBACK}:{self._port}/postgres"
        made = self._run("initdb", "--auth=trust", "--username=postgres", "--no-sync").wait()
        assert made == 0
        self.start()

    def start(self) -> None:
        self._launch()
        self._wait()

    def _launch(self) -> None:
        options = (f"listen_addresses={LOOPBACK}", f"port={self._port}")
        options = (*options, "unix_socket_directories=")
        self._process = self._run("postgres", *(part for o in options for part in ("-c", o)))

    def kill(self, how: signal.Signals) -> None:
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(how)
        for child in children if how == signal.SIGKILL else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(how)
        self._process.wait(timeout=60)

    def _run(self, name: str, *options: str) -> "subprocess.Popen[bytes]":
        program = str(postgres._binary(name, self._data))
        command = [*postgres._as_allowed_user(), program, "-D", str(self._data), *options]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)

    def _wait(self) -> None:
        until = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url.replace("+psycopg", ""), connect_timeout=2).close()
            except psycopg.OperationalError:
                assert time.monotonic() < until
                time.sleep(0.1)
                if self._process.poll() is not None:
                    self._launch()  # a child of the killed one had not noticed yet
            else:
                return


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[OwnPostgres]:
    server = OwnPostgres(tmp_path)
    yield server
    server.kill(signal.SIGINT)


@pytest.mark.servers
def test_a_killed_database_costs_nothing_but_time(
    own_postgres: OwnPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []
    ending = threading.Event()

    def write() -> None:
        with Storage(own_postgres.url, patience_s=90) as storage, storage.driving("x", print):
            study = storage.create("x", SPEC, "abc")
            while not ending.is_set():
                done.append(whole_trial(study))

    writer = threading.Thread(target=write)
    writer.start()
    for absences, how in enumerate((signal.SIGKILL, signal.SIGINT, signal.SIGKILL)):
        begun = len(done)
        while len(done) < begun + 2:
            assert writer.is_alive()
            time.sleep(0.01)
        own_postgres.kill(how)
        while caplog.text.count("the study database is away") <= absences:
            time.sleep(0.01)
        own_postgres.start()
    begun = len(done)
    while len(done) < begun + 2 and writer.is_alive():
        time.sleep(0.01)
    ending.set()
    writer.join()
    with Storage(own_postgres.url) as storage:
        study = storage.open("x")
        record = study.record()
        assert len(study._trials()) == len(done), "no entry twice, none lost"
    assert [t.number for t in record.trials] == done
    assert {t.state for t in record.trials} == {"COMPLETE"}
    assert all(sorted(t.curve) == [1, 2, 3] for t in record.trials)
    assert caplog.text.count("the study database is back") == 3


@pytest.mark.servers
def test_patience_has_an_end(own_postgres: OwnPostgres) -> None:
    with Storage(own_postgres.url, patience_s=1) as storage:
        study = storage.create("x", SPEC, "abc")
        own_postgres.kill(signal.SIGKILL)
        try:
            with pytest.raises(UserError, match="the study database cannot be reached"):
                study.ask()
            assert storage.fault is not None
        finally:
            own_postgres.start()


@pytest.mark.servers
def test_a_server_that_became_a_standby_is_left(
    own_postgres: OwnPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    """Its old connections still answer, but take no writes; new ones find the one that does."""
    with Storage(own_postgres.url, patience_s=30) as storage:
        study = storage.create("x", SPEC, "abc")
        found = study.ask()
        assert found is not None
        assert storage._rdb is not None
        with contextlib.ExitStack() as stack:
            for _ in range(3):  # as many as the pool has, at least
                connection = stack.enter_context(storage._rdb.engine.connect())
                connection.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
                connection.commit()
        study.record_epoch(found[0], epoch(1))
        (trial,) = storage.open("x")._trials()
        assert trial.intermediate_values == {1: 8.0}
    assert "is away (cannot execute INSERT in a read-only transaction)" in caplog.text
    assert caplog.text.count("the study database is back") == 1


@pytest.mark.servers
def test_nothing_is_kept_in_a_connection_that_a_pooler_may_swap(own_postgres: OwnPostgres) -> None:
    with Storage(own_postgres.url) as storage:
        whole_trial(storage.create("x", SPEC, "abc"))
        for _ in range(10):  # psycopg prepares what it is asked for the sixth time
            storage.names()
        assert storage._rdb is not None
        with storage._rdb.engine.connect() as connection:
            kept = connection.exec_driver_sql("SELECT statement FROM pg_prepared_statements")
            assert kept.all() == []


@pytest.mark.parametrize("lost", range(12))
def test_a_write_whose_confirmation_is_lost_is_done_once(tmp_path: Path, lost: int) -> None:
    """The ``lost``-th commit from here on arrives, but its sender is told that it did not."""
    with Storage(f"sqlite:///{tmp_path}/study.db", patience_s=30) as storage:
        study = storage.create("x", SPEC, "abc")
        assert storage._rdb is not None
        commits = 0

        def break_off(session: object) -> None:
            nonlocal commits
            commits += 1
            if commits == lost + 1:
                raise OperationalError("commit", {}, ConnectionError("the line is cut"))

        event.listen(storage._rdb.scoped_session, "after_commit", break_off)
        assert [whole_trial(study) for _ in range(3)] == [0, 1, 2]
        assert commits > lost
        assert len(study._trials()) == 3
        record = storage.open("x").record()
        assert [t.state for t in record.trials] == ["COMPLETE"] * 3
        assert all(sorted(t.curve) == [1, 2, 3] for t in record.trials)


@pytest.mark.parametrize("lost", range(5))
def test_an_epoch_and_its_value_come_together(tmp_path: Path, lost: int) -> None:
    """Whichever statement of a write is the last that is heard: all of it is there, or nothing."""
    with Storage(f"sqlite:///{tmp_path}/study.db") as storage:
        study = storage.create("x", SPEC, "abc")
        found = study.ask()
        assert found is not None
        assert storage._rdb is not None
        statements = 0

        def break_off(*_: object) -> None:
            nonlocal statements
            statements += 1
            if statements == lost + 1:
                raise OperationalError("statement", {}, ConnectionError("the line is cut"))

        event.listen(storage._rdb.engine, "after_cursor_execute", break_off)
        with pytest.raises(UserError, match="cannot be reached"):
            study.record_epoch(found[0], epoch(1))
        event.remove(storage._rdb.engine, "after_cursor_execute", break_off)
        (trial,) = storage.open("x")._trials()
        assert statements == lost + 1
        assert trial.intermediate_values == {}
        assert not [name for name in trial.user_attrs if name.startswith("epoch:")]


@pytest.mark.servers
def test_a_write_whose_first_try_arrives_late_is_done_once(own_postgres: OwnPostgres) -> None:
    """The line was cut, and the server still had the write in hand when it was tried again."""
    with Storage(own_postgres.url) as storage:
        study = storage.create("x", SPEC, "abc")
        found = study.ask()
        assert found is not None
        (trial,) = study._trials()
        again = threading.Thread(target=study.record_epoch, args=(found[0], epoch(1)))
        with psycopg.connect(own_postgres.url.replace("+psycopg", "")) as late:
            late.execute(
                "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
                "VALUES (%s, 'epoch:0001', '{}')",
                (trial._trial_id,),
            )
            late.execute(
                "INSERT INTO trial_intermediate_values "
                "(trial_id, step, intermediate_value, intermediate_value_type) "
                "VALUES (%s, 1, 7.0, 'FINITE')",
                (trial._trial_id,),
            )
            again.start()
            # By itself each, for within a transaction what is seen of others stays as it was.
            url = own_postgres.url.replace("+psycopg", "")
            with psycopg.connect(url, autocommit=True) as other:
                while not other.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                ).fetchone():
                    assert again.is_alive()
                    time.sleep(0.01)
            late.commit()
            again.join()
        (trial,) = storage.open("x")._trials()
        assert trial.intermediate_values == {1: 8.0}
        assert trial.user_attrs["epoch:0001"]["metrics"] == {"val_mae": 8.0}


@pytest.mark.parametrize(
    "url",
    [
        "a word with secret",
        "mysql://me:secret@host/name",
        "no+driver://me:secret@host/name",
        "postgresql+psycopg://me:secret@host:port/name",
    ],
)
def test_what_is_no_database_is_told_without_its_password(url: str) -> None:
    with pytest.raises(UserError, match=r"settings\.study_url: not the URL") as error:
        Storage(url)
    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///studies.db",
        "sqlite:///file:/tmp/studies.db",  # a file of that whole name, beside the job
        "sqlite:///file:studies.db?uri=true",
        "sqlite:///file::memory:?cache=shared&uri=true",
        "sqlite:////tmp/studies.db?mode=memory&uri=true",
    ],
)
def test_a_database_of_each_process_its_own_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"settings\.study_url: not the URL .* sqlite:////PATH"):
        Storage(url)


@pytest.mark.parametrize(
    ("form", "wait_ms"),
    [
        ("sqlite:///{}", 60_000),
        ("sqlite:///{}?timeout=3", 3_000),
        ("sqlite:///file:{}?uri=true", 60_000),
    ],
)
def test_another_writer_is_waited_for(tmp_path: Path, form: str, wait_ms: int) -> None:
    with Storage(form.format(tmp_path / "study.db")) as storage:
        assert storage._rdb is not None
        with storage._rdb.engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    assert (found, (tmp_path / "study.db").is_file()) == (wait_ms, True)


class Connects:
    """Notes the patience, in seconds, with which connections are made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patience_s: list[int] = []
        self._truly = psycopg.connect
        monkeypatch.setattr(psycopg, "connect", self)

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        self.patience_s.append(int(more["connect_timeout"]))
        return self._truly(*arguments, **more)


def test_a_database_that_is_down_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    connects, began_s = Connects(monkeypatch), time.monotonic()
    with pytest.raises(UserError, match="the study database cannot be reached"):
        Storage("postgresql+psycopg://nobody:nothing@127.0.0.1:1/hopetune")
    assert time.monotonic() - began_s < 20
    assert set(connects.patience_s) == {60}


@pytest.mark.servers
@pytest.mark.parametrize(("query", "expected"), [("", {10}), ("?connect_timeout=7", {7})])
def test_later_connections_are_given_up_sooner(
    own_postgres: OwnPostgres, monkeypatch: pytest.MonkeyPatch, query: str, expected: set[int]
) -> None:
    with Storage(own_postgres.url + query) as storage:
        assert storage._rdb is not None
        storage._rdb.engine.dispose()
        connects = Connects(monkeypatch)
        assert storage.names() == []
    assert set(connects.patience_s) == expected
