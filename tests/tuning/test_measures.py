"""What the last report of a trial says beside its error."""

import math
from collections.abc import Generator

import torch

from headpose.config import TrainConfig
from tuning.measures import measured
from tuning.trial import EpochReport

CONFIG = TrainConfig(backbone="squeezenet1_1", image_px=32)
BOTH = ("val_mae", "latency_ms")


def reports(values: list[float], closed: list[bool]) -> Generator[EpochReport]:
    try:
        for epoch, value in enumerate(values, start=1):
            yield EpochReport(epoch, {"val_mae": value}, f"key{epoch}", restored=True)
    finally:
        closed.append(True)


def seen(values: list[float], objectives: tuple[str, ...]) -> list[EpochReport]:
    device = torch.device("cpu")
    found = measured(reports(values, []), CONFIG, objectives, 2, device)  # type: ignore[arg-type]
    return list(found)


def test_the_last_epoch_says_the_latency_also_where_it_comes_from_the_store() -> None:
    first, last = seen([9.0, 8.0], BOTH)
    assert "latency_ms" not in first.metrics
    assert last.metrics["latency_ms"] > 0
    assert (last.metrics["val_mae"], last.checkpoint_key, last.restored) == (8.0, "key2", True)


def test_nothing_is_measured_that_nobody_asked_for() -> None:
    assert [r.metrics for r in seen([9.0, 8.0], ("val_mae",))] == [{"val_mae": 9}, {"val_mae": 8}]
    assert "latency_ms" not in seen([9.0, math.nan], BOTH)[1].metrics


def test_who_stops_listening_ends_the_trial() -> None:
    closed: list[bool] = []
    found = measured(reports([9.0, 8.0], closed), CONFIG, ("val_mae",), 2, torch.device("cpu"))
    next(found)
    found.close()
    assert closed == [True]
