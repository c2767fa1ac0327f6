"""Bins of any width: complete, unbiased, and as the original had them where that is asked for."""

import math

import pytest
import torch

from headpose.bins import Binning
from usererror import UserError

WIDTHS_DEG = [0.5, 0.6, 1.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 11.0, 33.0, 40.0, 98.5, 99.0]


@pytest.mark.parametrize(
    ("width_deg", "count"),
    [(3.0, 66), (1.0, 198), (6.0, 33), (0.6, 330), (4.0, 50), (5.0, 40), (7.0, 29), (99.0, 2)],
)
def test_count_covers_the_range(width_deg: float, count: int) -> None:
    assert Binning(width_deg).count == count


@pytest.mark.parametrize("width_deg", WIDTHS_DEG)
def test_every_angle_has_a_bin_and_every_bin_an_angle(width_deg: float) -> None:
    binning = Binning(width_deg)
    angles = torch.linspace(-99, 99, 19_801, dtype=torch.float64)
    labels = binning.nearest_labels(angles)
    assert labels.dtype == torch.int64
    assert labels.unique().tolist() == list(range(binning.count))


@pytest.mark.parametrize("width_deg", WIDTHS_DEG)
def test_exactly_99_lies_in_the_last_bin_and_minus_99_in_the_first(width_deg: float) -> None:
    binning = Binning(width_deg)
    assert binning.nearest_labels(torch.tensor([99.0, -99.0])).tolist() == [binning.count - 1, 0]


def test_labels_are_those_of_the_original() -> None:
    angles = torch.tensor([[-99.0, -96.0, -96.01], [0.0, 2.99, 3.0]])
    assert Binning(3.0).nearest_labels(angles).tolist() == [[0, 1, 0], [33, 33, 34]]


def test_unchecked_labels_are_always_legal_classes() -> None:
    angles = torch.tensor([math.nan, math.inf, -math.inf, 500.0, -500.0, 0.0])
    assert Binning(3.0).nearest_labels(angles).tolist() == [0, 65, 0, 65, 0, 33]


@pytest.mark.parametrize("width_deg", WIDTHS_DEG)
def test_unbiased_centres_are_the_mean_of_the_angles_of_each_bin(width_deg: float) -> None:
    binning = Binning(width_deg)
    steps = 198_000
    angles = (torch.arange(steps, dtype=torch.float64) + 0.5) * 198 / steps - 99
    labels = binning.nearest_labels(angles)
    sums = torch.zeros(binning.count, dtype=torch.float64).index_add_(0, labels, angles)
    means = sums / torch.bincount(labels)
    centres = binning.centres_deg(dtype=torch.float64)
    torch.testing.assert_close(centres, means, atol=2e-3, rtol=0)
    assert float((centres[labels] - angles).mean()) == pytest.approx(0, abs=1e-6)


def test_hopenet_centres_are_left_edges() -> None:
    centres = Binning(3.0, "hopenet").centres_deg()
    assert torch.equal(centres, torch.arange(66) * 3.0 - 99)


def test_expectation_of_a_certain_network_is_the_centre_of_its_bin() -> None:
    for centres in ("unbiased", "hopenet"):
        binning = Binning(3.0, centres)  # type: ignore[arg-type]
        logits = torch.full((2, 3, 66), -1e4)
        logits[..., 40] = 0
        expected = binning.centres_deg()[40].expand(2, 3)
        torch.testing.assert_close(binning.expectation(logits), expected)


def test_expectation_of_an_undecided_network_is_zero_unless_biased() -> None:
    undecided = torch.zeros(1, 66)
    assert float(Binning(3.0).expectation(undecided)) == pytest.approx(0, abs=1e-5)
    assert float(Binning(3.0, "hopenet").expectation(undecided)) == pytest.approx(-1.5, abs=1e-5)


def test_half_precision_logits_are_summed_in_single_precision() -> None:
    logits = torch.randn(4, 66, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    expectation = Binning(3.0).expectation(logits)
    assert expectation.dtype == torch.float32
    torch.testing.assert_close(expectation, Binning(3.0).expectation(logits.float()))


def test_logits_of_another_number_of_bins_are_refused() -> None:
    with pytest.raises(UserError, match="got 33; 66 bins of 3 degrees"):
        Binning(3.0).expectation(torch.zeros(2, 3, 33))


@pytest.mark.parametrize("width_deg", [0.0, -3.0, 100.0, math.nan, math.inf])
def test_impossible_widths_are_refused(width_deg: float) -> None:
    with pytest.raises(UserError, match=r"Binning\.width_deg"):
        Binning(width_deg)


def test_unknown_centres_are_refused() -> None:
    with pytest.raises(UserError, match="legal: unbiased, hopenet"):
        Binning(3.0, "left")  # type: ignore[arg-type]


def test_training_goes_on_after_a_prediction_has_made_the_centres() -> None:
    binning, logits = Binning(4.25), torch.ones(2, 3, Binning(4.25).count)
    with torch.inference_mode():
        predicted = binning.expectation(logits)
    learnt = binning.expectation(logits.requires_grad_())
    learnt.sum().backward()
    assert torch.equal(learnt.detach(), predicted)
    assert logits.grad is not None
