"""300W_AUG: a copy of 300W-LP with some of its pictures turned in their plane, labels included.

The set that the improvement paper's largest gain came from. Its script applied an approximate
formula, kept the landmarks of the unturned pictures and enlarged the canvas; here poses are
composed (``headpose.angles.turn_clockwise``), landmarks and placement turn with the picture, and
the canvas stays. The copy has 300W-LP's layout, so ``hopetune data prepare 300w-lp`` reads it.

Of a .mat file only what a turn changes is written for a turned picture: Pose_Para, pt2d, and roi as
it was; shape, expression and light are left to the picture that it was made from.
"""

import hashlib
import io
import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.io
import torch
from PIL import Image

from headpose.angles import turn_clockwise, within_limit
from headpose.data.decoding import DamagedPictureError, decode
from headpose.data.matfile import read_arrays
from headpose.data.readers import Sample, find_names, photo_of, read_sample
from headpose.files import write_atomically
from headpose.labels import to_pose_para
from usererror import UserError

Degrees = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

MARKER = "turned.json"
TURNS_DEG = (-20.0, -10.0, 10.0, 20.0)  # as published
SHARE = 0.1  # of the pictures, by each angle; as published
# Turned variants of k are numbered 100 + k, 200 + k, …; 300W-LP has at most 18 variants a face.
_VARIANTS = 100
_JPEG_QUALITY = 95  # untuned
_NUMBERED = re.compile(r"(?P<face>.+_)(?P<k>\d+)(?P<flip>_Flip)?")


@dataclass(frozen=True)
class TurnedSet:
    """What was written: all of the source's pictures, and turned ones."""

    copied: int
    turned: int
    beyond_limit: int
    """Turns left out, as an angle of the label would lie beyond ±99°."""
    unusable: int
    """Of no usable label, or damaged and to be turned: copied, never turned."""


def turn_set(
    source: Path,
    target: Path,
    *,
    share: float = SHARE,
    turns_deg: Sequence[float] = TURNS_DEG,
    seed: int = 0,
    progress: Progress | None = None,
) -> TurnedSet:
    """Write the copy; broken off, the same call goes on where it was.

    Which pictures are turned follows from their names and the seed.

    Args:
        source: in the layout of 300W-LP.
        target: a new or empty folder, or one that a call with the same arguments began.
        share: of the pictures, turned by each of the angles; 0 to 1.
        turns_deg: clockwise as the picture is seen.
        seed: another seed turns other pictures.
        progress: called with pictures done and pictures in all.

    Raises:
        UserError: the share is none, or ``target`` holds something else, or ``source`` nothing, or
            turned pictures already.
        NotHereError: a label cannot be read now.
        OSError: a file cannot be read or written.
    """
    if not 0 < share <= 1:
        raise UserError("share", "not a share", got=share, rule="0 < share <= 1")
    names = find_names("300w-lp", source)
    _check_unturned(source, names)
    origin = str(source.resolve())
    _claim(target, {"source": origin, "share": share, "turns_deg": list(turns_deg), "seed": seed})
    for folder in {(target / name).parent for name in names}:
        folder.mkdir(parents=True, exist_ok=True)
    work = partial(_write_all, source, target, share, tuple(turns_deg), seed)
    total = TurnedSet(0, 0, 0, 0)
    with ThreadPoolExecutor() as pool:  # decoding, turning and encoding leave Python's lock
        for done, found in enumerate(pool.map(work, names), start=1):
            total = _added(total, found)
            if progress is not None:
                progress(done, len(names))
    return total


def turned_points(points_px: Degrees, clockwise_deg: float, side_px: tuple[int, int]) -> Degrees:
    """Points (2, P) of a picture of (width, height) turned about its middle; hidden ones, which
    AFLW's annotation marks by a negative x, stay as they are."""
    middle = np.array(side_px, np.float64)[:, None] / 2
    radians = math.radians(clockwise_deg)
    cos, sin = math.cos(radians), math.sin(radians)
    turned = np.array([[cos, -sin], [sin, cos]]) @ (points_px - middle) + middle  # y down
    kept: Degrees = np.where(points_px[0] < 0, points_px, turned)
    return kept


def _check_unturned(source: Path, names: Sequence[str]) -> None:
    """Numbers of what is turned twice would meet, one picture taking another's place."""
    turned = [name for name in names if _number_of(name) >= _VARIANTS]
    if turned:
        raise UserError(
            str(source),
            "has turned pictures already",
            got=f"{len(turned)} such as {turned[0]}",
            rule=f"variants of a face are numbered below {_VARIANTS}",
            remedy="turn the original set, with a higher --share for more",
        )


