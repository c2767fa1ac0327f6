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


@pytest.mark.parametrize("epochs", [6, 8, 9, 15])
def test_the_end_of_an_exponential_approach_is_known_from_its_beginning(epochs: int) -> None:
    whole = curve(5.9, 3.5, 27)
    end = np.mean(whole[-(epochs // 3) :])
    assert forecast(whole[:epochs], 27) == pytest.approx(end, abs=1e-9)


def test_a_curve_that_hardly_slows_down_is_not_forecast_to_go_on_so_for_ever() -> None:
    line = [20.0 - 0.5 * epoch for epoch in range(1, 28)]
    assert line[5] - 2.0 < forecast(line[:6], 27) < line[5]


@pytest.mark.parametrize("epochs", range(6))
def test_few_epochs_foretell_nothing(epochs: int) -> None:
    assert forecast(curve(5.9, 3.5, 27)[:epochs], 27) == math.inf


def test_an_epoch_that_jumps_changes_a_forecast_by_little_more_than_its_jump() -> None:
    known = curve(6.0, 3.5, 9)
    for epoch in range(9):
        for jump in (-1.0, 1.0):
            jumped = [v + jump * (e == epoch) for e, v in enumerate(known)]
            assert abs(forecast(jumped, 27) - forecast(known, 27)) < 1.2


@pytest.mark.parametrize(
    "known",
    [[4.0, 5, 6, 7, 8, 9], [9.0, 8, 7, 8, 9, 9], [9.0, 9, 8, math.nan, 7, 6], [5.0, 5, 4, 4, 4, 4]],
)
def test_what_does_not_fall_twice_tells_nothing(known: list[float]) -> None:
    assert forecast(known, 27) == math.inf


def test_noise_forecasts_no_miracle() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        known = list(np.array(curve(6.0, 3.0, 6)) + random.normal(0, 2.0, 6))
        assert forecast(known, 27) >= 0.2 * min(known)


def test_who_learns_slowly_and_ends_better_goes_on() -> None:
    """After nine epochs the large network is still far behind the small one it will overtake."""
    slow, fast = curve(5.9, 5.5, 27), curve(7.3, 2.0, 27)
    assert slow[8] > fast[8] + 2
    assert slow[-1] < fast[-1]
    verdicts = {}
    for compare in ("forecast", "best"):
        rule = rule_of(Stopping(rungs=(9,), compare=compare), 27)  # type: ignore[arg-type]
        for trial, known in enumerate((fast, fast, slow)):
            for epoch in range(1, 10):
                rule.enter(trial, epoch, known[epoch - 1])
            if trial < 2:
                rule.pause(trial, 9)
        verdicts[compare] = rule.verdict(2, 9)
    assert verdicts == {"forecast": Verdict.GO_ON, "best": Verdict.PAUSE}
