"""Which faces a synthetic data set holds: names, poses and seeds of every picture, drawn at once.

The plan follows from its arguments alone, and every face draws from seeds of its own, so the
pictures do not depend on how many processes render them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from headpose.angles import mirror, rotation_matrices
from headpose.data.synthetic.geometry import Floats
from headpose.data.synthetic.poses import (
    Degrees,
    draw_body_turn,
    draw_test_pose,
    draw_training_poses,
)

# Unflipped pictures of the four parts of 300W-LP.
_SET_SIZES = {"HELEN": 37_676, "IBUG": 1_786, "LFPW": 16_556, "AFW": 5_207}
_SECOND_FACE = 0.1  # share of AFW and HELEN photos that show a second person (untuned)
_FLIPPED = 0.1  # share of faces whose mirrored twins are written too (untuned; 300W-LP: all)
_VARIANTS = (3, 8)  # pictures of a face; 300W-LP has 8 to 18. Fewer leave room for more faces.
# The one stem of 300W-LP that holds a space.
_SPACED_STEM = "IBUG_image_092 _01"

# First words of the seeds, so that no two things draw from the same numbers.
_NAMES, _SCENE, _FACE, _POSES, _PICTURES = range(5)


@dataclass(frozen=True)
class FaceJob:
    """One person in one photo, in K poses.

    Attributes:
        stems: K paths below the data set's root, without suffix.
        twin_stems: as many or fewer, for the mirrored pictures of the first poses.
        angles_deg, twin_angles_deg: (K, 3) yaw, pitch, roll.
        head, body: (K, 3, 3) rotations.
        scene_seed, face_seed, pictures_seed: for :func:`numpy.random.default_rng`.
        is_test: written as AFLW2000 is, not as 300W-LP.
    """

    stems: tuple[str, ...]
    twin_stems: tuple[str, ...]
    angles_deg: Degrees
    twin_angles_deg: Degrees
    head: Floats
    body: Floats
    scene_seed: tuple[int, ...]
    face_seed: tuple[int, ...]
    pictures_seed: tuple[int, ...]
    is_test: bool

    @property
    def count(self) -> int:
        """Pictures that the job writes."""
        return len(self.stems) + len(self.twin_stems)


def plan_training(train_images: int, seed: int) -> Iterator[FaceJob]:
    """Faces named as in 300W-LP, with exactly ``train_images`` pictures in all."""
    rng = np.random.default_rng([seed, _NAMES])
    left = train_images
    face = photo = 0
    while left > 0:
        group = _group(rng, face)
        prefixes = _names_of_photo(rng, group, photo)
        for prefix in prefixes:
            if left <= 0:
                break
            count = min(int(rng.integers(*_VARIANTS)), left)
            twins = min(count, left - count) if rng.random() < _FLIPPED or face == 1 else 0
            stems = _stems(group, prefix, count)
            twin_stems = _stems(f"{group}_Flip", prefix, twins)
            yield _face_job(seed, face, photo, stems, twin_stems)
            left -= count + twins
            face += 1
        photo += 1


def plan_test(test_images: int, seed: int) -> Iterator[FaceJob]:
    """One person a picture, named as in AFLW2000."""
    for index in range(test_images):
        # The last word of the seed keeps test and training apart.
        rng = np.random.default_rng([seed, _POSES, index, 1])
        angles_deg = draw_test_pose(rng)[None]
        yield FaceJob(
            stems=(f"AFLW2000/image{index + 1:05d}",),
            twin_stems=(),
            angles_deg=angles_deg,
            twin_angles_deg=angles_deg[:0],
            head=_rotations(angles_deg),
            body=_rotations(draw_body_turn(rng).of(angles_deg)),
            scene_seed=(seed, _SCENE, index, 1),
            face_seed=(seed, _FACE, index, 1),
            pictures_seed=(seed, _PICTURES, index, 1),
            is_test=True,
        )


def _face_job(
    seed: int, face: int, photo: int, stems: tuple[str, ...], twin_stems: tuple[str, ...]
) -> FaceJob:
    rng = np.random.default_rng([seed, _POSES, face, 0])
    angles_deg = draw_training_poses(rng, len(stems))
    mirrored = mirror(torch.from_numpy(angles_deg[: len(twin_stems)])).numpy()
    return FaceJob(
        stems=stems,
        twin_stems=twin_stems,
        angles_deg=angles_deg,
        twin_angles_deg=mirrored,
        head=_rotations(angles_deg),
        body=_rotations(draw_body_turn(rng).of(angles_deg)),
        scene_seed=(seed, _SCENE, photo, 0),
        face_seed=(seed, _FACE, face, 0),
        pictures_seed=(seed, _PICTURES, face, 0),
        is_test=False,
    )


def _stems(folder: str, prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"300W_LP/{folder}/{prefix}_{k}" for k in range(count))


def _group(rng: np.random.Generator, face: int) -> str:
    """The part of 300W-LP: each once, then by their sizes."""
    if face < len(_SET_SIZES):
        return list(_SET_SIZES)[face]
    sizes = np.array(list(_SET_SIZES.values()), dtype=np.float64)
    return str(rng.choice(list(_SET_SIZES), p=sizes / sizes.sum()))


def _names_of_photo(rng: np.random.Generator, group: str, photo: int) -> list[str]:
    """Stems of the faces in one photo, without their _k."""
    if group == "LFPW":
        return [f"LFPW_image_{rng.choice(['train', 'test'])}_{photo + 1:04d}"]
    if group == "IBUG":  # photo 1 is the first of them, see _group
        return [_SPACED_STEM if photo == 1 else f"IBUG_image_{photo + 100:03d}_1"]
    number = 100_000 + photo
    faces = 2 if rng.random() < _SECOND_FACE and photo >= len(_SET_SIZES) else 1
    return [f"{group}_{number}_{face + 1}" for face in range(faces)]


def _rotations(angles_deg: npt.NDArray[np.float64]) -> Floats:
    return rotation_matrices(torch.from_numpy(angles_deg)).numpy().astype(np.float32)
