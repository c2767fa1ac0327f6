"""A machine under load stalls for tens of seconds: no server is ended or called down for that."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from cluster.local import http, postgres, processes, ray_head, seaweed, server, servers
from cluster.local.credentials import load_or_create
from cluster.local.identity import start_mark
from cluster.local.ports import LOOPBACK, PREFERRED, is_free
from cluster.local.server import Server, UnhealthyError, ensure_running
from cluster.local.servers import ServerStatus
from cluster.local.state import StateDir


class Clock:
    """Time that passes only where somebody waits."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def time(self) -> float:
        return self.now_s

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def toy(state: StateDir, check: Callable[[], None]) -> Server:
    return Server("toy", "somewhere", ("sleep", "99"), {}, state.root, check, start_timeout_s=1.0)


def silent() -> None:
    raise UnhealthyError("timed out") from TimeoutError()


def record_of(pid: int) -> processes.Record:
    return processes.Record(pid, str(start_mark(pid)), "", started_at_s=0.0)


def note_as_running(state: StateDir, pid: int) -> None:
    state.record("toy").write_text(json.dumps(dataclasses.asdict(record_of(pid))))


def test_a_server_that_stalls_for_three_quarters_of_a_minute_is_left_alone(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(server, "time", clock)

    def check() -> None:
        if clock.now_s < 1045:
            silent()

    with subprocess.Popen(["sleep", "99"]) as running:
        note_as_running(state, running.pid)
        started = ensure_running(
            toy(state, check), state, lock_fd=-1, progress=print, cancelled=threading.Event()
        )
        is_left_alone = running.poll() is None
        running.kill()
    assert (started, is_left_alone) == (False, True)


def test_a_stall_of_the_looking_process_is_not_the_servers(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, looks = Clock(), 0
    monkeypatch.setattr(server, "time", clock)

    def check() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            clock.sleep(100)
            silent()

    record = record_of(os.getpid())
    found = server._becomes_healthy(toy(state, check), record, 60.0, threading.Event())
    assert (found, looks) == (None, 2)


def test_what_a_failed_start_left_is_gone_before_the_next(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head of Ray that gives up leaves workers, which hold its ports for a moment."""
    monkeypatch.setattr(server, "_PAUSE_S", 0.0)
    port = next(port for port in range(22_000, 23_000) if is_free(port))
    serve = [sys.executable, "-m", "http.server", str(port), "--bind", LOOPBACK]
    left = state.root / "left"
    script = (
        f"import os, pathlib, subprocess, sys; left = pathlib.Path({str(left)!r})\n"
        "if not left.exists():\n"
        "    left.write_text(str(subprocess.Popen(['sleep', '99']).pid)); sys.exit('not yet')\n"
        f"os.execv(sys.executable, {serve!r})"
    )
    stubborn = dataclasses.replace(
        toy(state, lambda: http.get(f"http://{LOOPBACK}:{port}/") and None),
        command=(sys.executable, "-c", script),
        start_timeout_s=60.0,
        start_attempts=2,
    )
    with state.lock(print) as lock_fd:
        assert ensure_running(
            stubborn, state, lock_fd=lock_fd, progress=print, cancelled=threading.Event()
        )
    running = [process.pid for process in processes.marked(state.root, ["toy"])]
    assert int(left.read_text()) not in running
    assert len(running) == 1


def test_a_head_that_ends_at_its_own_time_limit_is_started_again(state: StateDir) -> None:
    secrets = load_or_create(state.secrets)
    assert ray_head.server(state, PREFERRED["ray"], secrets, state.root, 2).start_attempts > 1


@pytest.mark.parametrize(("silent_looks", "is_up"), [(0, True), (3, True), (99, False)])
def test_the_status_of_a_server_that_stalls(
    state: StateDir, monkeypatch: pytest.MonkeyPatch, silent_looks: int, is_up: bool
) -> None:
    clock, looks = Clock(), 0
    monkeypatch.setattr(servers, "time", clock)

    def check() -> None:
        nonlocal looks
        looks += 1
        if looks <= silent_looks:
            clock.sleep(3)
            silent()

    note_as_running(state, os.getpid())
    found = servers._status_of(toy(state, check), state)
    detail = "" if is_up else "timed out"
    assert found == ServerStatus("toy", "somewhere", os.getpid(), is_up, detail)
    assert clock.now_s <= 1025


@pytest.mark.parametrize("kind", ["http", "postgresql", "s3"])
def test_the_status_of_a_server_that_is_down_is_told_at_once(
    state: StateDir, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    clock = Clock()
    monkeypatch.setattr(servers, "time", clock)
    port = next(port for port in range(22_000, 23_000) if is_free(port))
    secrets = load_or_create(state.secrets)
    look = {
        "http": lambda: http.get(f"http://{LOOPBACK}:{port}/") and None,
        "postgresql": lambda: postgres._check(port, secrets),
        "s3": lambda: seaweed._check({"s3": port}, secrets, "bucket"),
    }[kind]
    note_as_running(state, os.getpid())
    found = servers._status_of(toy(state, look), state)
    assert not found.healthy
    assert "refused" in found.detail or "Could not connect" in found.detail
    assert clock.now_s < 1001


def test_the_status_of_a_server_that_dies_is_told_at_once(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(servers, "time", clock)
    with subprocess.Popen(["sleep", "99"]) as running:
        note_as_running(state, running.pid)

        def dies() -> None:
            running.kill()
            running.wait()
            silent()

        assert servers._status_of(toy(state, dies), state).detail == "not running"
    assert clock.now_s < 1001
