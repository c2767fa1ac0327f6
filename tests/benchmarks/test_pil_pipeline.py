"""The pace of loaders that deliver in waves is that of their waves, whenever the clock starts."""

from collections.abc import Iterator

import pytest

from benchmarks.pil_pipeline import batches_needed, batches_per_s

WAVE_S, STEP_S = 1.0, 1e-3


class Waves:
    """Loaders that each deliver a batch a second, all at the same moment, and their clock."""

    def __init__(self, loaders: int) -> None:
        self.loaders, self.now_s = loaders, 0.0

    def batches(self) -> Iterator[int]:
        for number in range(sum(batches_needed(self.loaders))):
            self.now_s = max(self.now_s, WAVE_S * (1 + number // self.loaders))
            yield number

    def step(self, _batch: int) -> None:
        self.now_s += STEP_S


@pytest.mark.parametrize("loaders", [1, 2, 7, 16])
def test_whole_waves_are_timed(loaders: int) -> None:
    waves = Waves(loaders)
    found = batches_per_s(waves.batches(), waves.step, loaders, lambda: waves.now_s)
    assert found == pytest.approx(loaders / WAVE_S, rel=1e-6)


def test_too_few_batches_are_no_pace() -> None:
    with pytest.raises(ValueError, match="3 batches where 32 are needed"):
        batches_per_s(range(3), lambda _: None, workers=1)
