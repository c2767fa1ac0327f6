"""Reading 300W-LP and AFLW2000: which samples a folder holds, and which it ought to.

Every file is either a sample or a named entry of what was left out, with the reason; nothing is
guessed and nothing is dropped in silence. Letters: P landmarks.
"""

import errno
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from headpose.data.decoding import raise_if_passing
from headpose.data.matfile import MatFileError, read_arrays
from headpose.labels import LIMIT_DEG, from_pose_para
from usererror import UserError

# Of a path that leads to no file; the last is of a link that leads to itself.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

Layout = Literal["300w-lp", "aflw2000"]

# The four sources of 300W-LP (Zhu et al. 2016); each has a mirrored twin folder.
SETS_300W_LP = ("AFW", "HELEN", "IBUG", "LFPW")
FLIP_SUFFIX = "_Flip"

# What identifies the photo in a 300W-LP name; the rest is face and variant. Names of one photo
# must never lie on both sides of a split. A stem may hold a space ("IBUG_image_092 _01_3").
_PHOTO_300W_LP = (
    re.compile(r"(?P<photo>(?:AFW|HELEN)_.+)_\d+_\d+"),
    re.compile(r"(?P<photo>LFPW_image_(?:train|test)_\d+)_\d+"),
    # IBUG_image_NNN[_M]_k: M numbers the faces, so NNN alone is the photo.
    re.compile(r"(?P<photo>IBUG_image_\d+)(?: ?_\d+)?_\d+"),
)


@dataclass(frozen=True)
class Sample:
    """One labelled picture.

    Attributes:
        name: unique within the set, such as "AFW_Flip/AFW_1051618982_1_0".
        image_path: the jpg.
        angles_deg: (3,) float64 yaw, pitch, roll, all within ±99.
        landmarks_px: (2, P) float64, x and y; AFLW2000 holds (−1, 452) for an invisible point.
        photo: key of the photo that the picture was made from; a mirrored twin has the same.
    """

    name: str
    image_path: Path
    angles_deg: npt.NDArray[np.float64]
    landmarks_px: npt.NDArray[np.float64]
    photo: str


@dataclass(frozen=True)
class LeftOut:
    """A file that is no sample.

    Attributes:
        name: as in :class:`Sample`.
        reason: why, in words.
        is_damage: False where the file is whole, but its angles lie beyond the protocol's ±99.
    """

    name: str
    reason: str
    is_damage: bool = True


@dataclass(frozen=True)
class Scan:
    """All samples of a folder, in the order of their names, and all that was left out."""

    samples: tuple[Sample, ...]
    left_out: tuple[LeftOut, ...]


def scan(layout: Layout, root: Path) -> Scan:
    """Read every label below ``root``; pictures are not opened.

    Raises:
        UserError: the layout is unknown, the folder is missing or cannot be listed, or it holds
            nothing of the layout.
        NotHereError: a folder or a label cannot be read now, but perhaps at another time.
    """
    entries = [read_sample(layout, root, name) for name in find_names(layout, root)]
    return Scan(
        samples=tuple(entry for entry in entries if isinstance(entry, Sample)),
        left_out=tuple(entry for entry in entries if isinstance(entry, LeftOut)),
    )


def find_names(layout: Layout, root: Path) -> tuple[str, ...]:
    """Names of all samples that ``root`` ought to hold: one for each stem of a .jpg or a .mat.

    Raises:
        UserError: as for :func:`scan`.
    """
    if layout not in get_args(Layout):
        raise UserError(
            "layout", "unknown data set layout", got=layout, rule=f"one of {get_args(Layout)}"
        )
    try:
        if not root.is_dir():
            raise UserError(
                str(root),
                "no such data set folder",
                rule=f"a folder in the layout of {layout}",
                remedy="check the path, or write one with `hopetune data synthesize DIR`",
            )
        names = {
            str((folder / path.stem).relative_to(root))
            for folder in _folders(layout, root)
            for path in folder.iterdir()
            if path.suffix in {".jpg", ".mat"}
        }
    except OSError as error:
        folder = Path(error.filename or root)
        raise_if_passing(folder, error)
        raise UserError(
            str(folder),
            "cannot be listed",
            got=error.strerror,
            remedy="check that you may read it",
        ) from error
    if not names:
        raise UserError(
            str(root), f"holds no sample of the layout {layout}", rule=_EXPECTED[layout]
        )
    return tuple(sorted(names))


_EXPECTED = {
    "300w-lp": "jpg and mat files side by side in AFW, HELEN, IBUG, LFPW or their _Flip folders",
    "aflw2000": "imageNNNNN.jpg and imageNNNNN.mat side by side in the folder itself",
}


