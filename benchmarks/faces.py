"""Synthetic data for the benchmarks: made once below a folder, found again by later runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from headpose.data.manifest import PrepareSettings
from headpose.data.prepared import PreparedSet, is_prepared, prepare
from headpose.data.synthetic import synthesize


def pictures(root: Path, count: int, size_px: int = 450) -> Path:
    """A folder in the layout of 300W-LP, with about ``count`` pictures of genuine size."""
    folder = root / f"faces-{count}-{size_px}"
    if not (folder / "complete").exists():
        synthesize(folder, train_images=count, test_images=1, size_px=size_px, seed=7)
        (folder / "complete").touch()
    return folder / "300W_LP"


def prepared(root: Path, count: int, stored_px: int, size_px: int = 450) -> PreparedSet:
    """A prepared set of those pictures."""
    folder = root / f"set-{count}-{size_px}-{stored_px}"
    if not is_prepared(folder):
        source = pictures(root, count, size_px)
        prepare("300w-lp", source, folder, PrepareSettings(stored_px=stored_px))
    return PreparedSet.open(folder)


def repeated(data: PreparedSet, count: int) -> PreparedSet:
    """The set in memory, its rows repeated up to ``count``: as many bytes as that many pictures."""
    rows = np.resize(np.arange(len(data)), count)
    return replace(
        data,
        images_u8=data.images_u8[rows],
        angles_deg=data.angles_deg[rows],
        names=tuple(data.names[row] for row in rows),
        photos=tuple(data.photos[row] for row in rows),
        manifest=replace(data.manifest, count=count),
    )
