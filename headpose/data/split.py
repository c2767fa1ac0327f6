"""Splitting a set for validation so that no photo lies on both sides."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from usererror import UserError

Indices = npt.NDArray[np.int64]


def split_by_photo(
    photos: Sequence[str], validation_fraction: float, seed: int
) -> tuple[Indices, Indices]:
    """Split images into training and validation by the photo that they were made from.

    Photos are ranked by a hash of seed and key, so the split depends on nothing else: not on
    their order, and not on a library's random numbers.

    Args:
        photos: key of the photo of each image.
        validation_fraction: whole photos are taken until this share of the images is reached.
        seed: another seed takes other photos.

    Returns:
        Indices of the training and of the validation images, both ascending and never empty.

    Raises:
        UserError: the fraction lies outside (0, 1), or there are fewer than two photos.
    """
    if not 0 < validation_fraction < 1:
        raise UserError(
            "validation_fraction", "not a share", got=validation_fraction, rule="0 < share < 1"
        )
    keys, group_of_image, sizes = np.unique(
        np.asarray(photos, dtype=np.str_), return_inverse=True, return_counts=True
    )
    if len(keys) < 2:
        raise UserError(
            "validation split",
            "too few photos to split",
            got=len(keys),
            rule="at least 2, for a photo must not lie on both sides",
            remedy="use a larger data set",
        )
    ranks = [hashlib.sha256(f"{seed}/{key}".encode()).digest() for key in keys]
    order = np.array(sorted(range(len(keys)), key=ranks.__getitem__))
    reached = np.cumsum(sizes[order]) >= validation_fraction * len(photos)
    taken = min(int(np.argmax(reached)) + 1, len(keys) - 1)
    in_validation = np.isin(group_of_image, order[:taken])
    return np.flatnonzero(~in_validation), np.flatnonzero(in_validation)
