"""Checkpoints on a node's disk, until they lie in the store.

A checkpoint is here before its epoch is reported, so a killed worker loses nothing that it said.
Each process has a folder with a lock that the kernel lets go of when it dies; whoever gets that
lock adopts what lies there. A checkpoint is one file: its parts, written as a draft while the epoch
is still being validated, then its manifest without the sums, then that one's length in eight bytes,
upon which it gets its name. There is no fsync: what a process has written survives its death
without one. It does not survive a power cut for certain, so files of an earlier boot of the machine
are not trusted.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tuning.manifest import OBJECTIVE, PARTS, DamagedCheckpointError, Metrics, Part
from usererror import NotHereError, UserError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
LOCK = "lock"
DRAFT = ".draft"
_LENGTH_BYTES = 8
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class SpoolFullError(UserError):
    """Checkpoints that all matter fill a node's spool, and none of them could be uploaded."""


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


class Content(Protocol):
    """What a part is to hold, piece by piece."""

    @property
    def size(self) -> int:
        """In bytes."""

    def __iter__(self) -> Iterator[bytes | memoryview]: ...


@dataclass(frozen=True)
class Draft:
    """The parts of a checkpoint that nobody finds yet."""

    path: Path
    sizes: dict[Part, int]

    def discard(self) -> None:
        # What cannot be removed now goes with this process's folder when another one adopts it.
        with contextlib.suppress(OSError):
            self.path.unlink()


@dataclass(frozen=True)
class Entry:
    """A checkpoint in a spool."""

    path: Path
    key: str
    history: list[Metrics]
    sizes: dict[Part, int]
    manifest_bytes: int
    """With its length behind it."""

    @property
    def size(self) -> int:
        return sum(self.sizes.values()) + self.manifest_bytes

    def read(self, part: Part) -> bytes:
        """The content of a part.

        Raises:
            FileNotFoundError: it was uploaded meanwhile, or another process adopted it.
            DamagedCheckpointError: the file is shorter than it was.
        """
        before = PARTS[: PARTS.index(part)]
        with self.path.open("rb") as file:
            file.seek(sum(self.sizes[p] for p in before))
            content = file.read(self.sizes[part])
        if len(content) != self.sizes[part]:
            raise DamagedCheckpointError(f"{self.path} is truncated")
        return content


def superseded(entries: Sequence[Entry]) -> list[Entry]:
    """Those of which a later epoch of the same training waits, too, and that are not its best."""
    found = []
    for entry in entries:
        epoch = len(entry.history)
        later = [e for e in entries if e.history[:epoch] == entry.history and e is not entry]
        if not any(len(e.history) > epoch for e in later):
            continue
        longest = max(later, key=lambda e: len(e.history))
        values = [metrics[OBJECTIVE] for metrics in longest.history]
        if values.index(min(values)) != epoch - 1:
            found.append(entry)
    return found


