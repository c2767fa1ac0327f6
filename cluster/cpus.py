"""The CPUs that a process may use here: in a container often fewer than its host has."""

import contextlib
import math
import os
from pathlib import Path


def usable_cpus(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """How many CPUs this process may use, by its affinity and its container's quota."""
    every = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else every
    return max(1, math.floor(min(allowed, _quota(groups))))


def _quota(groups: Path) -> float:
    """CPUs' worth of time that a container gets; infinite where nothing says so."""
    with contextlib.suppress(OSError, ValueError):  # where there is no limit, it says `max`
        quota, period = map(int, (groups / "cpu.max").read_text(encoding="ascii").split())
        return quota / period
    with contextlib.suppress(OSError, ValueError):  # the first version of control groups
        of_v1 = (groups / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
        quota, period = (int(file.read_text(encoding="ascii")) for file in of_v1)
        return quota / period if quota > 0 else math.inf
    return math.inf
