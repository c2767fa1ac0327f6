"""The place where a prepared set appears by a rename: whether it can, and who is at work for it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from headpose.data.manifest import MANIFEST_FILE
from usererror import UserError


def partial_folder(destination: Path) -> Path:
    """Where a set grows until it is whole: beside its place, so that a rename gets it there.

    Args:
        destination: resolved, for what lies beside a link may be on another disk.
    """
    return destination.parent / f".{destination.name}.partial"


@contextlib.contextmanager
def claimed(partial: Path) -> Iterator[None]:
    """The unfinished folder, for this process alone; the kernel gives it free when it dies.

    Raises:
        UserError: another process has it.
    """
    partial.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "wait for it, or choose another place"
            what = "another preparation is at work here"
            raise UserError(str(partial), what, remedy=remedy) from None
        yield
    finally:
        os.close(descriptor)


def is_set(folder: Path) -> bool:
    """Whether a prepared set lies there."""
    return (folder / MANIFEST_FILE).is_file()


def check_destination(destination: Path, *, replace: bool) -> None:
    """See to it that a set can appear there.

    Args:
        destination: resolved; its parent is made where it is missing.
        replace: whether another set may lie there.

    Raises:
        UserError: something else lies there, or the folder cannot be renamed over.
    """
    _check_movable(destination)
    is_taken_by_set = is_set(destination)
    is_free = not destination.exists() or (destination.is_dir() and not any(destination.iterdir()))
    if not is_free and not (is_taken_by_set and replace):
        remedy = "replace it with --replace" if is_taken_by_set else "delete what is there"
        raise UserError(
            str(destination),
            "is taken by another prepared set" if is_taken_by_set else "is taken",
            rule="a prepared set needs a new or empty folder",
            remedy=f"choose another place, or {remedy}",
        )
    destination.parent.mkdir(parents=True, exist_ok=True)


def _check_movable(destination: Path) -> None:
    rule = "a prepared set appears by a rename"
    if destination.is_mount():
        raise UserError(
            str(destination), "is a mount point", rule=rule, remedy="choose a folder below it"
        )
    # The rename would succeed, and leave the caller's shell in a folder that is gone.
    if destination.exists() and destination.samefile("."):
        remedy = "choose a folder below it, or ask from another one"
        raise UserError(str(destination), "is the current folder", rule=rule, remedy=remedy)
