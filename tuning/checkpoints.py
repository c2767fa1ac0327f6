"""Checkpoints in S3, one folder for each prefix key.

``weights.safetensors`` (the network, loadable on its own), ``optimiser.pt`` (what going on needs
beside it) and, written last, ``manifest.json`` with their sha256 and the metrics of all epochs up
to this one. A folder without a manifest does not exist for a reader, so nobody reads half of one.
"""

import hashlib
import io
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tuning.objects import AbsentObjectError, Objects, Place
from usererror import UserError

log = logging.getLogger(__name__)

WEIGHTS = "weights.safetensors"
OPTIMISER = "optimiser.pt"
MANIFEST = "manifest.json"

UPLOAD_ATTEMPTS = 6  # untuned: with doubling pauses, about a minute
SPOOL = 2  # checkpoints waiting in memory, then training waits for the storage; untuned

LOOK_AGAIN_S = 10.0  # untuned: an upload of 100 MB takes 2 s

Metrics = dict[str, float]


class DamagedCheckpointError(Exception):
    """The objects do not fit their manifest."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint folder says of itself."""

    key: str
    history: list[Metrics]
    """Metrics of the epochs 1 … e that led here."""
    sha256: dict[str, str]

    @property
    def epoch(self) -> int:
        return len(self.history)


@dataclass(frozen=True)
class Snapshot:
    """A trial's whole state after an epoch."""

    weights_file: bytes
    """The network as a safetensors file."""
    optimiser: dict[str, Any]
    """What going on needs beside the weights; on the CPU."""


class CheckpointStore:
    """Checkpoints below ``root``; uploads go on in the background, in order."""

    def __init__(self, objects: Objects, root: Place) -> None:
        self._objects = objects
        self._root = root
        self._waiting: queue.Queue[tuple[str, Callable[[], None]]] = queue.Queue(SPOOL)
        self._on_their_way: set[str] = set()
        self._failed: dict[str, Exception] = {}
        threading.Thread(target=self._upload_for_ever, daemon=True, name="checkpoints").start()

    def place(self, key: str) -> Place:
        return self._root / key

    def longest(
        self, keys: Sequence[str], trained_epochs: int = 0
    ) -> tuple[Manifest, Snapshot] | None:
        """The longest trained beginning of a plan; ``keys`` are those of its epochs, in order.

        A damaged checkpoint is passed over, loudly, for the next shorter one. What this very worker
        is still uploading is waited for: a trial may be taken up right after it was paused. Where
        the plan is known to be trained to ``trained_epochs``, another node may be uploading, which
        is waited for shortly.
        """
        if self._on_their_way.intersection(keys):
            self.flush()
        until = time.monotonic() + LOOK_AGAIN_S
        while trained_epochs and time.monotonic() < until:
            if self.manifest(keys[min(trained_epochs, len(keys)) - 1]):
                break
            time.sleep(0.5)
        for key in reversed(keys):
            manifest = self.manifest(key)
            if manifest is None:
                continue
            try:
                return manifest, self._load(manifest)
            except (DamagedCheckpointError, AbsentObjectError) as error:
                log.warning("checkpoint %s is damaged and passed over: %s", key, error)
        return None

    def manifest(self, key: str) -> Manifest | None:
        """What the folder of a key says; none where there is no whole checkpoint."""
        try:
            content = self._objects.get(self.place(key) / MANIFEST)
        except AbsentObjectError:
            return None
        try:
            return Manifest(**json.loads(content))
        except (ValueError, TypeError) as error:
            log.warning("checkpoint %s has an unreadable manifest: %s", key, error)
            return None

    def save(self, key: str, history: Sequence[Metrics], snapshot: Snapshot) -> None:
        """Queues a checkpoint for upload; waits only where ``SPOOL`` others wait already."""
        self._on_their_way.add(key)
        self._waiting.put((key, lambda: self._upload(key, list(history), snapshot)))

    def flush(self) -> None:
        """Waits until nothing is on its way any more."""
        self._waiting.join()

    def check(self, keys: Sequence[str]) -> None:
        """Tells of uploads that failed for good, to the trial that they belong to.

        Raises:
            UserError: that of one of these keys did.
        """
        for key in keys:
            if failure := self._failed.pop(key, None):
                what = "a checkpoint could not be stored"
                raise UserError(str(self.place(key)), what, got=str(failure))

    def _upload_for_ever(self) -> None:
        while True:
            key, upload = self._waiting.get()
            try:
                self._with_retries(upload)
            except UserError as failure:
                log.error("checkpoint %s is not stored: %s", key, failure)
                self._failed[key] = failure
            finally:
                self._on_their_way.discard(key)
                del upload  # it holds a whole checkpoint, and the next one may be long in coming
                self._waiting.task_done()

    def _with_retries(self, upload: Callable[[], None]) -> None:
        for attempt in range(UPLOAD_ATTEMPTS):
            try:
                return upload()
            except UserError as error:
                if attempt == UPLOAD_ATTEMPTS - 1:
                    raise
                log.warning("checkpoint upload, attempt %d: %s", attempt + 1, error)
                time.sleep(2**attempt)
        return None

    def _upload(self, key: str, history: list[Metrics], snapshot: Snapshot) -> None:
        optimiser = io.BytesIO()
        torch.save(snapshot.optimiser, optimiser)
        contents = {WEIGHTS: snapshot.weights_file, OPTIMISER: optimiser.getvalue()}
        for name, content in contents.items():
            self._objects.put(self.place(key) / name, content)
        sums = {name: _sha256(content) for name, content in contents.items()}
        manifest = Manifest(key, history, sums)
        self._objects.put(self.place(key) / MANIFEST, json.dumps(asdict(manifest)).encode())

    def _load(self, manifest: Manifest) -> Snapshot:
        contents = {}
        for name in (WEIGHTS, OPTIMISER):
            contents[name] = self._objects.get(self.place(manifest.key) / name)
            if _sha256(contents[name]) != manifest.sha256.get(name):
                raise DamagedCheckpointError(f"{name} does not have the sha256 of its manifest")
        # weights_only: an object store is not a place from which to unpickle code.
        optimiser = torch.load(io.BytesIO(contents[OPTIMISER]), weights_only=True)
        return Snapshot(contents[WEIGHTS], optimiser)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
