"""ImageNet weights of a backbone, from a configured place; never silently absent."""

import re
from urllib.error import URLError

from torch import Tensor
from torchvision import models
from torchvision.models import WeightsEnum

from headpose.networks.names import DOWNLOAD
from headpose.networks.state_dicts import read_state_dict
from headpose.networks.weight_files import file_of
from usererror import NotHereError, UserError

_BUILT_FOR_PX = 224  # what torchvision builds its transformers for

# Training-time side outputs of GoogLeNet and Inception v3, which a head-pose network does not have.
_AUXILIARY = re.compile(r"^(aux1|aux2|AuxLogits)\.")

# torchvision's DenseNet files still hold the names of its first release ("norm.1" for "norm1").
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def imagenet_state(backbone: str, source: str) -> dict[str, Tensor]:
    """The ImageNet state dictionary of a backbone, with today's key names.

    Args:
        backbone: a legal backbone name.
        source: ``download`` (torchvision's or timm's published weights; the first published ones
            that fit 224 px where there are several, as the head-pose papers used), a file, or a
            folder that holds ``<backbone>.safetensors``, ``.pth`` or ``.pt``, with or without
            torchvision's hash (``resnet18-f37072fd.pth``).

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


def _downloaded(backbone: str) -> dict[str, Tensor]:
    try:
        if backbone == "inception_v4":
            return _timm_state(backbone)
        published = _first_fitting(backbone)
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


def _first_fitting(backbone: str) -> WeightsEnum:
    """Weights of a transformer that was trained on larger images fit no network that is built for
    224 px; others take larger ones than they need."""
    published: list[WeightsEnum] = list(models.get_model_weights(backbone))
    fitting = (one for one in published if max(one.meta["min_size"]) <= _BUILT_FOR_PX)
    return next(fitting, published[0])


def _timm_state(backbone: str) -> dict[str, Tensor]:
    import timm  # noqa: PLC0415  (an optional extra; backbones.py has told the user if absent)

    state: dict[str, Tensor] = timm.create_model(backbone, pretrained=True).state_dict()
    return state
