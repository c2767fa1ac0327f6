"""The place where a prepared set appears: whether it can, who is at work for it, what made room.

A set grows in ``.NAME.partial`` beside its place, locked by ``.NAME.lock``, and gets there by a
rename, so that nobody sees half of one. A set that lies there already waits in ``.NAME.replaced``
until the new one has come.
"""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from headpose.data.manifest import DATA_FILES, MANIFEST_FILE, Manifest
from usererror import UserError

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Some network disks know none. There the length of the images tells of others at work."""


def resolved(destination: Path) -> Path:
    """The place itself: what lies beside a link may be on another disk.

    Raises:
        UserError: no folder can be renamed to there.
    """
    place = destination.resolve()
    rule = "a prepared set appears by a rename"
    if place.is_mount():
        raise UserError(
            str(place), "is a mount point", rule=rule, remedy="choose a folder below it"
        )
    # The rename would succeed, and leave the caller's shell in a folder that is gone.
    if place.exists() and place.samefile("."):
        remedy = "choose a folder below it, or ask from another one"
        raise UserError(str(place), "is the current folder", rule=rule, remedy=remedy)
    return place


@contextlib.contextmanager
def claimed(place: Path) -> Iterator[Path]:
    """The unfinished folder beside a place, for this process alone; the kernel gives it free when
    it dies. A refusal leaves none that is empty.

    Raises:
        UserError: another process has it, or no folder can be made there.
    """
    partial = place.with_name(f".{place.name}.partial")
    with alone(place.with_name(f".{place.name}.lock"), str(partial)):
        try:
            partial.mkdir(exist_ok=True)
        except OSError as error:
            raise _unusable(partial, error) from error
        try:
            yield partial
        except UserError:
            with contextlib.suppress(OSError):
                partial.rmdir()
            raise


@contextlib.contextmanager
def alone(lock: Path, where: str) -> Iterator[None]:
    """Nobody else prepares with this file meanwhile; it is gone afterwards.

    A network disk tells other machines of the lock of a file that is open for writing, not of a
    folder's; some then let nobody read or write the file through another handle, so it holds
    nothing.

    Args:
        lock: the file; its folder is made, too.
        where: what others are told is being prepared.

    Raises:
        UserError: another process holds it, or it cannot be made there.
    """
    with _locked(lock, where):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()


def _locked(path: Path, where: str) -> IO[bytes]:
    try:
        while True:
            if not path.parent.exists():  # mkdir would say "exists" of a file there
                path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as unless_held:
                file = unless_held.enter_context(path.open("ab"))
                _lock(file)
                if _is_at(path, file):
                    unless_held.pop_all()
                    return file
    except BlockingIOError:
        remedy = "wait for it, or choose another place"
        raise UserError(where, "another preparation is at work here", remedy=remedy) from None
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> UserError:
    where = str(error.filename or path)
    what, remedy = "cannot be used", "mend that, or choose another place"
    return UserError(where, what, got=error.strerror, remedy=remedy)


def _lock(file: IO[bytes]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EACCES:  # a Windows share's word for a lock that another one holds
            raise BlockingIOError(error.errno, error.strerror) from error
        if error.errno not in _NO_LOCKS:
            raise


def _is_at(path: Path, file: IO[bytes]) -> bool:
    """Not where the last holder removed or moved it between our opening and locking it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def check_free(place: Path, *, replace: bool) -> None:
    """See to it that nothing lies there, or with ``replace`` a set alone.

    Raises:
        UserError: something else does.
    """
    is_taken_by_set = _is_set(place)
    if _is_free(place) or (is_taken_by_set and replace):
        return
    remedy = "replace it with --replace" if is_taken_by_set else "delete what is there"
    raise UserError(
        str(place),
        "is taken by another prepared set" if is_taken_by_set else "is taken",
        rule="a prepared set needs a new or empty folder, or one with another set and nothing else",
        remedy=f"choose another place, or {remedy}",
    )


def set_aside(place: Path) -> None:
    """Make room for a new set; :func:`settle` ends what this begins."""
    if _is_set(place):
        place.rename(_aside(place))


def settle(place: Path) -> None:
    """A set that was set aside goes where a new one is in its place, and comes back where none is:
    after a replacement, and after one that was killed in the middle."""
    aside = _aside(place)
    if not aside.exists():
        return
    if _is_set(place):
        (aside / MANIFEST_FILE).unlink(missing_ok=True)  # half of it is never taken for a set
        shutil.rmtree(aside, ignore_errors=True)
    elif _is_set(aside) and _is_free(place):
        aside.replace(place)


def _aside(place: Path) -> Path:
    return place.with_name(f".{place.name}.replaced")


def _is_set(folder: Path) -> bool:
    """Whether a prepared set lies there and nothing else: whoever replaces it loses no more."""
    manifest = folder / MANIFEST_FILE
    try:
        Manifest.from_json(manifest.read_text(encoding="utf-8"), manifest)
        beside = {path.name for path in folder.iterdir()} - {MANIFEST_FILE, *DATA_FILES}
    except (OSError, ValueError, UserError):
        return False
    return not beside


def _is_free(place: Path) -> bool:
    return not place.exists() or (place.is_dir() and not any(place.iterdir()))
