"""Processes are known by identity, ended with their families, and never confused."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster.local import processes
from cluster.local.identity import start_mark
from cluster.local.processes import Record
from cluster.local.servers import down
from cluster.local.state import StateDir

# A parent whose child ignores SIGTERM; the child's pid is printed.
FAMILY = (
    "import subprocess, sys, time\n"
    "child = 'import signal, time; signal.signal(15, signal.SIG_IGN); print(0, flush=True)\\n'"
    "'time.sleep(100)'\n"
    "c = subprocess.Popen([sys.executable, '-c', child], stdout=subprocess.PIPE)\n"
    "c.stdout.readline(); print(c.pid, flush=True); time.sleep(100)\n"
)


def launch(state: StateDir, *command: str) -> Record:
    with state.lock(print) as lock_fd:
        return processes.launch(
            list(command),
            environment=os.environ | {processes.STARTED_BY: processes.mark(state.root, "toy")},
            folder=state.root,
            log=state.log("toy"),
            record=state.record("toy"),
            fingerprint="f",
            lock_fd=lock_fd,
        )


def until(condition: object, patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_launched_process_is_recorded_and_leaves_the_terminal(state: StateDir) -> None:
    record = launch(
        state, sys.executable, "-c", "import time; print('hello', flush=True); time.sleep(99)"
    )
    assert record.alive
    assert record == processes.read_record(state.record("toy"))
    assert record.fingerprint == "f"
    assert record.host == socket.gethostname()
    assert os.getsid(record.pid) == record.pid != os.getsid(0)
    assert psutil.Process(record.pid).ppid() != os.getpid()
    until(lambda: "hello" in state.log("toy").read_text())
    assert [p.pid for p in processes.marked(state.root, ["toy"])] == [record.pid]
    assert processes.marked(state.root, ["other"]) == []
    assert processes.marked(state.root / "elsewhere", ["toy"]) == []


def test_down_ends_what_outlived_its_state_directory(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    bears = {processes.STARTED_BY: processes.mark(gone, "ray")}
    with subprocess.Popen(["sleep", "99"], env=os.environ | bears) as left:
        down(gone)
        assert left.wait(60) == -signal.SIGKILL
    assert not gone.exists()


def test_launched_process_does_not_hold_the_lock(state: StateDir) -> None:
    record = launch(state, "sleep", "99")
    # Its arguments are there when it has let go of what it must not have; its name comes before.
    until(lambda: psutil.Process(record.pid).cmdline() == ["sleep", "99"])
    with state.lock(pytest.fail):
        pass


def test_missing_program_ends_in_the_log(state: StateDir) -> None:
    record = launch(state, "/no/such/program")
    until(lambda: not record.alive)
    assert "cannot execute /no/such/program" in state.log("toy").read_text()


def test_family_ends_whole_even_if_a_child_will_not(state: StateDir) -> None:
    record = launch(state, sys.executable, "-c", FAMILY)
    until(lambda: state.log("toy").read_text().strip())
    child = psutil.Process(int(state.log("toy").read_text()))
    family = processes.family(record)
    assert [p.pid for p in family] == [record.pid, child.pid]
    processes.end(family, signal_number=signal.SIGTERM, grace_s=0.5)
    assert not record.alive
    assert start_mark(child.pid) is None


def test_orphans_are_found_by_their_mark(state: StateDir) -> None:
    record = launch(state, sys.executable, "-c", FAMILY)
    until(lambda: state.log("toy").read_text().strip())
    os.kill(record.pid, signal.SIGKILL)
    until(lambda: not record.alive)
    assert processes.family(record) == []
    assert [p.pid for p in processes.marked(state.root, ["toy"])] == [
        int(state.log("toy").read_text())
    ]


def test_pid_used_again_is_another_process() -> None:
    with subprocess.Popen(["sleep", "99"]) as other:
        mark = start_mark(other.pid)
        assert mark is not None
        stale = Record(other.pid, start_mark=mark + "1", fingerprint="", started_at_s=0, host="")
        assert not stale.alive
        assert processes.family(stale) == []
        other.kill()


def test_zombie_counts_as_dead() -> None:
    with subprocess.Popen(["true"]) as child:
        until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
        assert start_mark(child.pid) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', json.dumps({"pid": "x"})])
def test_damaged_record_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    assert processes.read_record(tmp_path / "r.json") is None


def test_zombie_with_a_living_thread_is_not_dead_yet(tmp_path: Path) -> None:
    """It still holds its ports; a killed server with many threads is like that for a moment."""
    code = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(99,)).start()\n"
        "print(1, flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"  # ends the first thread alone
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
        assert start_mark(child.pid) is not None
        child.kill()
        until(lambda: start_mark(child.pid) is None)
