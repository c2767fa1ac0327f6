"""A checkpoint that is not what was written is set aside, loudly, and makes room for a good one."""

import contextlib
from collections.abc import Callable

from tuning.manifest import MANIFEST
from tuning.objects import AbsentObjectError, Objects, Place


def damaged(root: Place) -> Place:
    """Where damaged checkpoints are put, for somebody to look at."""
    return Place(root.bucket, f"damaged/{root.key}")


def set_aside(
    objects: Objects,
    root: Place,
    key: str,
    why: str,
    tell: Callable[[str], None],
    *,
    data: bool = True,
) -> None:
    """Moves a checkpoint, within the store, to where no reader looks.

    Args:
        why: what is wrong with it.
        tell: takes what a person should know.
        data: its parts, too; else the manifest alone.
    """
    place, target = root / key, damaged(root) / key
    names = [listed.key.removeprefix(f"{place.key}/") for listed in objects.listed(place)]
    moved = [MANIFEST, *(name for name in names if data and name != MANIFEST)]
    for name in moved:
        with contextlib.suppress(AbsentObjectError):
            objects.copy(place / name, target / name)
    for name in moved:  # the manifest first: from then on nobody reads the rest
        objects.delete(place / name)
    tell(f"the checkpoint {key} is damaged and set aside in {target}: {why}")
