"""Ports that one ``hopetune up`` has chosen and no other may choose before they are listened on.

A port is looked at when ``up`` begins and bound by its server up to half a minute later; another
``up`` that begins in between (on another state directory) would find it free and take it as well.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from usererror import UserError


class Reserve(Protocol):
    """Reserves a port."""

    def __call__(self, port: int, suits: Callable[[int], bool] | None = None) -> bool:
        """True if the port is ours now (or was before) and suits.

        Args:
            suits: looks at it once nobody else can choose it; what does not suit is left to others
                at once, for a server that was killed may be about to come back to it.
        """


@contextlib.contextmanager
def reservations(folder: Path | None = None) -> Iterator[Reserve]:
    """Lends a function that reserves a port for as long as this context lasts.

    A reservation is a lock on a file, so it ends with its holder and is never stale.

    Args:
        folder: where the files lie, the same for all who share the ports; None: this user's one
            on this machine.

    Raises:
        UserError: the folder, or a file in it, cannot be used.
    """
    place = folder or Path(tempfile.gettempdir()) / f"hopetune-ports-{os.getuid()}"
    _make_private(place)
    with contextlib.ExitStack() as held:
        mine: set[int] = set()

        def reserve(port: int, suits: Callable[[int], bool] | None = None) -> bool:
            if port in mine:
                return suits is None or suits(port)
            # Python's handles are not inherited: a server that is started keeps no reservation.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            try:
                handle = os.open(place / str(port), flags, 0o600)
            except OSError as error:
                raise _unusable(place / str(port), str(error)) from error
            with contextlib.ExitStack() as own:
                own.callback(os.close, handle)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                if suits is not None and not suits(port):
                    return False
                held.push(own.pop_all())
            mine.add(port)
            return True

        yield reserve


def _make_private(folder: Path) -> None:
    """Make the folder; in a place that everybody may write to, nobody else's will do."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise _unusable(folder, str(error)) from error
    if found.st_uid != os.getuid() or folder.is_symlink():
        owner = "a link" if folder.is_symlink() else f"a folder of user {found.st_uid}"
        raise _unusable(folder, owner)


def _unusable(place: Path, got: str) -> UserError:
    return UserError(
        str(place),
        "cannot hold port reservations",
        got=got,
        rule="a place of your own that can be written to",
        remedy="have it removed, or name another place for temporary files with TMPDIR",
    )
