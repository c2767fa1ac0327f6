"""The promotion gate: a paired bootstrap over images."""

import numpy as np
import pytest

from tuning.gate import compare


def test_a_clear_gain_is_better_and_a_loss_is_not() -> None:
    generator = np.random.default_rng(1)
    champion = generator.gamma(2.0, 3.0, size=500)
    gain = compare(champion - 0.5 + generator.normal(0, 1, 500), champion)
    assert gain.is_better
    assert gain.low_deg < gain.gain_deg < gain.high_deg
    assert not compare(champion + 0.5, champion).is_better


def test_equal_networks_are_not_better() -> None:
    errors = np.random.default_rng(2).gamma(2.0, 3.0, size=300)
    assert compare(errors, errors).gain_deg == 0
    assert not compare(errors, errors).is_better


def test_noise_alone_is_better_in_few_cases() -> None:
    generator = np.random.default_rng(3)
    verdicts = []
    for _ in range(60):
        champion = generator.gamma(2.0, 3.0, size=100)
        verdicts.append(compare(champion + generator.normal(0, 2, 100), champion).is_better)
    # The upper tail is 2.5%: 60 draws exceed 6 with probability below 0.1%.
    assert sum(verdicts) <= 6


def test_unpaired_errors_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        compare(np.zeros(3), np.zeros(4))
