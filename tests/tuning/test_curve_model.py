"""The model of learning curves: its gradient, and what it must have learnt from a few curves."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from tuning.curve_model import CurveModel, Curves, Points, effects
from tuning.space import Choices, Parameter, Range, Settings

SPACE: dict[str, Parameter] = {
    "learning_rate": Range(low=1e-5, high=1e-1, log=True),
    "backbone": Choices(choices=("small", "large")),
    "weight_decay": Range(low=0, high=1, when={"backbone": ("large",)}),
}


def error(settings: Settings, share: float) -> float:
    """Large networks end better and learn more slowly; the best rate is 1e-3."""
    is_large = settings["backbone"] == "large"
    rate = np.log10(float(settings["learning_rate"] or 0)) + 3
    end = 5.0 if is_large else 6.0
    return float(end + 0.5 * rate**2 + 15 * np.exp(-share * (6 if is_large else 18)))


def configurations(count: int) -> list[Settings]:
    random = np.random.default_rng(4)
    found: list[Settings] = []
    for index in range(count):
        settings: Settings = {"learning_rate": float(10 ** random.uniform(-5, -1))}
        settings["backbone"] = "large" if index % 2 else "small"
        if index % 2:
            settings["weight_decay"] = float(random.random())
        found.append(settings)
    return found


def observed(settings: list[Settings], until: list[float], noise: float = 0.02) -> Curves:
    random = np.random.default_rng(5)
    pairs = [
        (index, share)
        for index, last in enumerate(until)
        for share in (0.1, 0.2, 0.4, 0.7, 1.0)
        if share <= last
    ]
    values = [np.log(error(settings[i], share)) + noise * random.normal() for i, share in pairs]
    owner, at = zip(*pairs, strict=True)
    return Curves(Points.of(SPACE, settings), np.array(owner), np.array(at), np.array(values))


def test_gradient_of_the_misfit() -> None:
    settings = configurations(8)
    model = CurveModel(observed(settings, [1.0, 0.2] * 4))
    weights = model._layout.believed + 0.1 * np.random.default_rng(1).normal(size=14)
    _, gradient = model.misfit(weights)
    numeric = approx_fprime(weights, lambda w: model.misfit(w)[0], 1e-6)
    assert gradient == pytest.approx(numeric, abs=2e-3)


def test_covariances_are_of_unit_variance_and_absence_is_a_value() -> None:
    points = Points.of(SPACE, configurations(6))
    found = effects(points, points)
    assert found.shape == (4, 6, 6)
    assert np.diagonal(found, axis1=1, axis2=2) == pytest.approx(1.0)
    decay = found[2]
    assert decay[0, 2] == 1.0, "both without it"
    assert decay[0, 1] == 0.0, "one without it"
    assert 0.0 < decay[1, 3] < 1.0


def test_slow_learners_are_known_from_others_of_their_kind() -> None:
    settings = configurations(24)
    until = [1.0] * 12 + [0.2] * 12  # the later ones are a fifth of their way
    curves = observed(settings, until)
    model = CurveModel(curves)
    mean = model.ends()
    truth = np.array([error(s, 1.0) for s in settings])
    assert np.abs(np.exp(mean) - truth)[12:].mean() < 0.35
    # After a fifth the large networks lag behind; in the end they lead.
    early = np.array([error(s, 0.2) for s in settings])
    large, small = np.arange(13, 24, 2), np.arange(12, 24, 2)
    assert early[large].mean() > early[small].mean()
    assert np.exp(mean)[large].mean() - np.exp(mean)[small].mean() == pytest.approx(
        truth[large].mean() - truth[small].mean(), abs=0.6
    )


def test_what_is_expected_lowers_doubt_and_changes_no_expectation() -> None:
    settings = configurations(14)
    model = CurveModel(observed(settings[:10], [1.0] * 10))
    new = Points.of(SPACE, settings[10:])
    mean, deviation = model.predicted(new)
    told = model.with_expected(new, 0.5)
    mean_then, deviation_then = told.predicted(new)
    assert mean_then == pytest.approx(mean, abs=0.02)
    assert (deviation_then < deviation).all()
