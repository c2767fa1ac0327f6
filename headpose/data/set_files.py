"""The files of a prepared set, written so that they survive a power cut."""

import hashlib
import io
import os
from pathlib import Path
from typing import IO

import numpy as np

# NumPy pads the header of an array of images to exactly this length, whatever its count.
NPY_HEADER_BYTES = 128


def write_header(path: Path, count: int, side: int) -> None:
    """The header of ``count`` images of ``side`` pixels, into the room left for it."""
    with path.open("r+b") as file:
        file.write(_npy_header((count, side, side, 3)))
        sync(file)


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    if buffer.tell() != NPY_HEADER_BYTES:
        raise RuntimeError(f"NumPy wrote a header of {buffer.tell()} bytes for {shape}")
    return buffer.getvalue()


def described(path: Path) -> dict[str, str | int]:
    """What a manifest says of a file: its sha256 and its length in bytes."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}


def write_text(path: Path, text: str) -> None:
    """A text file that is on the disk when this returns."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        sync(file)


def sync(file: IO[bytes] | IO[str]) -> None:
    """Waits until what was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
