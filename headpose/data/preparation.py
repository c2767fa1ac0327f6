"""Making a prepared set: read, decode, cut and resize every picture once.

Threads, not processes: decoding and resizing (5 ms a picture of 450 px) run without Python's
lock, reading a label (0.1 ms) needs it, and threads start at once and share nothing by copy.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import struct
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image

from headpose.data.crops import NoBoxError, face_box, square_view
from headpose.data.manifest import (
    ANGLES_FILE,
    DATA_FILES,
    IMAGES_FILE,
    MANIFEST_FILE,
    NAMES_FILE,
    Manifest,
    PrepareSettings,
)
from headpose.data.readers import Layout, LeftOut, Sample, find_names, read_sample
from usererror import UserError

Progress = Callable[[int, int], None]

# So many pictures are in flight at most: 512 of 280 px are 120 MB.
_WINDOW = 512
# NumPy pads the header of such an array to exactly this length, whatever its count.
_NPY_HEADER_BYTES = 128
_NAMES_SHOWN = 10
# What Pillow was seen to raise for truncated and damaged files.
_DAMAGED_JPG = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class _Source:
    layout: Layout
    root: Path
    names: tuple[str, ...]
    settings: PrepareSettings


@dataclass(frozen=True)
class _Picture:
    sample: Sample
    pixels: npt.NDArray[np.uint8]  # (S, S, 3)


def prepare(
    layout: Layout,
    source: Path,
    destination: Path,
    settings: PrepareSettings,
    progress: Progress | None = None,
    *,
    workers: int | None = None,
) -> Manifest:
    """Prepare a data set.

    Args:
        layout: how ``source`` is laid out.
        source: the genuine or synthetic data set.
        destination: a folder that does not exist yet or is empty; it appears when it is whole.
        settings: how pictures are cut and stored.
        progress: called with pictures done and pictures in all.
        workers: threads; None = one for each core that this process may use.

    Returns:
        The manifest of the new set, with all that was left out.

    Raises:
        UserError: a bad source or destination, too many damaged files, or no room on the disk.
    """
    found = _Source(layout, source, find_names(layout, source), settings)
    _check_destination(destination, needed_bytes=len(found.names) * settings.stored_px**2 * 3)
    partial = destination.parent / f".{destination.name}.{uuid.uuid4().hex}.partial"
    partial.mkdir(parents=True)
    try:
        manifest = _write_set(partial, found, progress, workers)
        partial.replace(destination)
        _sync_folder(destination.parent)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _no_room(destination) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _write_set(
    folder: Path, source: _Source, progress: Progress | None, workers: int | None
) -> Manifest:
    side = source.settings.stored_px
    samples: list[Sample] = []
    left_out: list[LeftOut] = []
    with (folder / IMAGES_FILE).open("wb") as images:
        images.write(bytes(_NPY_HEADER_BYTES))
        for done, entry in enumerate(_pictures(source, workers), 1):
            if isinstance(entry, LeftOut):
                left_out.append(entry)
            else:
                samples.append(entry.sample)
                images.write(entry.pixels.tobytes())
            if progress is not None:
                progress(done, len(source.names))
        _check_left_out(source, len(samples), left_out)
        images.seek(0)
        images.write(_npy_header((len(samples), side, side, 3)))
        _sync(images)
    angles_deg = np.stack([sample.angles_deg for sample in samples]).astype(np.float32)
    with (folder / ANGLES_FILE).open("wb") as file:
        np.save(file, angles_deg, allow_pickle=False)
        _sync(file)
    columns = {
        "names": [sample.name for sample in samples],
        "photos": [sample.photo for sample in samples],
    }
    _write_text(folder / NAMES_FILE, json.dumps(columns, indent=0) + "\n")
    manifest = Manifest(
        layout=source.layout,
        settings=source.settings,
        count=len(samples),
        left_out=tuple(left_out),
        files={name: _described(folder / name) for name in DATA_FILES},
        percentiles_deg=_percentiles(angles_deg),
    )
    _write_text(folder / MANIFEST_FILE, manifest.to_json())
    return manifest


def _pictures(source: _Source, workers: int | None) -> Iterator[_Picture | LeftOut]:
    """All names in order, read by a pool that never runs far ahead of its reader."""

    def one(name: str) -> _Picture | LeftOut:
        sample = read_sample(source.layout, source.root, name)
        if isinstance(sample, LeftOut):
            return sample
        return _cut(source.layout, sample, source.settings)

    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        for start in range(0, len(source.names), _WINDOW):
            yield from pool.map(one, source.names[start : start + _WINDOW])


def _cut(layout: Layout, sample: Sample, settings: PrepareSettings) -> _Picture | LeftOut:
    try:
        with Image.open(sample.image_path, formats=["JPEG"]) as file:
            image = file.convert("RGB")
    except _DAMAGED_JPG as error:
        return LeftOut(sample.name, f"the jpg file is damaged: {_brief(error)}")
    try:
        box = face_box(
            layout,
            sample.landmarks_px,
            looseness=settings.looseness_of(layout),
            policy=settings.policy,
        )
        view = square_view(image, box, settings.stored_px, scale=1 / settings.view_fraction)
    except NoBoxError as error:
        return LeftOut(sample.name, str(error))
    return _Picture(sample, np.asarray(view))


def _brief(error: BaseException) -> str:
    # Pillow names the whole path where it cannot identify a file; the entry has the name already.
    return "not a JPEG picture" if "cannot identify" in str(error) else str(error)


def _check_destination(destination: Path, *, needed_bytes: int) -> None:
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise UserError(
            str(destination),
            "is taken",
            rule="a prepared set needs a new or empty folder",
            remedy="choose another place, or delete what is there",
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(destination.parent).free
    if free_bytes < needed_bytes:
        raise _no_room(destination, f"{free_bytes:,} bytes", f"up to {needed_bytes:,} bytes needed")


def _no_room(destination: Path, got: str | None = None, rule: str | None = None) -> UserError:
    return UserError(
        str(destination),
        "no room on the disk",
        got=got,
        rule=rule,
        remedy="free some, choose another place, or lower stored_px",
    )


def _check_left_out(source: _Source, kept: int, left_out: list[LeftOut]) -> None:
    found, allowed = len(source.names), source.settings.max_left_out_fraction
    damaged = [entry for entry in left_out if entry.is_damage]
    if kept and len(damaged) <= allowed * found:
        return
    shown = damaged or left_out
    lines = [f"{entry.name!r}: {entry.reason}" for entry in shown[:_NAMES_SHOWN]]
    if len(shown) > _NAMES_SHOWN:
        lines.append(f"and {len(shown) - _NAMES_SHOWN} more")
    raise UserError(
        str(source.root),
        f"{len(damaged)} of {found} samples are damaged" if damaged else "no sample can be used",
        rule=f"at most {allowed:.0%} may be ({', '.join(lines)})"
        if damaged
        else f"at least one ({', '.join(lines)})",
        remedy="repair the source, or raise max_left_out_fraction",
    )


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    if buffer.tell() != _NPY_HEADER_BYTES:
        raise RuntimeError(f"NumPy wrote a header of {buffer.tell()} bytes for {shape}")
    return buffer.getvalue()


def _percentiles(angles_deg: npt.NDArray[np.float32]) -> dict[str, tuple[float, float, float]]:
    rows = np.percentile(angles_deg.astype(np.float64), (5, 50, 95), axis=0).round(2)
    return {
        name: (float(low), float(middle), float(high))
        for name, (low, middle, high) in zip(("yaw", "pitch", "roll"), rows.T, strict=True)
    }


def _described(path: Path) -> dict[str, str | int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        _sync(file)


def _sync(file: IO[bytes] | IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
