"""Becomes a server: leaves the terminal, writes down who it is, then executes the command.

``python -m cluster.local.launch RECORD FIELDS LOCK_FD COMMAND…`` with the server's environment,
working directory and log already set. The record is written before the command runs, and the
lock that ``up`` holds is shared until then: an ``up`` killed at any moment leaves no server that
the next ``up`` or ``down`` does not know of.
"""

import json
import os
import sys
from pathlib import Path

from cluster.local.files import write_private
from cluster.local.identity import start_mark


def main(arguments: list[str]) -> None:
    """Fork into a session of its own, record, execute; the first process returns at once."""
    record, fields, lock_fd, *command = arguments
    if os.fork():
        os._exit(0)
    os.setsid()
    known = json.loads(fields) | {"pid": os.getpid(), "start_mark": start_mark(os.getpid())}
    write_private(Path(record), json.dumps(known))
    os.set_inheritable(int(lock_fd), False)
    try:
        os.execvp(command[0], command)  # noqa: S606 (no shell is meant)
    except OSError as error:
        sys.stderr.write(f"cannot execute {command[0]}: {error}\n")
        sys.stderr.flush()
        os._exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
