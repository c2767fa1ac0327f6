"""Prepared sets: every picture decoded and cut once, then mapped into memory by all trainings.

A folder of four files: ``images.npy`` (N, S, S, 3) uint8, ``angles.npy`` (N, 3) float32 yaw,
pitch, roll, ``names.json`` and, written last, ``manifest.json``. The folder appears under its name
only when it is whole. Letters: N images, S stored side in pixels.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headpose.data.manifest import (
    ANGLES_FILE,
    DATA_FILES,
    IMAGES_FILE,
    MANIFEST_FILE,
    NAMES_FILE,
    Manifest,
)
from headpose.data.preparation import prepare
from usererror import UserError

__all__ = ["PreparedSet", "is_prepared", "prepare"]


@dataclass(frozen=True, eq=False)
class PreparedSet:
    """A prepared set, opened.

    Attributes:
        folder: where it lies.
        images_u8: (N, S, S, 3) RGB, read-only and mapped: its pages are shared by all processes.
        angles_deg: (N, 3) float32 yaw, pitch, roll, all within ±99.
        names: N names, see :class:`headpose.data.readers.Sample`.
        photos: N keys of the photos behind the pictures, for a split without leakage.
        manifest: how the set was made.
    """

    folder: Path
    images_u8: npt.NDArray[np.uint8]
    angles_deg: npt.NDArray[np.float32]
    names: tuple[str, ...]
    photos: tuple[str, ...]
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path, *, verify_images: bool = False) -> "PreparedSet":
        """Open a prepared set.

        All lengths and the sums of the small files are always checked; the sum of the images only
        on demand, for it reads all of them: do it once after a transfer, not in every trial.

        Raises:
            UserError: there is no set, or it is damaged.
        """
        if not is_prepared(folder):
            raise UserError(
                str(folder),
                "no prepared data set here",
                rule=f"a folder with {MANIFEST_FILE}",
                remedy="prepare it with `hopetune data prepare LAYOUT SOURCE --to PLACE`",
            )
        manifest_path = folder / MANIFEST_FILE
        manifest = Manifest.from_json(_text_of(manifest_path), manifest_path)
        for name in DATA_FILES:
            with_sum = verify_images or name != IMAGES_FILE
            _check_file(folder / name, manifest, with_sum=with_sum)
        names = json.loads((folder / NAMES_FILE).read_text(encoding="utf-8"))
        opened = cls(
            folder=folder,
            images_u8=_mapped(folder / IMAGES_FILE),
            angles_deg=np.load(folder / ANGLES_FILE, allow_pickle=False),
            names=tuple(names["names"]),
            photos=tuple(names["photos"]),
            manifest=manifest,
        )
        opened._check_shapes()
        return opened

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def fingerprint(self) -> str:
        """sha256 over all that makes a difference to a training on this set."""
        return self.manifest.fingerprint

    @property
    def stored_px(self) -> int:
        """S."""
        return self.manifest.settings.stored_px

    @property
    def view_fraction(self) -> float:
        """Share of the stored side that the network sees at test time."""
        return self.manifest.settings.view_fraction

    def require_view_px(self, image_px: int) -> None:
        """Refuse views that could only be blown up from fewer stored pixels.

        Raises:
            UserError: the set is too coarse.
        """
        self.manifest.settings.require_view_px(image_px, str(self.folder))

    def _check_shapes(self) -> None:
        count, side = self.manifest.count, self.stored_px
        found = [(array.shape, str(array.dtype)) for array in (self.images_u8, self.angles_deg)]
        expected = [((count, side, side, 3), "uint8"), ((count, 3), "float32")]
        if found != expected:
            raise _damaged(self.folder, found, str(expected))
        if not len(self.names) == len(self.photos) == count:
            raise _damaged(self.folder / NAMES_FILE, len(self.names), f"{count} names")


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds a finished set: the manifest is written last."""
    return (folder / MANIFEST_FILE).is_file()


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise _damaged(path, str(error), "UTF-8 text") from error


def _check_file(path: Path, manifest: Manifest, *, with_sum: bool) -> None:
    expected = manifest.files[path.name]
    if not path.is_file():
        raise _damaged(path, "no such file", f"{expected['bytes']} bytes")
    length = path.stat().st_size
    if length != expected["bytes"]:
        raise _damaged(path, f"{length} bytes", f"{expected['bytes']} bytes")
    if with_sum:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected["sha256"]:
            raise _damaged(path, f"sha256 {found}", f"sha256 {expected['sha256']}")


def _mapped(path: Path) -> npt.NDArray[np.uint8]:
    try:
        # A plain array over the map: np.memmap as a type is slow to index.
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError as error:
        raise _damaged(path, str(error), "an npy array") from error


def _damaged(path: Path, got: object, rule: str) -> UserError:
    return UserError(
        str(path),
        "the prepared data set is damaged",
        got=got,
        rule=f"its manifest asks for {rule}",
        remedy="delete the folder and prepare or fetch it again",
    )
