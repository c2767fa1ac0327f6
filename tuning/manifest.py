"""What a stored checkpoint says of itself, and where its parts lie.

Below ``checkpoints/`` each key has a folder: ``weights-….safetensors`` (the network, loadable on
its own), ``optimiser-….safetensors`` (what going on needs beside it) and, written last,
``manifest.json``. The dots are the beginning of the content's sha256: what two writers of one key
bring never mixes, and a manifest names exactly its own. A folder without a manifest does not exist
for a reader. Manifests stay for ever; they are small, and they say what needs no training.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from tuning.objects import AbsentObjectError, Objects, Place

Part = Literal["weights", "optimiser"]
PARTS: tuple[Part, ...] = get_args(Part)
MANIFEST = "manifest.json"
SHA_IN_NAME = 16
"""Hexadecimal digits: two contents of one key have one name once in 2**64."""

Metrics = dict[str, float]
OBJECTIVE = "val_mae"


class DamagedCheckpointError(Exception):
    """A checkpoint is not what was written."""


@dataclass(frozen=True)
class PartFile:
    """One object of a checkpoint."""

    name: str
    sha256: str
    size: int
    """In bytes."""

    def check(self, content: bytes) -> None:
        """Raises DamagedCheckpointError: it is not what was written."""
        if len(content) != self.size:
            raise DamagedCheckpointError(f"{self.name}: {len(content)} of {self.size} bytes")
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise DamagedCheckpointError(f"{self.name} does not have the sha256 of its manifest")


@dataclass(frozen=True)
class Manifest:
    """A whole checkpoint: the metrics of the epochs 1 … e that led there, and its parts."""

    key: str
    history: list[Metrics]
    parts: dict[Part, PartFile]

    @property
    def epoch(self) -> int:
        return len(self.history)

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def manifest_of(key: str, history: Sequence[Metrics], contents: Mapping[Part, bytes]) -> Manifest:
    """The manifest of a checkpoint with these contents."""
    parts = {}
    for part, content in contents.items():
        sha = hashlib.sha256(content).hexdigest()
        name = f"{part}-{sha[:SHA_IN_NAME]}.safetensors"
        parts[part] = PartFile(name, sha, len(content))
    return Manifest(key, list(history), parts)


def parse_manifest(content: bytes, key: str) -> Manifest:
    """A manifest from its file.

    Raises:
        DamagedCheckpointError: it is none, or that of another key.
    """
    try:
        found = json.loads(content)
        parts = {part: PartFile(**found["parts"][part]) for part in PARTS}
        manifest = Manifest(found["key"], [dict(metrics) for metrics in found["history"]], parts)
        whole = all(OBJECTIVE in metrics for metrics in manifest.history)
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedCheckpointError(f"an unreadable manifest: {error}") from error
    if manifest.key != key or not manifest.history or not whole:
        raise DamagedCheckpointError("a manifest of something else")
    return manifest


def read_manifest(objects: Objects, root: Place, key: str) -> Manifest | None:
    """The manifest of a key below ``root``; none where there is no whole checkpoint.

    Raises:
        DamagedCheckpointError: it cannot be understood.
        UserError: the store cannot be asked.
    """
    try:
        content = objects.get(root / key / MANIFEST)
    except AbsentObjectError:
        return None
    return parse_manifest(content, key)


def weights_place(objects: Objects, root: Place, key: str) -> Place:
    """Where the weights of a key lie, or lay before they were collected.

    Raises:
        AbsentObjectError: there is no such checkpoint.
        DamagedCheckpointError: its manifest cannot be understood.
        UserError: the store cannot be asked.
    """
    manifest = read_manifest(objects, root, key)
    if manifest is None:
        raise AbsentObjectError(str(root / key))
    return root / key / manifest.parts["weights"].name
