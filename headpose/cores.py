"""How much of a machine's processor this process may use."""

import os


def cores() -> int:
    """Cores that this process may use; those of the machine where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
