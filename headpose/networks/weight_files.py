"""Which file of a place holds a backbone's ImageNet weights: by its name, as
:func:`headpose.networks.imagenet.imagenet_state` says, and without loading torch."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePath

from headpose.networks.names import DOWNLOAD
from usererror import NotHereError, UserError

#: Ends of the names of files that hold weights.
SUFFIXES = (".safetensors", ".pth", ".pt")


def file_for(backbone: str, names: Iterable[str], where: str) -> str:
    """The name of a backbone's file among those of a folder.

    Args:
        backbone: a legal backbone name.
        names: of the folder's files.
        where: the folder, for errors.

    Raises:
        NotHereError: there is none.
        UserError: there are several.
    """
    named = re.compile(rf"{re.escape(backbone)}(-[0-9a-f]+)?")
    paths = map(PurePath, names)
    found = sorted(p.name for p in paths if p.suffix in SUFFIXES and named.fullmatch(p.stem))
    if len(found) != 1:
        raise (UserError if found else NotHereError)(
            where,
            f"not exactly one file of ImageNet weights for {backbone}",
            got=", ".join(found) or "none",
            rule=f"one of {', '.join(backbone + suffix for suffix in SUFFIXES)}",
            remedy="put the file there, or train from scratch without 'imagenet'",
        )
    return found[0]


def file_of(backbone: str, source: str) -> Path | None:
    """The file of a backbone's weights on this machine; none for those that are downloaded.

    Raises:
        NotHereError: there is none.
        UserError: there are several.
    """
    if source == DOWNLOAD:
        return None
    place = Path(source).expanduser()
    if place.is_dir():
        files = (file.name for file in place.iterdir() if file.is_file())
        return place / file_for(backbone, files, str(place))
    if not place.exists():
        remedy = "put the ImageNet weights there, or train from scratch without 'imagenet'"
        raise NotHereError(str(place), "no such file or folder", remedy=remedy)
    return place
