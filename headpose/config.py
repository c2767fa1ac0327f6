"""What one training is: the frozen settings that a search varies.

Plain types only (str, int, float, None), so that a search file, a database row and a job
description can all hold a configuration without help.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from usererror import UserError

#: Part of the name of every checkpoint: to be raised by whatever changes what an epoch computes.
TRAINING_CODE_VERSION = "3"

Centres = Literal["unbiased", "hopenet"]
Precision = Literal["fp32", "bf16"]

# Below 32 px the light backbones reduce their feature map to nothing.
MIN_IMAGE_PX = 32
# Half of the range of ±99 degrees: one bin more and there is nothing left to classify.
MAX_BIN_WIDTH_DEG = 99.0


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one training; every field is checked when the object is made.

    Attributes:
        backbone: name of a network known to ``headpose.networks.names``.
        bin_width: width of the classifier's bins in degrees.
        centres: what a bin stands for: its middle ("unbiased") or its left edge ("hopenet").
        alpha: weight of the squared error beside the cross-entropy.
        learning_rate: Adam's rate in epoch 1, for all but the heads.
        decay_rate: factor on the learning rate from one epoch to the next.
        unfreeze_epoch: the stem stays frozen up to and including this epoch; 0 = never frozen.
        second_learning_rate: the rate of the first epoch after unfreezing, from which the decay
            starts anew; None = the first rate goes on decaying.
        head_learning_rate_factor: the heads learn this many times faster.
        batch_size: images a step; an incomplete last batch is dropped.
        image_px: side of the square network input.
        weight_decay: Adam's L2 penalty.
        imagenet: None = from scratch; "download", or where pretrained weights lie; see
            :func:`headpose.networks.imagenet.imagenet_state`.
        flip: probability of a horizontal mirroring.
        blur: probability of a slight blur.
        rotate_deg: images are turned in their plane by up to this angle, either way.
        rotate_share: probability that an image is turned in an epoch, where ``rotate_deg`` is
            not 0.
        crop_jitter: as a share of the view's side: its centre is moved by up to this share in x
            and in y, and its side is scaled by 1 ± up to this share.
        precision: "fp32", or "bf16" for autocast with float32 weights; meant for GPUs, on a CPU
            without bf16 instructions it is several times slower.
        seed: the root of all randomness of the training.

    Raises:
        UserError: a value is of the wrong type or outside its range; ``where`` names the field.
    """

    backbone: str = "resnet18"
    bin_width: float = 3.0  # Hopenet
    centres: Centres = "unbiased"
    alpha: float = 1.0  # Hopenet trained with 1 and 2
    learning_rate: float = 1e-4  # untuned
    decay_rate: float = 1.0
    unfreeze_epoch: int = 0
    second_learning_rate: float | None = None
    head_learning_rate_factor: float = 5.0  # Hopenet
    batch_size: int = 64  # HopelessNet
    image_px: int = 64  # untuned; the published networks take 224
    weight_decay: float = 0.0
    imagenet: str | None = None
    flip: float = 0.5  # Hopenet
    blur: float = 0.05  # Hopenet
    rotate_deg: float = 0.0
    rotate_share: float = 1.0
    crop_jitter: float = 0.05  # untuned; Hopenet's crop of 224 out of 240 px moves by 0.036
    precision: Precision = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        _check_choice("centres", self.centres, get_args(Centres))
        _check_choice("precision", self.precision, get_args(Precision))
        if not isinstance(self.backbone, str) or not self.backbone:
            raise _bad("backbone", self.backbone, "the name of a backbone, such as 'resnet18'")
        if self.imagenet is not None and (not isinstance(self.imagenet, str) or not self.imagenet):
            raise _bad("imagenet", self.imagenet, "None, 'download' or the path of weights")
        for field, lowest, highest in _INTEGER_RANGES:
            _check_integer(field, getattr(self, field), lowest, highest)
        for name, low, high, low_is_legal in _NUMBER_RANGES:
            value = getattr(self, name)
            if name in _OPTIONAL and value is None:
                continue
            _check_number(name, value, low, high, low_is_legal)
            # 2 and 2.0 are one configuration, in JSON and in hashes too.
            object.__setattr__(self, name, float(value))
        if self.second_learning_rate is not None and self.unfreeze_epoch == 0:
            raise UserError(
                "TrainConfig.second_learning_rate",
                "there is no second phase, for the stem is never frozen",
                got=self.second_learning_rate,
                rule="a second learning rate needs unfreeze_epoch >= 1",
                remedy="set unfreeze_epoch, or leave second_learning_rate out",
            )


# name, lowest, highest legal value
_INTEGER_RANGES = (
    ("unfreeze_epoch", 0, 100_000),
    ("batch_size", 2, 65_536),  # batch normalisation cannot train on a single image
    ("image_px", MIN_IMAGE_PX, 1024),
    ("seed", 0, 2**63 - 1),
)

# name, lowest, highest, whether the lowest itself is legal
_NUMBER_RANGES = (
    ("bin_width", 0.0, MAX_BIN_WIDTH_DEG, False),
    ("alpha", 0.0, math.inf, True),
    ("learning_rate", 0.0, 1.0, False),
    ("second_learning_rate", 0.0, 1.0, False),
    ("decay_rate", 0.0, 1.0, False),
    ("head_learning_rate_factor", 0.0, math.inf, False),
    ("weight_decay", 0.0, 1.0, True),
    ("flip", 0.0, 1.0, True),
    ("blur", 0.0, 1.0, True),
    ("rotate_deg", 0.0, 180.0, True),
    ("rotate_share", 0.0, 1.0, True),
    ("crop_jitter", 0.0, 0.5, True),
)
_OPTIONAL = ("second_learning_rate",)


def _bad(field: str, got: object, rule: str) -> UserError:
    return UserError(f"TrainConfig.{field}", "not a legal value", got=got, rule=rule)


def _check_choice(field: str, value: object, legal: tuple[str, ...]) -> None:
    if value not in legal:
        raise _bad(field, value, f"one of {', '.join(legal)}")


def _check_integer(field: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _bad(field, value, f"an integer from {low} to {high}")


def _check_number(field: str, value: object, low: float, high: float, low_is_legal: bool) -> None:
    sign = ">=" if low_is_legal else ">"
    rule = f"a finite number {sign} {low:g}" + (f" and <= {high:g}" if high < math.inf else "")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _bad(field, value, rule)
    if value > high or value < low or (value == low and not low_is_legal):
        raise _bad(field, value, rule)
