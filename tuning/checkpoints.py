"""Checkpoints of trials: on the node's disk at once, in S3 soon, found by what was trained.

See ``tuning/manifest.py`` for what lies in the store, ``tuning/spool.py`` for what waits on a node.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import safetensors.torch
from torch import Tensor

from tuning.damage import set_aside
from tuning.manifest import (
    MANIFEST,
    PARTS,
    DamagedCheckpointError,
    Manifest,
    Metrics,
    Part,
    read_manifest,
)
from tuning.objects import AbsentObjectError, Objects, Place, StorageAwayError
from tuning.spool import Content, Draft, Entry, Spool
from tuning.uploads import LONGEST_PAUSE_S, Uploads

log = logging.getLogger(__name__)

POLL_S = 0.5  # untuned
LOOK_AGAIN_S = 10.0
"""For how long a checkpoint is looked for that another node may be uploading. Untuned: 100 MB take
2 s, and where it does not come an epoch is trained again."""

AWAY_S = 3.0
"""How long a trial of which nothing is known to be trained waits for a store that does not answer,
before it begins at the beginning. Untuned: new configurations are rarely stored already."""

AWAY_KNOWN_S, AWAY_LONGEST_S = 60.0, 15 * 60.0
"""The same where epochs of it are known to be trained: as long as training them again would take,
but no less than the first and no more than the second. Untuned."""


@dataclass(frozen=True)
class Snapshot:
    """A trial's whole state after an epoch."""

    weights_file: bytes
    """The network as a safetensors file."""
    optimiser: Mapping[str, Tensor]
    """What going on needs beside the weights; on the CPU."""

    @classmethod
    def of(cls, contents: Mapping[Part, bytes]) -> "Snapshot":
        return cls(contents["weights"], safetensors.torch.load(contents["optimiser"]))


class CheckpointStore:
    """Checkpoints below ``root``, and those that wait in this node's ``spool``.

    Args:
        objects: the store; asked by the trial and, at the same time, by the uploads.
        root: where checkpoints lie in it.
        spool: the node's.
        tell: takes what a person should know.
        looking: the store with less patience, for trials that look for their beginning.
        uploader: the store with more patience, for the uploads.
    """

    def __init__(
        self,
        objects: Objects,
        root: Place,
        spool: Spool,
        tell: Callable[[str], None] = log.warning,
        looking: Objects | None = None,
        uploader: Objects | None = None,
    ) -> None:
        self._objects, self._root, self._spool, self._tell = objects, root, spool, tell
        self._looking = looking or objects
        self._uploads = Uploads(uploader or objects, root, spool, tell)

    def beginning(
        self, keys: Sequence[str], trained_epochs: int = 0, trained_s: float = 0.0
    ) -> "Beginning":
        """What of a plan has been trained before; ``keys`` are those of its epochs, in order.

        Where the plan is known to be trained to ``trained_epochs``, in ``trained_s``, another node
        may be uploading, which is waited for shortly; longer after the store was away, as uploads
        pause meanwhile. A store that does not answer is waited for about as long as training again
        would take; then what lies on this node must do.

        Raises:
            UserError: the store refuses to be read.
        """
        wanted = min(trained_epochs, len(keys))
        again_s = min(max(trained_s, AWAY_KNOWN_S), AWAY_LONGEST_S)
        away_until_s = time.monotonic() + (again_s if wanted else AWAY_S)
        was_away, there_until_s = False, math.inf
        while True:
            found = Beginning(self._objects, self._root, self._spool, keys, self._tell)
            found.look(self._looking)
            now_s = time.monotonic()
            if found.is_store_away:
                was_away, until_s = True, away_until_s
            else:
                pause_s = LONGEST_PAUSE_S if was_away else 0.0
                # From the first answer on.
                there_until_s = min(there_until_s, now_s + LOOK_AGAIN_S + pause_s)
                until_s = there_until_s
            enough = len(found.history) >= wanted and not (found.is_store_away and not wanted)
            if enough or now_s >= until_s:
                break
            time.sleep(POLL_S)
        if found.is_store_away and not enough:
            self._tell(f"the store does not answer: {found.describe()} on this node's disk")
        return found

    def saving(self, files: Callable[[], tuple[Content, Content]]) -> "Saving":
        """A checkpoint to be written; ``files``, called in another thread, gives the contents of
        its parts."""
        return Saving(self._uploads, files)

    def flush(self, patience_s: float | None = None) -> bool:
        """Waits until nothing is on its way any more; says whether that came true."""
        return self._uploads.flush(patience_s)

    def close(self) -> None:
        """Ends the uploads; what has not been stored stays on the node's disk."""
        self._uploads.close()


