"""What rungs compare: a curve's end as its own fading gains foretell it."""

import math

import numpy as np
import pytest

from tuning.rules import rule_of
from tuning.rules.base import Verdict
from tuning.rules.standing import forecast
from tuning.spec import Stopping


def curve(floor: float, pace: float, epochs: int) -> list[float]:
    return [floor + (25 - floor) * math.exp(-e / pace) for e in range(1, epochs + 1)]


@pytest.mark.parametrize("epochs", [3, 6, 9, 15])
def test_the_end_of_an_exponential_approach_is_known_from_its_beginning(epochs: int) -> None:
    whole = curve(5.9, 5.5, 27)
    assert forecast(whole[:epochs], 27) == pytest.approx(whole[-1], abs=1e-9)


@pytest.mark.parametrize("known", [[], [9.0], [9.0, 8.0], [8.0, 9.0, 10.0], [9.0, math.nan, 8.0]])
def test_what_does_not_fall_twice_tells_nothing(known: list[float]) -> None:
    assert forecast(known, 27) == math.inf


def test_noise_forecasts_no_miracle() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        known = list(np.array(curve(6.0, 3.0, 6)) + random.normal(0, 2.0, 6))
        assert forecast(known, 27) >= 0.2 * min(known)


def test_who_learns_slowly_and_ends_better_goes_on() -> None:
    """After six epochs the large network is still far behind the small one it will overtake."""
    slow, fast = curve(5.9, 5.5, 27), curve(7.3, 2.0, 27)
    assert slow[5] > fast[5] + 3
    assert slow[-1] < fast[-1]
    verdicts = {}
    for compare in ("forecast", "best"):
        rule = rule_of(Stopping(rungs=(6,), compare=compare), 27)  # type: ignore[arg-type]
        for trial, known in enumerate((fast, fast, slow)):
            for epoch in range(1, 7):
                rule.enter(trial, epoch, known[epoch - 1])
            if trial < 2:
                rule.pause(trial, 6)
        verdicts[compare] = rule.verdict(2, 6)
    assert verdicts == {"forecast": Verdict.GO_ON, "best": Verdict.PAUSE}
