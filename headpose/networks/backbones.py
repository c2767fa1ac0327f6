"""The bodies of head-pose networks: image classifiers without their last layer.

Letters: N images, C features.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from headpose.networks.imagenet import imagenet_state
from headpose.networks.names import AT_PLUS_MINUS_ONE, FROM_TIMM, check_backbone
from headpose.networks.state_dicts import load_published
from headpose.normalisation import IMAGENET_MEAN, IMAGENET_STD
from usererror import NotHereError, UserError

# These two have side outputs, which would make forward() return tuples while training. Their
# published weights expect inputs normalised to ±1, which transform_input derives from ImageNet
# normalisation. Saying init_weights keeps torchvision from warning that its default will change.
_WITH_SIDE_OUTPUTS = frozenset({"googlenet", "inception_v3"})
_SIDE_OUTPUT_SETTINGS = {"aux_logits": False, "transform_input": True, "init_weights": True}

_NORMALISATIONS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Trunk:
    """A classifier without its last layer.

    Args:
        module: images (N, 3, H, W), ImageNet-normalised, to features (N, C), or (N, C, H', W') if
            ``spatial``.
        features: C.
        spatial: the features are maps, to be pooled by the heads (SqueezeNet).
        stem: names, within ``module``, of the first convolution and of the normalisation after it.
    """

    module: nn.Module
    features: int
    spatial: bool
    stem: tuple[str, ...]


def make_trunk(name: str, imagenet: str | None = None) -> Trunk:
    """Build a backbone without its last layer.

    Args:
        name: one of :func:`headpose.networks.names.legal_backbones`.
        imagenet: None for random weights, ``download``, a file or a folder:
            see :func:`headpose.networks.imagenet.imagenet_state`.

    Raises:
        UserError: as :func:`headpose.networks.names.check_backbone`.
        NotHereError: the ImageNet weights are absent or do not fit.
    """
    check_backbone(name)
    classifier = _classifier(name)
    if imagenet is not None:
        where = f"ImageNet weights of {name} from {imagenet}"
        state = imagenet_state(name, imagenet)
        try:
            load_published(classifier, state, where)
        except UserError as error:  # of the file, not of the configuration
            raise NotHereError.of(error) from error
    if name.startswith("squeezenet"):  # its last layer is a convolution, pooled afterwards
        module: nn.Module = classifier.features
        return Trunk(module, features=512, spatial=True, stem=_stem(module))
    last_name, last = [
        (path, part) for path, part in classifier.named_modules() if isinstance(part, nn.Linear)
    ][-1]
    classifier.set_submodule(last_name, nn.Identity())
    if name in AT_PLUS_MINUS_ONE:
        _rescale_input(classifier)
    return Trunk(classifier, features=last.in_features, spatial=False, stem=_stem(classifier))


def _classifier(name: str) -> Any:
    if name in FROM_TIMM:
        import timm  # noqa: PLC0415  (an optional extra)

        return timm.create_model(name, pretrained=False)
    settings = _SIDE_OUTPUT_SETTINGS if name in _WITH_SIDE_OUTPUTS else {}
    return models.get_model(name, weights=None, **settings)


def _rescale_input(module: nn.Module) -> None:
    """Has a network that expects inputs normalised to ±1 take ImageNet-normalised ones, as all
    others do; the names of its parameters stay."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    module.register_buffer("input_scale", 2 * std, persistent=False)
    module.register_buffer("input_shift", 2 * mean - 1, persistent=False)
    module.register_forward_pre_hook(_rescaled)


def _rescaled(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    (images,) = inputs
    return images * module.get_buffer("input_scale") + module.get_buffer("input_shift")


def _stem(module: nn.Module) -> tuple[str, ...]:
    """The first convolution and, if it follows at once, its normalisation.

    Registration order is execution order at the entrance of every classifier in torchvision.
    """
    with_parameters = [
        (name, part)
        for name, part in module.named_modules()
        if next(part.parameters(recurse=False), None) is not None
    ]
    first = next(i for i, (_, part) in enumerate(with_parameters) if isinstance(part, nn.Conv2d))
    following = with_parameters[first + 1 : first + 2]
    return (
        with_parameters[first][0],
        *(name for name, part in following if isinstance(part, _NORMALISATIONS)),
    )