class Spool:
    """The spool of a node below ``folder``; this process writes into a folder of its own there.

    Args:
        folder: shared by all processes of the node; beside it may lie those of other nodes, and
            those that this one had under other names (a container gets a new one each time).
        limit_bytes: what all of them together may keep there.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self.place = str(folder)
        self.limit_bytes = limit_bytes
        self._mine = folder / uuid.uuid4().hex
        self._lock: int | None = None
        self._guard = threading.Lock()

    def draft(self, contents: Mapping[Part, Content]) -> Draft:
        """Puts the parts of a checkpoint on the disk.

        Raises:
            DiskFullError: there is no room; nothing of it is left there.
            NotHereError: the folder cannot be written to.
        """
        sizes = {part: contents[part].size for part in PARTS}
        draft = Draft(self._mine / f"{uuid.uuid4().hex}{DRAFT}", sizes)
        try:
            with _said(draft.path, sum(sizes.values())):
                self._have_folder()
                with draft.path.open("wb", 0) as file:
                    for part in PARTS:
                        for piece in contents[part]:
                            _write_all(file.fileno(), piece)
        except BaseException:
            draft.discard()
            raise
        return draft

    def finish(self, draft: Draft, key: str, history: Sequence[Metrics]) -> Entry:
        """Makes a checkpoint of a draft.

        Raises:
            DiskFullError: there is no room; the draft is still there, and may be tried again.
            NotHereError: the folder cannot be written to.
        """
        said = {"key": key, "history": list(history), "sizes": draft.sizes, "boot": _boot()}
        manifest = json.dumps(said).encode()
        end = manifest + len(manifest).to_bytes(_LENGTH_BYTES)
        entry = Entry(self._mine / _name(key), key, list(history), draft.sizes, len(end))
        with _said(draft.path, entry.size):
            with draft.path.open("r+b", 0) as file:
                file.seek(sum(draft.sizes.values()))
                _write_all(file.fileno(), end)
            draft.path.replace(entry.path)
        return entry

    def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        """Which of these checkpoints lie in the node's spool, whoever wrote them."""
        wanted = {_name(key) for key in keys}
        found = {}
        for path in self._files():
            if path.name in wanted and (entry := _entry(path)):
                found[entry.key] = entry
        return found

    def adopt(self) -> list[Entry]:
        """Takes over what dead processes of this node left behind, the oldest first."""
        found: list[Path] = []
        with self._alone():
            for folder in self._folders():
                if folder != self._mine and _is_orphan(folder):
                    found += self._moved(folder, is_own=True)
            for folder in self._of_other_names():
                if _is_orphan(folder):  # of the same boot, so of the same machine
                    found += self._moved(folder, is_own=False)
        entries = [entry for path in found if (entry := _entry(path))]
        for path in {*found} - {entry.path for entry in entries}:
            path.unlink(missing_ok=True)  # torn by a power cut
        return sorted(entries, key=lambda entry: len(entry.history))

    def used_bytes(self) -> int:
        """What lies in the node's spool."""
        total = 0
        for path in self._files():
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total

    def close(self) -> None:
        """Leaves what still lies there to whoever adopts it."""
        with self._guard:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _moved(self, folder: Path, *, is_own: bool) -> list[Path]:
        """Takes over the checkpoints of a dead process, only trusted ones of other names; what
        cannot be moved stays."""
        found: list[Path] = []
        with contextlib.suppress(OSError):
            for path in _checkpoints(folder):
                if is_own or _entry(path):
                    with contextlib.suppress(OSError):
                        found.append(path.replace(self._mine / path.name))
            if (is_own or found) and not _checkpoints(folder):
                shutil.rmtree(folder, ignore_errors=True)
        return found

    def _have_folder(self) -> None:
        if self._lock is None:
            with self._alone():
                pass

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process of the node at a time makes a folder or looks for orphans, so that a folder
        which is not locked yet is not taken for one."""
        with self._guard:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / LOCK).open("w") as gate:
                fcntl.flock(gate, fcntl.LOCK_EX)
                if self._lock is None:
                    self._mine.mkdir(exist_ok=True)
                    self._lock = os.open(self._mine / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
                    fcntl.flock(self._lock, fcntl.LOCK_EX)
                yield

    def _folders(self) -> list[Path]:
        try:
            return sorted(path for path in self._folder.iterdir() if path.is_dir())
        except OSError:  # none yet; or none that can be used, which whoever writes is told
            return []

    def _of_other_names(self) -> list[Path]:
        return sorted(
            path.parent
            for path in self._folder.parent.glob(f"*/*/{LOCK}")
            if path.parent.parent != self._folder
        )

    def _files(self) -> Iterator[Path]:
        for folder in self._folders():
            with contextlib.suppress(OSError):  # of somebody else
                yield from _checkpoints(folder)


def _name(key: str) -> str:
    return key.replace("/", "-")


def _checkpoints(folder: Path) -> list[Path]:
    try:
        return [p for p in folder.iterdir() if p.name != LOCK and p.suffix != DRAFT]
    except FileNotFoundError:  # adopted meanwhile
        return []


def _is_orphan(folder: Path) -> bool:
    try:
        handle = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return True  # its maker died before it had a lock
    except OSError:
        return False  # of another user; or it is looked at again later
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _entry(path: Path) -> Entry | None:
    """What a file of the spool holds; none where it cannot be trusted, or is gone."""
    try:
        with path.open("rb") as file:
            file.seek(-_LENGTH_BYTES, os.SEEK_END)
            length = int.from_bytes(file.read())
            end_bytes = length + _LENGTH_BYTES
            file.seek(-end_bytes, os.SEEK_END)
            said = json.loads(file.read(length))
            entry = Entry(path, said["key"], said["history"], said["sizes"], end_bytes)
            whole = os.fstat(file.fileno()).st_size == entry.size
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return entry if whole and said["boot"] == _boot() else None


@contextlib.contextmanager
def _said(path: Path, needed_bytes: int) -> Iterator[None]:
    """Says in words why a file cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DiskFullError(path, needed_bytes) from error
        remedy = "have HOPETUNE_STATE_DIR name a folder that this node can write to"
        got = error.strerror or str(error)
        raise NotHereError(str(path), "cannot be written", got=got, remedy=remedy) from error


def _boot() -> str:
    try:
        return _BOOT.read_text("ascii").strip()
    except OSError:  # not on Linux: every file is trusted
        return ""


def _write_all(handle: int, content: bytes | memoryview) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]
