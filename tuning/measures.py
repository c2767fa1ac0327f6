"""What a search wants to know of a trial beside its validation error."""

import dataclasses
import math
from collections.abc import Generator

import torch

from headpose.config import TrainConfig
from headpose.latency import latency_of
from tuning.spec import Objective
from tuning.trial import EpochReport

LATENCY = "latency_ms"


def measured(
    reports: Generator[EpochReport],
    config: TrainConfig,
    objectives: tuple[Objective, ...],
    epochs: int,
    device: torch.device,
) -> Generator[EpochReport]:
    """A trial's reports; that of its last epoch says what the other objectives ask for.

    It is measured then and there, once a trial, also where the epochs come from the store: they may
    have been trained on another kind of GPU.

    Args:
        reports: of a trial.
        config: what it trains.
        objectives: of its search.
        epochs: of a whole trial.
        device: where it is measured.
    """
    try:
        for report in reports:
            is_last = report.epoch == epochs and math.isfinite(report.metrics["val_mae"])
            if is_last and LATENCY in objectives:
                found = {**report.metrics, LATENCY: latency_of(config, device)}
                yield dataclasses.replace(report, metrics=found)
            else:
                yield report
    finally:
        reports.close()
