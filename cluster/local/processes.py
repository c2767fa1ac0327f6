"""Starting, finding again and ending processes by identity: never by name, never another's."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.local.identity import start_mark
from usererror import UserError

STARTED_BY = "_HOPETUNE_STARTED_BY"
"""Environment variable that every process of a server inherits: whose it is; see :func:`mark`."""

_LAUNCH_TIMEOUT_S = 30.0  # a bare Python starts in 0.1 s; untuned for machines under load
_KILL_PATIENCE_S = 5.0  # the kernel needs milliseconds; untuned
_POLL_S = 0.05


@dataclass(frozen=True)
class Record:
    """Which process a server is, as its launcher wrote it down."""

    pid: int
    start_mark: str
    fingerprint: str
    started_at_s: float
    host: str = ""
    """The name of the machine that it was launched on; earlier versions did not keep it."""

    @property
    def alive(self) -> bool:
        """Whether that very process still runs here (not merely one of its pid)."""
        return start_mark(self.pid) == self.start_mark

    @property
    def is_elsewhere(self) -> bool:
        """Whether it was launched on another machine, where it may run unseen from here."""
        # One that is alive here was not: this machine has another name by now.
        return self.host not in ("", socket.gethostname()) and not self.alive


def read_record(path: Path) -> Record | None:
    """The record in a file; None where there is none or it is damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        record = Record(**json.loads(path.read_text(encoding="utf-8")))
        if isinstance(record.pid, int) and isinstance(record.start_mark, str):
            return record
    return None


def launch(
    command: list[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
    record: Path,
    fingerprint: str,
    lock_fd: int,
) -> Record:
    """Start a command in a session of its own, away from the terminal, and record it.

    Args:
        command: program and arguments; nothing secret, as every user sees them.
        environment: the whole environment.
        folder: working directory.
        log: takes what it prints, appended.
        record: where its identity is kept.
        fingerprint: what it was started for; see ``Server.fingerprint``.
        lock_fd: the held lock of the state directory.

    Raises:
        UserError: the launcher failed.
    """
    record.unlink(missing_ok=True)
    fields = json.dumps(
        {
            "fingerprint": fingerprint,
            "started_at_s": time.time(),
            "host": socket.gethostname(),
        }
    )
    launcher = [sys.executable, "-m", "cluster.local.launch", str(record), fields, str(lock_fd)]
    with log.open("ab") as output:
        try:
            subprocess.run(
                [*launcher, *command],
                check=True,
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lock_fd,),
                timeout=_LAUNCH_TIMEOUT_S,
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise UserError(
                f"local server {record.stem}",
                "cannot be launched",
                got=str(error),
                remedy=f"see {log}",
            ) from error
    # The launcher's first process returns at once; the second writes the record.
    deadline = time.monotonic() + _LAUNCH_TIMEOUT_S
    while (found := read_record(record)) is None:
        if time.monotonic() > deadline:
            raise UserError(f"local server {record.stem}", "did not start", remedy=f"see {log}")
        time.sleep(_POLL_S)
    return found


def family(record: Record | None) -> list[psutil.Process]:
    """The recorded process with all its descendants; empty where it is dead."""
    return family_of(record.pid) if record is not None and record.alive else []


def family_of(pid: int) -> list[psutil.Process]:
    """A process, first, with all its descendants; empty where it is dead."""
    with contextlib.suppress(psutil.NoSuchProcess):
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    return []


def mark(state_dir: Path, name: str) -> str:
    """The mark of one server of one state directory."""
    return f"{name}:{state_dir}"


def marked(state_dir: Path, names: Iterable[str]) -> list[psutil.Process]:
    """Every process that inherited one of these servers' marks, whoever its parent is now.

    Those whose environment may not be read belong to other users and are left out.
    """
    marks = {mark(state_dir, name) for name in names}
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in own and process.environ().get(STARTED_BY) in marks:
                found.append(process)
    return found


def end(processes: Iterable[psutil.Process], *, signal_number: int, grace_s: float) -> None:
    """Ask the first process to end and, after the grace, kill what is left of all of them.

    ``psutil`` compares start times before it signals, so a pid used again is never hit.
    """
    victims = list(processes)
    if not victims:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        victims[0].send_signal(signal_number)
    victims += _born_since(victims)
    alive = _wait_for_ends(victims, grace_s)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _wait_for_ends(alive, _KILL_PATIENCE_S)


def end_marked(state_dir: Path, names: Iterable[str]) -> list[int]:
    """Kill every process that bears one of these servers' marks; the pids that would not die."""
    for process in marked(state_dir, names):
        end([process], signal_number=signal.SIGKILL, grace_s=0.0)
    return [process.pid for process in marked(state_dir, names)]


def _born_since(known: list[psutil.Process]) -> list[psutil.Process]:
    born: list[psutil.Process] = []
    for process in known:
        with contextlib.suppress(psutil.NoSuchProcess):
            born += [child for child in process.children() if child not in known]
    return born


def _wait_for_ends(processes: list[psutil.Process], patience_s: float) -> list[psutil.Process]:
    # Not psutil.wait_procs: a zombie whose parent never reaps it has ended all the same.
    deadline = time.monotonic() + patience_s
    while alive := [process for process in processes if _runs(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    return alive


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and start_mark(process.pid) is not None
