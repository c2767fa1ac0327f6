"""Writing files that nobody ever sees half-written, and knowing those that changed."""

import contextlib
import os
import uuid
from pathlib import Path


def version_of(path: Path) -> tuple[int, int]:
    """Another one where a file was changed or replaced: its size, and its last change in ns.

    Raises:
        OSError: there is none, or it cannot be looked at.
    """
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the target under a unique name, then rename; a kill leaves the old file.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; the target is as
            before.
    """
    # Unique, so that what an earlier kill left behind never blocks this write; not mkstemp, whose
    # files only their owner can read.
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)
