"""The loss against its definition, written out."""

import math

import pytest
import torch
from torch import Tensor

from headpose.bins import Binning
from headpose.loss import headpose_loss
from usererror import UserError


def case(bins: int = 66) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, bins, generator=generator, dtype=torch.float64)
    angles_deg = (2 * torch.rand(5, 3, generator=generator, dtype=torch.float64) - 1) * 99
    return logits, angles_deg


@pytest.mark.parametrize("width_deg", [1.0, 3.0, 7.0])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_it_is_the_sum_over_angles_of_both_terms(width_deg: float, alpha: float) -> None:
    binning = Binning(width_deg)
    logits, angles_deg = case(binning.count)
    expected = 0.0
    for axis in range(3):
        entropy = squares = 0.0
        for image in range(5):
            probabilities = logits[image, axis].softmax(0)
            label = int(binning.nearest_labels(angles_deg[image, axis]))
            mean = float((probabilities * binning.centres_deg(dtype=torch.float64)).sum())
            entropy -= math.log(float(probabilities[label])) / 5
            squares += (mean - float(angles_deg[image, axis])) ** 2 / 5
        expected += entropy + alpha * squares
    assert float(headpose_loss(logits, angles_deg, binning, alpha)) == pytest.approx(expected)


def test_its_gradient_leads_downhill() -> None:
    logits, angles_deg = case()
    logits.requires_grad_()
    loss = headpose_loss(logits, angles_deg, Binning(), 0.01)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert headpose_loss(logits - 1e-3 * gradient, angles_deg, Binning(), 0.01) < loss


def test_exactly_99_is_an_ordinary_label() -> None:
    logits = torch.zeros(2, 3, 66)
    angles_deg = torch.tensor([[99.0, -99.0, 99.0], [-99.0, 99.0, 0.0]])
    assert math.isfinite(float(headpose_loss(logits, angles_deg, Binning(), 1.0)))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("angle_deg", [math.nan, math.inf, 99.5, -120.0])
def test_a_label_that_cannot_be_makes_the_loss_nan(alpha: float, angle_deg: float) -> None:
    angles_deg = torch.zeros(4, 3)
    angles_deg[2, 1] = angle_deg
    loss = headpose_loss(torch.zeros(4, 3, 66), angles_deg, Binning(), alpha)
    assert math.isnan(float(loss))


def test_half_precision_logits_give_a_single_precision_loss() -> None:
    logits, angles_deg = case()
    half = logits.to(torch.bfloat16)
    loss = headpose_loss(half, angles_deg.float(), Binning(), 1.0)
    assert loss.dtype == torch.float32
    exact = headpose_loss(half.double(), angles_deg, Binning(), 1.0)
    assert float(loss) == pytest.approx(float(exact), rel=1e-5)


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits \(4, 3, 66\) for angles \(3,\)"):
        headpose_loss(torch.zeros(4, 3, 66), torch.zeros(3), Binning(), 1.0)
    with pytest.raises(UserError, match="another number of bins"):
        headpose_loss(torch.zeros(4, 3, 66), torch.zeros(4, 3), Binning(6.0), 1.0)
