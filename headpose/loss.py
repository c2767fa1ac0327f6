"""The loss of Hopenet: classification over bins plus regression of the expectation.

Letters: N images, B bins.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from headpose.bins import Binning
from headpose.labels import LIMIT_DEG


def headpose_loss(logits: Tensor, angles_deg: Tensor, binning: Binning, alpha: float) -> Tensor:
    """Σ over the three angles of cross-entropy + alpha · mean squared error.

    Ruiz et al. 2018 (arXiv:1710.00925), section 3.2. Computed in float32 at least. Never waits for
    the device; so an angle that is NaN or outside ±99° is not an error here, but makes the loss NaN
    for every alpha instead of teaching something wrong.

    Args:
        logits: (N, 3, B).
        angles_deg: (N, 3) yaw, pitch, roll.
        binning: of B bins.
        alpha: weight of the regression, per squared degree.

    Returns:
        A scalar, mean over the images.

    Raises:
        ValueError: shapes that do not belong together.
        UserError: logits of another number of bins than the binning's.
    """
    if logits.shape[:-1] != angles_deg.shape:
        raise ValueError(f"logits {tuple(logits.shape)} for angles {tuple(angles_deg.shape)}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    true_deg = torch.where(angles_deg.abs() <= LIMIT_DEG, angles_deg, torch.nan)
    labels = binning.nearest_labels(true_deg)
    cross_entropy = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    squared_error = F.mse_loss(binning.expectation(logits), true_deg.to(logits.dtype))
    # Both are means over N · 3 values; the sum over angles of means over N is three times that.
    return angles_deg.shape[-1] * (cross_entropy + alpha * squared_error)
