"""What every local server has in common: how it is started, watched, and ended."""

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.local import processes
from cluster.local.state import StateDir
from cluster.settings import beside_proxies
from usererror import UserError

Progress = Callable[[str], None]

_POLL_S = 0.15
_PAUSE_S = 1.0
_ENDED = "it ended by itself"
_LOG_LINES = 15
_LOG_BYTES_KEPT = 10_000_000
_PATIENCE_WITH_OLD_S = 60.0
"""How long a server that was up before may go unanswering before it is restarted: a machine under
load stalls for tens of seconds, and what runs on the server ends with it. Untuned."""

# Would send clients and servers elsewhere, or outrank the credentials file.
_FOREIGN_PREFIXES = ("HOPETUNE_", "AWS_", "MLFLOW_", "PG")
_FOREIGN = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_TMPDIR", "OMP_NUM_THREADS")


class UnhealthyError(Exception):
    """A server does not answer as it should; says how.

    Args:
        how: in words.
        is_refusal: nobody listens there, so a stall is not the reason.
    """

    def __init__(self, how: str, *, is_refusal: bool = False) -> None:
        super().__init__(how)
        self.is_refusal = is_refusal


def _nothing() -> None:
    return


def _always(started_for: str) -> None:  # noqa: ARG001
    return


@dataclass(frozen=True)
class Server:
    """One local server: what to execute, and how to know that it is well.

    Attributes:
        fingerprint: what its command depends on beside its own files (other servers' ports);
            a running server started for something else is restarted.
        may_restart: asked before that, with what it was started for; raises UserError where
            something runs on it that would end.
        prepare: runs before each start, with the server not running.
        check: one quick look, with time-outs of a few seconds; raises :class:`UnhealthyError`.
        provide: makes what clients need (databases, the bucket) where it is missing.
        start_attempts: more than one where an end by itself may be over in a second, or is that of
            a server which gives itself less time than a busy machine takes.
    """

    name: str
    address: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    check: Callable[[], None]
    fingerprint: str = ""
    prepare: Callable[[], None] = _nothing
    provide: Callable[[], None] = _nothing
    may_restart: Callable[[str], None] = _always
    stop_signal: int = signal.SIGTERM
    stop_grace_s: float = 10.0
    start_timeout_s: float = 90.0
    start_attempts: int = 1


def ensure_running(
    server: Server,
    state: StateDir,
    *,
    lock_fd: int,
    progress: Progress,
    cancelled: threading.Event,
) -> bool:
    """Have the server up and well; True if it had to be started.

    Raises:
        UserError: it did not get well in time (names the log and shows its last lines), or it may
            not be restarted now.
    """
    record = processes.read_record(state.record(server.name))
    if record and record.alive and record.fingerprint != server.fingerprint:
        server.may_restart(record.fingerprint)
    elif record and record.alive:
        age_s = time.time() - record.started_at_s
        patience_s = max(_PATIENCE_WITH_OLD_S, server.start_timeout_s - age_s)
        if _becomes_healthy(server, record, patience_s, cancelled) is None:
            server.provide()
            progress(f"{server.name:<11} already up at {server.address}")
            return False
    began_s = time.monotonic()
    for attempts_left in reversed(range(server.start_attempts)):
        stop(server, state)  # what an earlier start left, this one's too, would be in the way
        trouble = _start(server, state, lock_fd, cancelled)
        if trouble is None:
            break
        if trouble.what != _ENDED or not attempts_left:
            raise trouble
        progress(f"{server.name:<11} {_ENDED}; it is started again")
        time.sleep(_PAUSE_S)
    server.provide()
    progress(f"{server.name:<11} up at {server.address} ({time.monotonic() - began_s:.1f} s)")
    return True


def stop(server: Server, state: StateDir) -> None:
    """End the server with its whole family, asking first; and what is left of an earlier one."""
    record = processes.read_record(state.record(server.name))
    processes.end(
        processes.family(record), signal_number=server.stop_signal, grace_s=server.stop_grace_s
    )
    processes.end_marked(state.root, [server.name])
    state.record(server.name).unlink(missing_ok=True)


def environment_for(server: Server, state: StateDir) -> dict[str, str]:
    """This process's environment without what would mislead a server, with the server's own."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN_PREFIXES) and name not in _FOREIGN
    }
    programs = str(Path(sys.executable).parent)
    return inherited | {
        "PATH": programs + os.pathsep + inherited.get("PATH", os.defpath),
        **beside_proxies(inherited),
        "PYTHONUNBUFFERED": "1",
        processes.STARTED_BY: processes.mark(state.root, server.name),
        **server.environment,
    }


def _start(
    server: Server, state: StateDir, lock_fd: int, cancelled: threading.Event
) -> UserError | None:
    """None once it is healthy, else what is to be told."""
    server.prepare()
    log = state.log(server.name)
    log_from = _open_log(log)
    record = processes.launch(
        list(server.command),
        environment=environment_for(server, state),
        folder=server.folder,
        log=log,
        record=state.record(server.name),
        fingerprint=server.fingerprint,
        lock_fd=lock_fd,
    )
    trouble = _becomes_healthy(server, record, server.start_timeout_s, cancelled)
    return None if trouble is None else _not_well(server, trouble, log, log_from)


def _becomes_healthy(
    server: Server, record: processes.Record, patience_s: float, cancelled: threading.Event
) -> str | None:
    """None once the check passes; else what was wrong at the end."""
    deadline = time.monotonic() + patience_s
    while True:
        # The last look begins after it: a stall of this very process is none of the server's.
        is_last = time.monotonic() > deadline
        try:
            server.check()
        except UnhealthyError as error:
            trouble = str(error)
        else:
            return None
        if not record.alive:
            return _ENDED
        if cancelled.is_set():
            return "the start was broken off"
        if is_last:
            return f"not healthy within {patience_s:.0f} s ({trouble})"
        time.sleep(_POLL_S)


def _open_log(log: Path) -> int:
    """Put a log that has grown large aside; the position where this start's lines begin."""
    size = log.stat().st_size if log.exists() else 0
    if size > _LOG_BYTES_KEPT:
        log.replace(log.with_suffix(".log.1"))
        return 0
    return size


def _not_well(server: Server, trouble: str, log: Path, log_from: int) -> UserError:
    with log.open("rb") as file:
        file.seek(log_from)
        last = deque(file, maxlen=_LOG_LINES)
    lines = b"".join(last).decode("utf-8", errors="replace").rstrip()
    return UserError(
        f"local server {server.name}",
        trouble,
        remedy=f"see {log}; its last lines:\n{lines}" if lines else f"see {log} (empty)",
    )