class Saving:
    """A checkpoint that goes to the node's disk while it is found out what it is worth.

    Used in a ``with`` statement it begins to be written, in a thread of its own, and is dropped
    where what stands within fails. What is written must not change before ``finish``.
    """

    def __init__(self, uploads: Uploads, files: Callable[[], tuple[Content, Content]]) -> None:
        self._uploads, self._files = uploads, files
        self._draft: Future[Draft] = Future()

    def __enter__(self) -> None:
        # As a daemon it holds up no process that was told to leave.
        threading.Thread(target=self._write, daemon=True, name="saving").start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.discard()

    def finish(self, key: str, history: Sequence[Metrics]) -> None:
        """Keeps the checkpoint: on this node's disk when this returns, in the store later.

        Raises:
            DiskFullError: there is no room on the disk.
            Exception: ``files`` raised it.
        """
        self._uploads.add(self._draft.result(), key, history)

    def discard(self) -> None:
        """Keeps nothing of it, and does not wait for that."""
        self._draft.add_done_callback(_discard)

    def _write(self) -> None:
        try:
            contents = dict(zip(PARTS, self._files(), strict=True))
            # They know the training, whose memory a next trial may need while a full disk is
            # waited for.
            del self._files
            self._draft.set_result(self._uploads.draft(contents))
        except BaseException as error:  # noqa: BLE001 - whoever finishes hears of it
            self._draft.set_exception(error)


def _discard(draft: "Future[Draft]") -> None:
    if draft.exception() is None:
        draft.result().discard()


