"""The names of backbones, and which of them can be had here.

Commands that only look at searches know the papers' networks without loading torchvision, which
takes seconds.
"""

import difflib
import importlib.util

from usererror import UserError

#: The architectures of the head-pose papers that this project follows; any other classifier of
#: torchvision goes by its name there. Inception v4 comes from timm, an optional extra.
BACKBONES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "squeezenet1_0",
    "squeezenet1_1",
    "mobilenet_v2",
    "inception_v4",
)

DOWNLOAD = "download"
"""Stands for "fetch the published weights" wherever the path of ImageNet weights could stand."""

FROM_TIMM = frozenset({"inception_v4"})

AT_PLUS_MINUS_ONE = frozenset({"efficientnet_v2_l", "inception_v4"})
"""Backbones whose published weights expect inputs normalised to ±1, and which leave that to their
user."""


def legal_backbones() -> tuple[str, ...]:
    """All names of networks that can be built, sorted."""
    from torchvision import models  # noqa: PLC0415 (see above)

    return tuple(sorted({*models.list_models(module=models), *BACKBONES}))


def check_backbone(name: str, where: str = "backbone") -> None:
    """Refuse what is no backbone, or cannot be built here.

    Args:
        where: the field to blame, for instance ``TrainConfig.backbone``.

    Raises:
        UserError: an unknown name (close ones are suggested), or timm is needed and absent.
    """
    if name not in BACKBONES and name not in (legal := legal_backbones()):
        close = difflib.get_close_matches(name.lower(), legal, n=3)
        raise UserError(
            where,
            "unknown backbone",
            got=name,
            rule=f"did you mean {' or '.join(repr(match) for match in close)}?" if close else None,
            remedy=f"use one of {', '.join(BACKBONES)}, or any classifier of torchvision",
        )
    if name in FROM_TIMM and importlib.util.find_spec("timm") is None:
        raise UserError(
            where, f"{name} needs the optional package timm", remedy="pip install 'hopetune[timm]'"
        )
