"""The place where a prepared set appears: whether it can, who is at work for it, what made room.

A set grows in ``.NAME.partial`` beside its place and gets there by a rename, so that nobody sees
half of one. A set that lies there already waits in ``.NAME.replaced`` until the new one has come.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from headpose.data.manifest import DATA_FILES, MANIFEST_FILE, Manifest
from usererror import UserError


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
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what, remedy = "cannot be used", "choose another place"
        raise UserError(str(partial), what, got=error.strerror, remedy=remedy) from error
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        _lock(descriptor, partial)
        try:
            yield partial
        except UserError:
            with contextlib.suppress(OSError):
                partial.rmdir()
            raise
    finally:
        os.close(descriptor)


def _lock(descriptor: int, partial: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        remedy = "wait for it, or choose another place"
        what = "another preparation is at work here"
        raise UserError(str(partial), what, remedy=remedy) from None


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