def _number_of(name: str) -> int:
    """k of a picture; 0 of one that is never turned."""
    numbered = _NUMBERED.fullmatch(name)
    return int(numbered["k"]) if numbered and photo_of("300w-lp", name) else 0


def _write_all(
    source: Path, target: Path, share: float, turns_deg: tuple[float, ...], seed: int, name: str
) -> TurnedSet:
    """One picture's copy and its turned variants."""
    for suffix in (".jpg", ".mat"):
        _copy(source / f"{name}{suffix}", target / f"{name}{suffix}")
    sample = read_sample("300w-lp", source, name)
    numbered = _NUMBERED.fullmatch(name)
    if not isinstance(sample, Sample) or numbered is None:
        return TurnedSet(1, 0, 0, 1)
    turned = beyond = 0
    for index, turn_deg in enumerate(turns_deg, start=1):
        if _unit(seed, name, index) >= share:
            continue
        angles = turn_clockwise(torch.from_numpy(sample.angles_deg), turn_deg)
        if not bool(within_limit(angles)):
            beyond += 1
            continue
        stem = f"{numbered['face']}{index * _VARIANTS + int(numbered['k'])}{numbered['flip'] or ''}"
        try:
            _write_turned(sample, angles.numpy(), turn_deg, target / stem)
        except (DamagedPictureError, _NoPlacementError):
            return TurnedSet(1, 0, 0, 1)
        turned += 1
    return TurnedSet(1, turned, beyond, 0)


class _NoPlacementError(Exception):
    """A Pose_Para of angles alone: where the head would be after a turn cannot be said."""


def _write_turned(sample: Sample, angles_deg: Degrees, turn_deg: float, stem: Path) -> None:
    picture_path = stem.with_name(f"{stem.name}.jpg")  # a stem may hold a dot
    if picture_path.exists():  # written last
        return
    picture = decode(sample.image_path)
    mat_path = sample.image_path.with_name(f"{sample.image_path.stem}.mat")
    fields = read_arrays(mat_path, ("Pose_Para", "roi"))
    placement = fields["Pose_Para"].reshape(-1)[3:7].copy()
    if placement.size < 4:
        raise _NoPlacementError
    # ty is measured upward from the bottom of the picture.
    at = np.array([[placement[0]], [picture.height - placement[1]]])
    x, y = turned_points(at, turn_deg, picture.size)[:, 0]
    placement[:2] = x, picture.height - y
    content = {
        "Pose_Para": to_pose_para(angles_deg, placement),
        "pt2d": turned_points(sample.landmarks_px, turn_deg, picture.size),
        **({"roi": fields["roi"]} if "roi" in fields else {}),
    }
    labels = io.BytesIO()
    scipy.io.savemat(labels, content)
    _replace(stem.with_name(f"{stem.name}.mat"), labels.getvalue())
    pixels = io.BytesIO()
    # PIL turns counter-clockwise.
    picture.rotate(-turn_deg, Image.Resampling.BICUBIC).save(pixels, "JPEG", quality=_JPEG_QUALITY)
    _replace(picture_path, pixels.getvalue())


def _copy(source: Path, target: Path) -> None:
    if source.exists() and not target.exists():
        draft = target.with_name(f".{target.name}.tmp")
        shutil.copyfile(source, draft)
        draft.replace(target)


def _replace(path: Path, content: bytes) -> None:
    """Nobody sees half a file."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_bytes(content)
    draft.replace(path)


def _unit(seed: int, name: str, turn: int) -> float:
    """A number in [0, 1) that follows from the name alone, not from the order of names."""
    digest = hashlib.sha256(f"{seed}/{turn}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") / 2**64


def _claim(target: Path, arguments: dict[str, object]) -> None:
    """Marks the folder as this call's, or finds that it is."""
    marker = target / MARKER
    if marker.is_file() and json.loads(marker.read_text("utf-8")) == arguments:
        return
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(
            str(target),
            "holds something else",
            rule=f"a new or empty folder, or one begun with {arguments}",
            remedy="name another folder, or delete this one",
        )
    target.mkdir(parents=True, exist_ok=True)
    write_atomically(marker, json.dumps(arguments).encode())


def _added(one: TurnedSet, other: TurnedSet) -> TurnedSet:
    return TurnedSet(
        one.copied + other.copied,
        one.turned + other.turned,
        one.beyond_limit + other.beyond_limit,
        one.unusable + other.unusable,
    )
