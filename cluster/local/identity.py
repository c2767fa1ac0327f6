"""Which process a pid meant: pids are used again, a pid with its start time is not.

Standard library only on Linux, because :mod:`cluster.local.launch` imports this in every start.
"""

import uuid
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PIDS = Path("/proc/self/ns/pid")


def start_mark(pid: int) -> str | None:
    """What tells this process from every other one that ever had its pid; None if it is dead.

    On Linux the boot and the start in clock ticks since that boot: unlike a time of day they do
    not move when the clock is set. A zombie counts as dead, once its last thread has ended: until
    then it holds its ports and files.
    """
    if not _BOOT_ID.exists():
        return _create_time(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name may hold spaces and brackets: count fields after the last bracket.
    fields = stat.rpartition(")")[2].split()
    state, threads, start_ticks = fields[0], int(fields[17]), fields[19]  # proc(5): 3, 20, 22
    if state in "ZX" and threads <= 1:
        return None
    return f"{_BOOT_ID.read_text(encoding='ascii').strip()}:{start_ticks}"


def machine_mark() -> str:
    """What tells this machine from every other one on which the same pid means another process: on
    Linux the boot and the space of pids, which a container has of its own."""
    if not _BOOT_ID.exists():
        return f"{uuid.getnode():x}"
    return f"{_BOOT_ID.read_text(encoding='ascii').strip()}:{_PIDS.readlink()}"


def _create_time(pid: int) -> str | None:
    import psutil  # noqa: PLC0415 (not needed on Linux)

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
