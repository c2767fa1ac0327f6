"""Checkpoints on a node's disk, until they lie in the store."""

import errno
from pathlib import Path

from usererror import UserError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class DiskFullError(UserError):
    """A node's disk has no room for a checkpoint.

    Attributes:
        path: the file that did not fit.
        needed_bytes: its size.
    """

    def __init__(self, path: Path, needed_bytes: int) -> None:
        self.path, self.needed_bytes = path, needed_bytes
        super().__init__(
            str(path),
            "the disk is full",
            got=f"no room for {needed_bytes:,} bytes",
            remedy="free space on this node, or set HOPETUNE_STATE_DIR to a larger disk",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return DiskFullError, (self.path, self.needed_bytes)