class Beginning:
    """The stored beginning of one plan, as it was when it was looked for.

    The metrics of its epochs are there at once. The state to go on from is loaded only when it is
    asked for, and may be that of an earlier epoch: old states are collected, metrics are not.
    """

    def __init__(
        self,
        objects: Objects,
        root: Place,
        spool: Spool,
        keys: Sequence[str],
        tell: Callable[[str], None],
    ) -> None:
        self._objects, self._root, self._spool, self._tell = objects, root, spool, tell
        self._keys = list(keys)
        self._spooled: dict[str, Entry] = {}
        self._names: set[str] = set()
        """Objects of the store, relative to the root."""
        self._manifests: dict[str, Manifest] = {}
        self.history: list[Metrics] = []
        """Metrics of the epochs that need no training."""
        self.is_store_away = False

    def look(self, objects: Objects) -> None:
        """Finds what there is: one listing, and the manifest of the longest."""
        # The node's disk first: what leaves it lies in the store by then.
        self._spooled = self._spool.find(self._keys)
        try:
            self._list(objects)
        except StorageAwayError:
            self.is_store_away = True
        for key in reversed(self._keys):
            if key in self._spooled:
                self.history = self._spooled[key].history
                return
            if manifest := self._manifest(key, objects):
                self.history = manifest.history
                return

    def describe(self) -> str:
        count = len(self.history)
        return f"{count or 'no'} epoch{'' if count == 1 else 's'} of the trial found"

    def lacks(self, epoch: int) -> bool:
        """Whether an epoch that is trained once more is worth storing: its state is not there, so
        who is interrupted after it would have to train it again."""
        key = self._keys[epoch - 1]
        return key not in self._spooled and not self._has(key, *PARTS)

    def has_weights(self, epoch: int) -> bool:
        """Whether the weights after an epoch are still there; yes where that cannot be known."""
        key = self._keys[epoch - 1]
        return key in self._spooled or self._has(key, "weights") or self.is_store_away

    def _has(self, key: str, *parts: Part) -> bool:
        """Whether these parts of a checkpoint are in the store, as its manifest names them; one
        that is damaged is set aside."""
        manifest = self._manifest(key, self._objects) if self._lists(key, *parts) else None
        names = [f"{key}/{manifest.parts[part].name}" for part in parts] if manifest else []
        return manifest is not None and self._names.issuperset(names)

    def _lists(self, key: str, *parts: Part) -> bool:
        """Whether the listing has such parts: of collected ones no manifest is asked for."""
        return all(any(n.startswith(f"{key}/{part}-") for n in self._names) for part in parts)

    def load(self, before: int | None = None) -> tuple[int, Snapshot] | None:
        """The latest epoch, or the latest before another, whose state there still is; and it.

        A damaged one is set aside, loudly, and the next earlier one taken. A store that does not
        answer is waited for as long as training again would take.
        """
        if not self.history:
            return None
        until_s = time.monotonic() + sum(m.get("epoch_seconds", 0.0) for m in self.history)
        while True:
            try:
                return self._load(before or len(self._keys) + 1)
            except StorageAwayError as error:
                if time.monotonic() >= until_s:
                    self._tell(f"trained again, as the store does not answer: {error}")
                    return None
                time.sleep(POLL_S)

    def _load(self, before: int) -> tuple[int, Snapshot] | None:
        if self.is_store_away and not self._spooled:
            self.is_store_away = False
            self._list(self._objects)
        for epoch in range(min(len(self.history), before - 1), 0, -1):
            key = self._keys[epoch - 1]
            try:
                contents = self._from_spool(key) or self._from_store(key)
            except AbsentObjectError:
                continue  # collected just now
            except DamagedCheckpointError as damage:
                self._set_aside(key, str(damage))
                continue
            if contents:
                return epoch, Snapshot.of(contents)
        return None

    def _list(self, objects: Objects) -> None:
        """Reads the names of all that is stored below the plan's trunk."""
        trunk = self._keys[0].split("/", maxsplit=1)[0]
        before = f"{self._root.key}/"
        listed = objects.listed(self._root / trunk)
        self._names = {entry.key.removeprefix(before) for entry in listed}

    def _manifest(self, key: str, objects: Objects) -> Manifest | None:
        if key in self._manifests:
            return self._manifests[key]
        if f"{key}/{MANIFEST}" not in self._names:
            return None
        try:
            manifest = read_manifest(objects, self._root, key)
        except DamagedCheckpointError as damage:
            self._set_aside(key, str(damage))
            return None
        except StorageAwayError:
            self.is_store_away = True
            return None
        if manifest is not None:
            self._manifests[key] = manifest
        return manifest

    def _from_spool(self, key: str) -> dict[Part, bytes] | None:
        entry = self._spooled.get(key)
        if entry is None:
            return None
        try:
            return {part: entry.read(part) for part in PARTS}
        except FileNotFoundError:  # uploaded, or adopted by another process
            self._spooled = self._spool.find(self._keys)
            self._list(self._objects)
            again = self._spooled.get(key)
            return {part: again.read(part) for part in PARTS} if again else None
        except DamagedCheckpointError as damage:
            self._tell(f"passed over: {damage}")
            return None

    def _from_store(self, key: str) -> dict[Part, bytes] | None:
        manifest = self._manifest(key, self._objects) if self._lists(key, *PARTS) else None
        if manifest is None:
            return None
        contents: dict[Part, bytes] = {}
        for part, file in manifest.parts.items():
            contents[part] = self._objects.get(self._root / key / file.name)
            file.check(contents[part])
        return contents

    def _set_aside(self, key: str, why: str) -> None:
        try:
            set_aside(self._objects, self._root, key, why, self._tell)
        except StorageAwayError as error:
            self._tell(f"the checkpoint {key} is damaged ({why}) and still there: {error}")
        self._names = {name for name in self._names if not name.startswith(f"{key}/")}
        self._manifests.pop(key, None)
