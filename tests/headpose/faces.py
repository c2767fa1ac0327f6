"""Tiny data sets in the on-disk formats, written anew for each test."""

from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

SIDE_PX = 450  # of every genuine picture


def write_sample(
    root: Path,
    name: str,
    *,
    angles_deg: tuple[float, float, float] = (10.0, -5.0, 3.0),
    seed: int = 0,
    fields: dict[str, object] | None = None,
) -> Path:
    """Write NAME.jpg and NAME.mat; ``fields`` replaces fields, or leaves out those set to None.

    The picture is a bright blob at the centre of the landmarks, shifted by the angles, so that a
    network can learn something from it.
    """
    path = root / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    landmarks = np.stack([rng.uniform(130, 320, 68), rng.uniform(120, 330, 68)])
    landmarks[:, 0], landmarks[:, 1] = (130, 120), (320, 330)
    yaw, pitch, roll = angles_deg
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    distance = np.hypot(columns - 225 + 0.8 * yaw, rows - 225 + 0.8 * pitch)
    pixels = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
    pixels[..., 0] = 255 * np.exp(-((distance / 40) ** 2))
    pixels[..., 1] = np.clip(128 + roll, 0, 255)
    pixels[..., 2] = rng.integers(0, 255)
    Image.fromarray(pixels).save(path, quality=90)
    radians = np.deg2rad([pitch, yaw, roll])
    content: dict[str, object] = {
        "Pose_Para": np.array([[*radians, 225.0, 225.0, -80.0, 1.3e-3]], np.float32),
        "pt2d": landmarks,
    }
    content.update(fields or {})
    kept = {key: value for key, value in content.items() if value is not None}
    scipy.io.savemat(root / f"{name}.mat", kept)
    return path


def write_300w_lp(root: Path, faces: int, *, variants: int = 2, seed: int = 0) -> None:
    """Write faces × variants samples of as many photos as faces, poses at random."""
    rng = np.random.default_rng(seed)
    for face in range(faces):
        for variant in range(variants):
            yaw, pitch, roll = rng.uniform((-60, -25, -20), (60, 15, 20))
            write_sample(
                root,
                f"AFW/AFW_{1000 + face}_1_{variant}",
                angles_deg=(yaw, pitch, roll),
                seed=seed + face,
            )
