"""From the node's spool to the store, in the background, for as long as it takes.

A store that is away is no failure: uploads are tried again, with growing pauses, while the process
lives, and whatever is left then is adopted by the next process of the node. Training waits for
uploads only where the spool is full of checkpoints that all matter.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tuning.damage import set_aside
from tuning.manifest import (
    MANIFEST,
    PARTS,
    DamagedCheckpointError,
    Manifest,
    Metrics,
    Part,
    manifest_of,
    read_manifest,
)
from tuning.objects import Objects, Place
from tuning.spool import (
    Content,
    DiskFullError,
    Draft,
    Entry,
    Spool,
    SpoolFullError,
    superseded,
)
from usererror import UserError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # untuned
ADOPT_S = 5.0
"""How often an idle process looks for what dead ones left on the node; untuned."""
ROOM_PATIENCE_S = 300.0
"""How long training waits for room in the spool; then somebody else may have the GPU, for a worker
that says nothing is soon taken for hung (``Resources.stall_minutes``: 10). Untuned."""
CLOSE_PATIENCE_S = 30.0
"""How long a process that ends waits for the next of its uploads to arrive; the rest stays in the
spool, and somebody else brings it (tuning/leftovers.py). Untuned."""

_T = TypeVar("_T")


class Uploads:
    """Brings checkpoints from a spool to the store, in order.

    Args:
        objects: the store.
        root: where checkpoints lie in it.
        spool: where they wait.
        tell: takes what a person should know.
    """

    def __init__(
        self, objects: Objects, root: Place, spool: Spool, tell: Callable[[str], None]
    ) -> None:
        self._objects, self._root, self._spool, self._tell = objects, root, spool, tell
        self._changed = threading.Condition()
        self._waiting: deque[Entry] = deque()
        self._in_hand: Entry | None = None
        self._brought = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="uploads")
        self._thread.start()

    def draft(self, contents: Mapping[Part, Content]) -> Draft:
        """Puts the parts of a checkpoint on the disk.

        Waits where the spool has reached its limit and nothing in it is superseded.

        Raises:
            SpoolFullError: no room came about in it.
            DiskFullError: there is no room on the disk.
            NotHereError: the spool cannot be written to.
        """
        self._make_room(sum(content.size for content in contents.values()))
        return self._with_room(lambda: self._spool.draft(contents))

    def add(self, draft: Draft, key: str, history: Sequence[Metrics]) -> None:
        """Makes a checkpoint of a draft, which is uploaded from the disk.

        Raises:
            DiskFullError: there is no room on the disk; nothing is left there.
            NotHereError: the spool cannot be written to.
        """
        try:
            entry = self._with_room(lambda: self._spool.finish(draft, key, history))
        except UserError:
            draft.discard()
            raise
        with self._changed:
            self._waiting.append(entry)
            self._changed.notify_all()

    def flush(self, patience_s: float | None = None) -> bool:
        """Waits until nothing of this process is on its way; says whether that came true. The
        patience begins anew with each checkpoint that has arrived."""
        with self._changed:
            while self._waiting or self._in_hand is not None:
                before = self._brought
                if not self._changed.wait_for(lambda: self._brought > before, patience_s):  # noqa: B023
                    return False
            return True

    def close(self) -> None:
        """Ends the uploads; what has not been stored stays in the spool."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()

    def _with_room(self, write: Callable[[], _T]) -> _T:
        """On a full disk, what is superseded gives way."""
        try:
            return write()
        except DiskFullError:
            if not self._drop_superseded():
                raise
            return write()

    def _make_room(self, needed_bytes: int) -> None:
        until_s: float | None = None
        while self._spool.used_bytes() + needed_bytes > self._spool.limit_bytes:
            if self._drop_superseded():
                continue
            with self._changed:
                if not self._waiting and self._in_hand is None:
                    return  # it is not this process that fills it, or one alone is too large
                if until_s is None:
                    self._tell("training waits: the node's spool is full of checkpoints to upload")
                    until_s = time.monotonic() + ROOM_PATIENCE_S
                elif time.monotonic() >= until_s:
                    limit = f"HOPETUNE_SPOOL_BYTES allows {self._spool.limit_bytes:,}"
                    what = "the spool is full of checkpoints that cannot be uploaded"
                    raise SpoolFullError(self._spool.place, what, rule=limit)
                self._changed.wait(FIRST_PAUSE_S)

    def _drop_superseded(self) -> bool:
        with self._changed:
            dropped = superseded(self._waiting)
            for entry in dropped:
                self._waiting.remove(entry)
                entry.path.unlink(missing_ok=True)
            return bool(dropped)

    def _run(self) -> None:
        looked_s = -ADOPT_S
        while not self._closed.is_set():
            if time.monotonic() - looked_s >= ADOPT_S:
                self._adopt()
                looked_s = time.monotonic()
            with self._changed:
                if not self._waiting and not self._closed.is_set():
                    self._changed.wait(ADOPT_S)
                if self._waiting:
                    self._in_hand = self._waiting.popleft()
            if self._in_hand is not None:
                self._bring(self._in_hand)
                with self._changed:
                    self._in_hand = None
                    self._brought += 1
                    self._changed.notify_all()
        self._spool.close()

    def _adopt(self) -> None:
        try:
            found = self._spool.adopt()
        except OSError as error:
            self._tell(f"cannot look for checkpoints that others left on this node: {error}")
            return
        with self._changed:
            self._waiting.extend(found)

    def _bring(self, entry: Entry) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closed.is_set():
            try:
                store(self._objects, self._root, entry, self._tell)
                entry.path.unlink(missing_ok=True)
                return
            except FileNotFoundError:
                return
            except DamagedCheckpointError as error:
                self._tell(f"a checkpoint is lost: {error}")
                entry.path.unlink(missing_ok=True)
                return
            except (UserError, OSError, LookupError) as error:
                if pause_s == FIRST_PAUSE_S:
                    self._tell(f"checkpoints wait on this node's disk: {error}")
                self._closed.wait(pause_s)
                pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)


def store(objects: Objects, root: Place, entry: Entry, tell: Callable[[str], None]) -> bool:
    """Uploads a checkpoint; says whether it is the one that the store now has of its key.

    Another writer of the key may have been first; then what this one brought is removed again.
    """
    contents = {part: entry.read(part) for part in PARTS}
    manifest = manifest_of(entry.key, entry.history, contents)
    folder = root / entry.key
    for part, content in contents.items():
        objects.put(folder / manifest.parts[part].name, content)
    for _ in range(2):
        if objects.put_new(folder / MANIFEST, manifest.to_bytes()):
            return True
        try:
            winner = read_manifest(objects, root, entry.key)
        except DamagedCheckpointError as damage:
            set_aside(objects, root, entry.key, str(damage), tell, data=False)
            continue
        if winner is not None:
            parts = [folder / part.name for part in winner.parts.values()]
            if not any(map(objects.exists, parts)):  # collected, and now trained again
                objects.put(folder / MANIFEST, manifest.to_bytes())
                return True
            _give_way(objects, folder, manifest, winner)
            return False
    raise UserError(str(folder), "its manifest is written by somebody else again and again")


def _give_way(objects: Objects, folder: Place, mine: Manifest, winner: Manifest) -> None:
    kept = {part.name for part in winner.parts.values()}
    for part in mine.parts.values():
        if part.name not in kept:
            with contextlib.suppress(LookupError):
                objects.delete(folder / part.name)
