"""ImageNet weights of a backbone, from a configured place; never silently absent."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from urllib.error import URLError

from torch import Tensor
from torchvision import models

from headpose.networks.names import DOWNLOAD
from headpose.networks.state_dicts import read_state_dict
from usererror import NotHereError, UserError

#: Ends of the names of files that hold weights.
SUFFIXES = (".safetensors", ".pth", ".pt")

# Training-time side outputs of GoogLeNet and Inception v3, which a head-pose network does not have.
_AUXILIARY = re.compile(r"^(aux1|aux2|AuxLogits)\.")

# torchvision's DenseNet files still hold the names of its first release ("norm.1" for "norm1").
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def imagenet_state(backbone: str, source: str) -> dict[str, Tensor]:
    """The ImageNet state dictionary of a backbone, with today's key names.

    Args:
        backbone: a legal backbone name.
        source: ``download`` (torchvision's or timm's published weights; the first published ones
            where there are several, as the head-pose papers used), a file, or a folder that holds
            ``<backbone>.safetensors``, ``.pth`` or ``.pt``, with or without torchvision's hash
            (``resnet18-f37072fd.pth``).

    Raises:
        NotHereError: the weights are not there, cannot be fetched, or are damaged.
        UserError: there are several of this backbone.
    """
    file = file_of(backbone, source)
    try:
        state = _downloaded(backbone) if file is None else read_state_dict(file)
    except UserError as error:  # another machine's copy may be whole
        raise NotHereError.of(error) from error
    return {
        _OLD_DENSENET.sub(r"\1\2", key): value
        for key, value in state.items()
        if not _AUXILIARY.match(key)
    }


def file_for(backbone: str, names: Iterable[str], where: str) -> str:
    """The name of a backbone's file among those of a folder, see :func:`imagenet_state`.

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
    """The file of a backbone's weights on this machine, see :func:`imagenet_state`; none for those
    that are downloaded.

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


def _downloaded(backbone: str) -> dict[str, Tensor]:
    try:
        if backbone == "inception_v4":
            return _timm_state(backbone)
        published = next(iter(models.get_model_weights(backbone)))
        state: dict[str, Tensor] = published.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (URLError, OSError, RuntimeError) as error:
        raise NotHereError(
            f"imagenet = {DOWNLOAD}",
            f"the ImageNet weights of {backbone} could not be fetched",
            got=str(error)[:200],
            remedy="let 'imagenet' name a file or folder that holds them, or train from scratch",
        ) from error
    return state


def _timm_state(backbone: str) -> dict[str, Tensor]:
    import timm  # noqa: PLC0415  (an optional extra; backbones.py has told the user if absent)

    state: dict[str, Tensor] = timm.create_model(backbone, pretrained=True).state_dict()
    return state
