"""How good a network is: predictions for a set, and errors by the AFLW2000 protocol.

The protocol: all three true angles within ±99° (a prepared set holds no others), absolute
differences without any wrapping, the mean of the three per-angle means as the one figure. Which
crops the figure was measured on belongs to it: see the manifest of the set.

Letters: N images.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from headpose.angles import geodesic_deg
from headpose.bins import Binning
from headpose.config import Precision
from headpose.data.augment import central_views
from headpose.data.prepared import PreparedSet
from headpose.data.render import render
from headpose.data.sources import ImageSource
from usererror import UserError

Angles = Tensor | npt.NDArray[np.floating]

_BATCH_SIZE = 128  # untuned; larger ones gain nothing on a CPU


@dataclass(frozen=True)
class PoseErrors:
    """Mean absolute errors in degrees.

    Attributes:
        yaw_mae, pitch_mae, roll_mae: per angle.
        mae: the mean of these three.
        geodesic: mean angle of the rotation between predicted and true pose.
        count: N.
    """

    yaw_mae: float
    pitch_mae: float
    roll_mae: float
    mae: float
    geodesic: float
    count: int

    def as_dict(self, prefix: str = "") -> dict[str, float]:
        """The errors by name, such as "val_yaw_mae"; without the count."""
        return {
            f"{prefix}{name}": getattr(self, name)
            for name in ("yaw_mae", "pitch_mae", "roll_mae", "mae", "geodesic")
        }


@dataclass(frozen=True)
class RangeErrors:
    """Errors of the images whose largest absolute true angle lies in (above_deg, up_to_deg].

    ``errors`` is None where there is no such image. The first range holds its lower bound too.
    """

    above_deg: float
    up_to_deg: float
    errors: PoseErrors | None


def pose_errors(predicted_deg: Angles, true_deg: Angles) -> PoseErrors:
    """Errors of predictions by the AFLW2000 protocol.

    Args:
        predicted_deg: (N, 3) yaw, pitch, roll; NaN makes the errors NaN.
        true_deg: (N, 3).

    Raises:
        UserError: there is no image.
        ValueError: the shapes are not (N, 3) both.
    """
    predicted, true = _table(predicted_deg), _table(true_deg)
    if predicted.shape != true.shape:
        raise ValueError(f"predictions {tuple(predicted.shape)} for labels {tuple(true.shape)}")
    if not len(true):
        raise UserError("evaluation", "there is no image to measure an error on")
    yaw, pitch, roll = (predicted - true).abs().mean(dim=0).tolist()
    return PoseErrors(
        yaw_mae=yaw,
        pitch_mae=pitch,
        roll_mae=roll,
        mae=(yaw + pitch + roll) / 3,
        geodesic=float(geodesic_deg(predicted, true).mean()),
        count=len(true),
    )


def errors_by_range(
    predicted_deg: Angles, true_deg: Angles, limits_deg: Sequence[float] = (30.0, 60.0, 99.0)
) -> tuple[RangeErrors, ...]:
    """Errors by the largest absolute true angle of an image; the first row is |angle| <= 30.

    Args:
        predicted_deg: (N, 3).
        true_deg: (N, 3).
        limits_deg: upper ends of the ranges, ascending.
    """
    predicted, true = _table(predicted_deg), _table(true_deg)
    largest = true.abs().amax(dim=1)
    rows, above = [], -1.0
    for limit in limits_deg:
        inside = (largest > above) & (largest <= limit)
        errors = pose_errors(predicted[inside], true[inside]) if bool(inside.any()) else None
        rows.append(RangeErrors(max(above, 0.0), limit, errors))
        above = limit
    return tuple(rows)


def constant_baseline(train_angles_deg: Angles, test_angles_deg: Angles) -> PoseErrors:
    """Errors of always answering the mean pose of the training set: what any network must beat."""
    test = _table(test_angles_deg)
    return pose_errors(_table(train_angles_deg).mean(dim=0).expand_as(test), test)


def predict_set(
    net: nn.Module,
    binning: Binning,
    prepared: PreparedSet,
    index: npt.NDArray[np.int64] | None,
    image_px: int,
    device: torch.device,
    *,
    precision: Precision = "fp32",
    source: ImageSource | None = None,
) -> Tensor:
    """Predict poses from the central views of a set.

    Args:
        net: moved to the device; predicts in evaluation mode and is left in its former mode.
        binning: what the logits mean.
        prepared: the set.
        index: rows to predict, in this order; None = all.
        image_px: side of the views.
        device: where to compute.
        precision: "bf16" computes under autocast.
        source: the images of ``prepared`` where they are already on the device.

    Returns:
        (N, 3) float32 yaw, pitch, roll in degrees, on the CPU.

    Raises:
        UserError: the set's pictures are coarser than the views.
    """
    prepared.require_view_px(image_px)
    rows = torch.from_numpy(np.arange(len(prepared)) if index is None else np.array(index))
    images = source or ImageSource(prepared, device)
    true_deg = torch.from_numpy(np.array(prepared.angles_deg))[rows]
    views = central_views(true_deg, prepared.view_fraction).on(device)
    parts = [slice(start, start + _BATCH_SIZE) for start in range(0, len(rows), _BATCH_SIZE)]
    predicted = torch.empty(len(rows), 3, device=device)
    net.to(device)
    with torch.inference_mode(), _evaluating(net):
        batches = images.batches(rows[part] for part in parts)
        for part, images_u8 in zip(parts, batches, strict=True):
            seen = render(images_u8, views.of(part), image_px)
            with autocast(device, precision):
                predicted[part] = binning.expectation(net(seen))
    return predicted.cpu()


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context in which a network computes with the given precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextlib.contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    was_training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(was_training)


def _table(angles_deg: Angles) -> Tensor:
    """(N, 3) float64 on the CPU."""
    if isinstance(angles_deg, Tensor):
        table = angles_deg.detach().cpu().double()
    else:
        table = torch.from_numpy(np.array(angles_deg, dtype=np.float64))
    if table.ndim != 2 or table.shape[1] != 3:
        raise ValueError(f"angles of shape {tuple(table.shape)}, not (N, 3)")
    return table
