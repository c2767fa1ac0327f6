"""The head-pose network: one backbone, three parallel classifiers over angle bins.

Ruiz et al. 2018, "Fine-grained head pose estimation without keypoints" (arXiv:1710.00925).
Letters: N images, B bins.
"""

import copy
import functools
from typing import Self

import torch
from torch import Tensor, nn

from headpose.files import version_of
from headpose.networks.backbones import Trunk, make_trunk
from headpose.networks.names import check_backbone
from headpose.networks.weight_files import file_of
from usererror import UserError

#: The order of the heads, of the second axis of logits and of the last axis of angles.
ANGLE_NAMES = ("yaw", "pitch", "roll")

# Drawing the initial weights of a ResNet50 takes five times as long as copying them, and trials
# that follow one another in a process mostly begin with the same ones. Untuned: as many as a search
# has backbones, usually.
_TRUNKS_KEPT = 4

_WORKED: set[tuple[str, int]] = set()
"""Backbones with sizes of images that they were seen to take."""

# torchvision's SqueezeNet: dropout before its last convolution, and that layer's initial spread.
_SQUEEZENET_DROPOUT = 0.5
_SQUEEZENET_HEAD_STD = 0.01


class HeadposeNet(nn.Module):
    """Logits over angle bins for yaw, pitch and roll.

    Its parameters fall into three groups, each parameter in exactly one: the stem (first
    convolution and its normalisation), the body (the rest of the backbone) and the heads.

    ResNet, SqueezeNet and MobileNetV2 take images from 32 px upward; other backbones have limits
    of their own, which :meth:`require_image_px` finds.

    Args:
        backbone: the name that the trunk was made from.
        n_bins: B.
        trunk: see :func:`headpose.networks.backbones.make_trunk`.
    """

    def __init__(self, backbone: str, n_bins: int, trunk: Trunk) -> None:
        super().__init__()
        self.backbone = backbone
        self.n_bins = n_bins
        self.trunk = trunk.module
        self.heads = nn.ModuleDict({name: _head(trunk, n_bins) for name in ANGLE_NAMES})
        self._stem = trunk.stem
        self._stem_frozen = False

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) float, ImageNet-normalised, to logits (N, 3, B): yaw, pitch, roll."""
        features = self.trunk(images)
        return torch.stack([head(features) for head in self.heads.values()], dim=1)

    def stem_parameters(self) -> list[nn.Parameter]:
        """The first convolution and its normalisation."""
        return [parameter for module in self._stem_modules() for parameter in module.parameters()]

    def body_parameters(self) -> list[nn.Parameter]:
        """The backbone without its stem."""
        stem = {id(parameter) for parameter in self.stem_parameters()}
        return [parameter for parameter in self.trunk.parameters() if id(parameter) not in stem]

    def head_parameters(self) -> list[nn.Parameter]:
        """The three classifiers."""
        return list(self.heads.parameters())

    def set_stem_frozen(self, frozen: bool) -> None:
        """Keep the stem exactly as it is, running statistics included, or let it learn (again)."""
        self._stem_frozen = frozen
        for parameter in self.stem_parameters():
            parameter.requires_grad_(not frozen)
            if frozen:
                parameter.grad = None  # an optimiser would still apply a gradient left behind
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As nn.Module.train, but a frozen stem stays in evaluation mode."""
        super().train(mode)
        if self._stem_frozen:
            for module in self._stem_modules():
                module.eval()
        return self

    def require_image_px(self, image_px: int) -> None:
        """Refuse an image size that this backbone cannot take, by trying one black image; what
        worked is not tried again in this process.

        Raises:
            UserError: the size does not work.
        """
        if (self.backbone, image_px) in _WORKED:
            return
        was_training = self.training
        device = next(self.parameters()).device
        try:
            with torch.no_grad():
                self.eval()(torch.zeros(1, 3, image_px, image_px, device=device))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise UserError(
                "image_px",
                f"{self.backbone} cannot take images of this size",
                got=image_px,
                rule=str(error).strip().split("\n")[0][:200],
                remedy="use a size that suits the backbone, 224 suits all but a few",
            ) from error
        else:
            _WORKED.add((self.backbone, image_px))
        finally:
            self.train(was_training)

    def _stem_modules(self) -> list[nn.Module]:
        return [self.trunk.get_submodule(name) for name in self._stem]


def build_network(
    backbone: str, n_bins: int, *, imagenet: str | None = None, seed: int | None = None
) -> HeadposeNet:
    """Build a network on the CPU.

    Args:
        backbone: one of :data:`headpose.networks.names.BACKBONES`, or another classifier of
            torchvision by its name there.
        n_bins: B, at least 2; :attr:`headpose.bins.Binning.count`.
        imagenet: None for random weights, ``download``, a file, or a folder with one file for each
            backbone. The heads are random in any case.
        seed: makes the initial weights repeatable and leaves the global generators alone; the
            process keeps the backbones that it made so last, and reads no file again for them that
            has not changed since. None draws from the global generator.

    Raises:
        UserError: an unknown backbone, too few bins, weights that are absent or do not fit.
    """
    if n_bins < 2:
        raise UserError("n_bins", "too few bins", got=n_bins, rule="at least 2")
    check_backbone(backbone)
    if seed is None:
        return HeadposeNet(backbone, n_bins, make_trunk(backbone, imagenet))
    with torch.random.fork_rng(devices=[]):
        trunk, generator_state = _pristine_trunk(
            backbone, imagenet, _version(backbone, imagenet), seed
        )
        torch.default_generator.set_state(generator_state)
        return HeadposeNet(backbone, n_bins, copy.deepcopy(trunk))


@functools.lru_cache(maxsize=_TRUNKS_KEPT)
def _pristine_trunk(
    backbone: str,
    imagenet: str | None,
    version: tuple[int, int] | None,  # noqa: ARG001 (tells what the file held when it was read)
    seed: int,
) -> tuple[Trunk, Tensor]:
    """A seeded trunk, never to be changed, and the state of the global generator after it."""
    # torch.manual_seed would reach the generators of the GPUs too.
    torch.default_generator.manual_seed(seed)
    return make_trunk(backbone, imagenet), torch.default_generator.get_state()


def _version(backbone: str, imagenet: str | None) -> tuple[int, int] | None:
    """That of the file with a backbone's ImageNet weights, where there is one on this machine."""
    file = None if imagenet is None else file_of(backbone, imagenet)
    return None if file is None else version_of(file)


def _head(trunk: Trunk, n_bins: int) -> nn.Module:
    """One classifier. SqueezeNet's is its own last layer (logits ≥ 0), as in the released nets."""
    if not trunk.spatial:
        return nn.Linear(trunk.features, n_bins)
    convolution = nn.Conv2d(trunk.features, n_bins, kernel_size=1)
    nn.init.normal_(convolution.weight, std=_SQUEEZENET_HEAD_STD)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return nn.Sequential(
        nn.Dropout(_SQUEEZENET_DROPOUT),
        convolution,
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(1),
    )
