"""One server's life with a small real one: started, found, restarted, and its failures told."""

import dataclasses
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

from cluster.local import http, postgres, processes, server
from cluster.local.credentials import load_or_create
from cluster.local.ports import LOOPBACK, PREFERRED, is_free
from cluster.local.server import Server, UnhealthyError, ensure_running
from cluster.local.state import StateDir
from usererror import UserError


@pytest.fixture
def toy(state: StateDir) -> Server:
    port = next(port for port in range(23_000, 24_000) if is_free(port))
    return Server(
        name="toy",
        address=f"{LOOPBACK}:{port}",
        command=(sys.executable, "-m", "http.server", str(port), "--bind", LOOPBACK),
        environment={"TOY": "1"},
        folder=state.root,
        check=lambda: _check(port),
        start_timeout_s=60.0,
        stop_grace_s=2.0,
    )


def _check(port: int) -> None:
    http.get(f"http://{LOOPBACK}:{port}/")


def ensure(toy: Server, state: StateDir, lines: list[str]) -> bool:
    with state.lock(print) as lock_fd:
        return ensure_running(
            toy, state, lock_fd=lock_fd, progress=lines.append, cancelled=threading.Event()
        )


def pid(state: StateDir) -> int:
    record = processes.read_record(state.record("toy"))
    assert record is not None
    return record.pid


def test_started_then_found_then_stopped(toy: Server, state: StateDir) -> None:
    lines: list[str] = []
    assert ensure(toy, state, lines)
    first = pid(state)
    assert not ensure(toy, state, lines)
    assert pid(state) == first
    assert [" up at " in lines[0], "already up" in lines[1]] == [True, True]
    server.stop(toy, state)
    assert processes.marked(state.root, ["toy"]) == []
    server.stop(toy, state)  # once more does no harm


def test_dead_and_hung_and_outdated_ones_are_restarted(
    toy: Server, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure(toy, state, [])
    first = pid(state)
    os.kill(first, signal.SIGKILL)
    assert ensure(toy, state, [])
    second = pid(state)
    assert second != first

    monkeypatch.setattr(server, "_PATIENCE_WITH_OLD_S", 0.3)
    monkeypatch.setattr(http, "_TIMEOUT_S", 0.3)
    os.kill(second, signal.SIGSTOP)
    # One that has just been started would have all the time of a start to answer.
    record = json.loads(state.record("toy").read_text())
    state.record("toy").write_text(json.dumps(record | {"started_at_s": 0.0}))
    assert ensure(dataclasses.replace(toy, stop_grace_s=0.2), state, [])
    third = pid(state)
    assert third != second

    assert ensure(dataclasses.replace(toy, fingerprint="other port"), state, [])
    assert pid(state) != third


def test_failure_names_the_log_and_its_last_lines(toy: Server, state: StateDir) -> None:
    state.log("toy").write_text("line of an earlier start\n")
    bad = dataclasses.replace(
        toy, command=(sys.executable, "-c", "raise SystemExit('no room on the moon')")
    )
    with pytest.raises(UserError, match="it ended by itself") as caught:
        ensure(bad, state, [])
    assert "no room on the moon" in str(caught.value)
    assert str(state.log("toy")) in str(caught.value)
    assert "earlier start" not in str(caught.value)


def test_never_healthy(toy: Server, state: StateDir) -> None:
    deaf = dataclasses.replace(toy, command=("sleep", "99"), start_timeout_s=0.5)
    with pytest.raises(UserError, match="not healthy within 0 s"):
        ensure(deaf, state, [])


def test_attempts(toy: Server, state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PAUSE_S", 0.0)
    flag = state.root / "flag"
    script = (
        f"import os, sys; from pathlib import Path; flag = Path({str(flag)!r})\n"
        "if not flag.exists(): flag.touch(); sys.exit('not yet')\n"
        f"os.execv(sys.executable, {[*toy.command]!r})"
    )
    stubborn = dataclasses.replace(toy, command=(sys.executable, "-c", script), start_attempts=2)
    assert ensure(stubborn, state, [])


def test_what_servers_inherit(
    toy: Server, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "HOPETUNE_STUDY_URL", "RAY_ADDRESS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "foreign")
    monkeypatch.setenv("HARMLESS", "kept")
    environment = server.environment_for(toy, state)
    assert "foreign" not in environment.values()
    assert environment["HARMLESS"] == "kept"
    assert environment["TOY"] == "1"
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert "127.0.0.1" in environment["NO_PROXY"]


def test_what_does_not_speak_http_is_unhealthy() -> None:
    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"SSH-2.0-OpenSSH\r\n")

    with socket.create_server((LOOPBACK, 0)) as listener:
        threading.Thread(target=answer, args=(listener,)).start()
        with pytest.raises(UnhealthyError, match=r"SSH-2\.0"):
            _check(listener.getsockname()[1])


def test_databases_that_cannot_be_made(state: StateDir) -> None:
    port = next(port for port in range(23_000, 24_000) if is_free(port))
    with pytest.raises(UserError, match="postgresql: its databases cannot be made; got 'conn"):
        postgres._provide(port, load_or_create(state.secrets))


def test_large_log_is_put_aside(
    toy: Server, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_LOG_BYTES_KEPT", 10)
    state.log("toy").write_text("a" * 11)
    ensure(toy, state, [])
    assert state.log("toy").with_suffix(".log.1").read_text() == "a" * 11
    assert "aaa" not in state.log("toy").read_text()


def test_preferred_ports_cover_all_servers() -> None:
    from cluster.local.servers import NAMES

    assert set(PREFERRED) == set(NAMES)