def _folders(layout: Layout, root: Path) -> Iterator[Path]:
    if layout == "aflw2000":
        yield root
        return
    for name in SETS_300W_LP:
        for folder in (root / name, root / f"{name}{FLIP_SUFFIX}"):
            if folder.is_dir():
                yield folder


def read_sample(layout: Layout, root: Path, name: str) -> Sample | LeftOut:
    """The sample of that name, or why it is none; the picture is not opened.

    Raises:
        NotHereError: its label cannot be read now, but perhaps at another time.
    """
    try:
        return _read(layout, root, name)
    except _UnusableError as error:
        return LeftOut(name, str(error), error.is_damage)


def read_landmarks(path: Path) -> npt.NDArray[np.float64] | LeftOut:
    """The landmarks (2, P) in pixels of a .mat file, as in :class:`Sample`, or why it has none.

    Raises:
        NotHereError: as of :func:`read_sample`.
    """
    try:
        return _landmarks(_mat_fields(path, ("pt2d",))["pt2d"])
    except _UnusableError as error:
        return LeftOut(path.stem, str(error))


class _UnusableError(Exception):
    def __init__(self, reason: str, *, is_damage: bool = True) -> None:
        super().__init__(reason)
        self.is_damage = is_damage


def _read(layout: Layout, root: Path, name: str) -> Sample:
    photo = photo_of(layout, name)
    if photo is None:
        raise _UnusableError(f"the name does not follow the rule of {layout}")
    # Not with_suffix: a stem may hold a dot.
    image_path, label_path = root / f"{name}.jpg", root / f"{name}.mat"
    for path in (image_path, label_path):
        if not _is_file(path):
            raise _UnusableError(f"no {path.suffix[1:]} file beside its twin")
    fields = _mat_fields(label_path, ("Pose_Para", "pt2d"))
    angles_deg, landmarks_px = _angles(fields["Pose_Para"]), _landmarks(fields["pt2d"])
    return Sample(name, image_path, angles_deg, landmarks_px, photo)


def _is_file(path: Path) -> bool:
    # Not Path.is_file: what that makes of a disk that fails depends on Python's version.
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise_if_passing(path, error)
        reason = f"the {path.suffix[1:]} file cannot be read: {error.strerror}"
        raise _UnusableError(reason) from error


def _angles(pose_para: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    try:
        angles_deg = _snapped(from_pose_para(pose_para))
    except UserError as error:
        raise _UnusableError(str(error)) from error
    row = "yaw {:.2f}, pitch {:.2f}, roll {:.2f}".format(*angles_deg)
    if not np.isfinite(angles_deg).all():
        raise _UnusableError(f"an angle is not a number: {row}")
    if (np.abs(angles_deg) > LIMIT_DEG).any():
        raise _UnusableError(f"an angle lies beyond ±{LIMIT_DEG:g}°: {row}", is_damage=False)
    return angles_deg


def _landmarks(landmarks_px: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if landmarks_px.ndim != 2 or landmarks_px.shape[0] != 2 or landmarks_px.shape[1] < 2:
        raise _UnusableError(f"pt2d is not (2, P) with P >= 2: {landmarks_px.shape}")
    if not np.isfinite(landmarks_px).all():
        raise _UnusableError("a landmark is not a number")
    return landmarks_px


def photo_of(layout: Layout, name: str) -> str | None:
    """Key of the photo behind a sample's name; None where the name follows no rule."""
    stem = name.rsplit("/", 1)[-1]
    if layout == "aflw2000":
        return stem
    for pattern in _PHOTO_300W_LP:
        match = pattern.fullmatch(stem.removesuffix(FLIP_SUFFIX))
        if match:
            return match["photo"]
    return None


def _mat_fields(path: Path, needed: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    try:
        fields = read_arrays(path, needed)
    except OSError as error:
        raise_if_passing(path, error)
        raise _UnusableError(f"the mat file cannot be read: {error.strerror}") from error
    except MatFileError as error:
        raise _UnusableError(f"the mat file is damaged: {error}") from error
    missing = [field for field in needed if field not in fields]
    if missing:
        raise _UnusableError(f"the mat file has no {' and no '.join(missing)}")
    return fields


def _snapped(angles_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Put angles that are the limit in float32, the precision of the files, onto the limit.

    The radians of 99° in float32 may come back as a few millionths more, beyond a limit that the
    angle is on.
    """
    at_limit = np.abs(np.abs(angles_deg) - LIMIT_DEG) <= np.spacing(np.float32(LIMIT_DEG))
    return np.where(at_limit, np.sign(angles_deg) * LIMIT_DEG, angles_deg)
