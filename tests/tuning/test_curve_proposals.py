"""What is worth a training next: learnt from whole curves, and never outside the space."""

import math

import numpy as np
import pytest

from tuning.curve_proposals import FEWEST, MOST, Seen, promising
from tuning.grid import configuration
from tuning.space import Choices, Parameter, Range, Settings
from tuning.variations import drawn

EPOCHS = 12
SPACE: dict[str, Parameter] = {
    "backbone": Choices(choices=("resnet18", "resnet50")),
    "learning_rate": Range(low=1e-5, high=1e-1, log=True),
    "unfreeze_epoch": Range(low=0, high=5),
    "second_learning_rate": Range(low=1e-6, high=1e-3, log=True, when={"backbone": ("resnet50",)}),
}


def curve(settings: Settings, epochs: int) -> dict[int, float]:
    """The large network learns slowly and ends better; the best rate is 1e-3."""
    is_large = settings["backbone"] == "resnet50"
    end = (5.0 if is_large else 6.5) + (math.log10(float(settings["learning_rate"] or 0)) + 3) ** 2
    pace = 4.0 if is_large else 1.5
    return {e: end + 15 * math.exp(-e / pace) for e in range(1, epochs + 1)}


def seen(count: int, epochs: int = EPOCHS) -> list[Seen]:
    random = np.random.default_rng(8)
    found = [drawn(SPACE, random) for _ in range(count)]
    return [Seen(s, curve(s, epochs if i % 2 else EPOCHS // 2)) for i, s in enumerate(found)]


def test_goes_where_slow_learners_end_best() -> None:
    found = promising(SPACE, seen(24), EPOCHS, np.random.default_rng(0))
    assert found is not None
    assert found["backbone"] == "resnet50"
    assert math.log10(float(found["learning_rate"] or 0)) == pytest.approx(-3, abs=0.6)
    assert "second_learning_rate" in found
    assert isinstance(found["unfreeze_epoch"], int)


def test_same_numbers_same_proposal() -> None:
    one, two = (promising(SPACE, seen(9), EPOCHS, np.random.default_rng(3)) for _ in range(2))
    assert one == two


def test_too_few_curves_teach_nothing() -> None:
    known = [*seen(FEWEST - 1), Seen({"backbone": "resnet18", "learning_rate": 1e-2}, {})]
    assert promising(SPACE, known, EPOCHS, np.random.default_rng(0)) is None


@pytest.mark.parametrize("is_hopeless", [False, True])
def test_keeps_away_from_what_diverges_or_does_not_fit(is_hopeless: bool) -> None:
    """High rates would be best, were they not the ones that cannot be trained."""
    known = []
    for one in seen(30):
        high = float(one.settings["learning_rate"] or 0) > 3e-3
        bad = Seen(one.settings, {} if is_hopeless else {1: math.nan}, is_hopeless)
        rate = math.log10(float(one.settings["learning_rate"] or 0))
        better_with_rate = {e: value - 2 * rate for e, value in curve(one.settings, 12).items()}
        known.append(bad if high else Seen(one.settings, better_with_rate))
    for number in range(3):
        found = promising(SPACE, known, EPOCHS, np.random.default_rng(number))
        assert found is not None
        assert float(found["learning_rate"] or 0) < 1e-2


def test_what_is_being_trained_is_not_proposed_again() -> None:
    known, random = seen(16), np.random.default_rng(1)
    for _ in range(4):
        found = promising(SPACE, known, EPOCHS, random)
        assert found is not None
        known.append(Seen(found, {}))
    assert len({configuration(s.settings) for s in known[-4:]}) == 4


def test_many_trials_are_no_trouble() -> None:
    found = promising(SPACE, seen(MOST + 60, 6), EPOCHS, np.random.default_rng(0))
    assert found is not None


def test_of_a_few_configurations_the_best_new_one_is_proposed_and_none_a_second_time() -> None:
    space: dict[str, Parameter] = {
        "backbone": SPACE["backbone"],
        "learning_rate": Choices(choices=(1e-5, 1e-4, 1e-3, 1e-2)),
    }
    rates = {"resnet18": (1e-5, 1e-4, 1e-3, 1e-2), "resnet50": (1e-5, 1e-3, 1e-2)}
    tried: list[Settings] = [
        {"backbone": name, "learning_rate": rate} for name in rates for rate in rates[name]
    ]
    known = [Seen(settings, curve(settings, EPOCHS)) for settings in tried]
    new: Settings = {"backbone": "resnet50", "learning_rate": 1e-4}
    proposed = {configuration(settings) for settings in tried}
    random = np.random.default_rng(0)
    assert promising(space, known, EPOCHS, random, proposed) == new
    assert promising(space, known, EPOCHS, random, {*proposed, configuration(new)}) is None
