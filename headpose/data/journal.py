"""What a preparation has done so far, so that one that was killed goes on where it was.

Beside the growing array of images lies ``journal.jsonl``. Its first line says what is being
prepared; each further line closes a block of names: their labels, what was left out, and a stamp of
the source files. A line is written after the images of its block are safely on the disk, so what a
journal says is there; whatever lies beyond it is cut off and made again.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headpose.data.cutting import Picture, Source
from headpose.data.readers import LeftOut

JOURNAL_FILE = "journal.jsonl"
BLOCK = 1024
"""Names a line. At 5 ms a picture a kill costs seconds of work; untuned."""


@dataclass(frozen=True)
class Row:
    """What is kept of a picture beside its pixels; ``angles_deg`` is yaw, pitch, roll."""

    name: str
    photo: str
    angles_deg: tuple[float, float, float]


@dataclass
class Done:
    """Names dealt with, in order: the first ``names`` of the source."""

    names: int = 0
    rows: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, entry: Picture | LeftOut) -> None:
        """Takes the outcome of the next name."""
        self.names += 1
        if isinstance(entry, LeftOut):
            self.left_out.append(entry)
        else:
            sample = entry.sample
            yaw, pitch, roll = sample.angles_deg.tolist()
            self.rows.append(Row(sample.name, sample.photo, (yaw, pitch, roll)))

    def extend(self, other: "Done") -> None:
        """Takes what a later block did."""
        self.names += other.names
        self.rows += other.rows
        self.left_out += other.left_out

    def angles_deg(self) -> npt.NDArray[np.float32]:
        """(N, 3) of the rows."""
        return np.array([row.angles_deg for row in self.rows], np.float64).astype(np.float32)


class Journal:
    """The journal of one preparation in its unfinished folder."""

    def __init__(self, folder: Path, source: Source) -> None:
        self._path = folder / JOURNAL_FILE
        self._source = source
        self._head = (json.dumps({"preparing": _identity(source)}) + "\n").encode()
        self.taken_up = 0
        """Names that an earlier preparation has dealt with, as it was read."""

    def read(self) -> Done:
        """What is done and still true; the journal is cut to that, or begun anew.

        A block counts as long as none of its source files has changed since.
        """
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            lines = []
        done, length = Done(), len(self._head)
        if lines[:1] != [self._head]:
            self._path.write_bytes(self._head)
            lines = []
        for line in lines[1:]:
            block = self._block(line, done.names)
            if block is None:
                break
            done.extend(block)
            length += len(line)
        os.truncate(self._path, length)  # which takes no room, for there may be none
        self.taken_up = done.names
        return done

    def close_block(self, block: Done, begins_at: int) -> None:
        """Writes down a block whose images are safely on the disk."""
        names = self._source.names[begins_at : begins_at + block.names]
        content = {
            "names": block.names,
            "stamp": _stamp(self._source.root, names),
            "rows": [asdict(row) for row in block.rows],
            "left_out": [asdict(entry) for entry in block.left_out],
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """A finished set has no use for it."""
        self._path.unlink()

    def _block(self, line: bytes, begins_at: int) -> Done | None:
        """The block of a line; None where it was half-written or its files have changed."""
        try:
            content: dict[str, Any] = json.loads(line)
            rows = [
                Row(**{**row, "angles_deg": tuple(row["angles_deg"])}) for row in content["rows"]
            ]
            left_out = [LeftOut(**entry) for entry in content["left_out"]]
            block = Done(content["names"], rows, left_out)
            names = self._source.names[begins_at : begins_at + block.names]
            is_true = content["stamp"] == _stamp(self._source.root, names)
        except (ValueError, KeyError, TypeError):
            return None
        return block if is_true and line.endswith(b"\n") else None


def state_of(source: Source) -> str:
    """sha256 of what is prepared and of the present state of all its files."""
    return hashlib.sha256(
        (_identity(source) + _stamp(source.root, source.names)).encode()
    ).hexdigest()


def _identity(source: Source) -> str:
    """sha256 of all that decides the images: another preparation begins anew."""
    content = [source.layout, str(source.root.absolute()), asdict(source.settings), source.names]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _stamp(root: Path, names: Sequence[str]) -> str:
    """sha256 of lengths and times of change of the files behind some names."""
    digest = hashlib.sha256()
    for name in names:
        for suffix in (".jpg", ".mat"):
            try:
                state = (root / f"{name}{suffix}").stat()
                digest.update(f"{state.st_size}/{state.st_mtime_ns};".encode())
            except OSError:
                digest.update(b"absent;")
    return digest.hexdigest()
