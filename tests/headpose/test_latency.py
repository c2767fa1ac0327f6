"""Time for one picture: warmed up, a median, and of the network that is asked for."""

import time

import torch
from torch import Tensor, nn

from headpose.config import TrainConfig
from headpose.latency import latency_ms, latency_of

CPU = torch.device("cpu")


class Sleeper(nn.Module):
    """Takes long at first and now and then, as real devices do."""

    def __init__(self, seconds: list[float]) -> None:
        super().__init__()
        self.seconds = seconds
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shapes.append(tuple(images.shape))
        time.sleep(self.seconds.pop(0))
        return images


def test_warm_up_and_stragglers_do_not_count() -> None:
    net = Sleeper([0.2, 0.2, *[0.002] * 6, 0.2])
    found = latency_ms(net, 32, CPU, warm_up=2, timed=7)
    assert net.seconds == []
    assert set(net.shapes) == {(1, 3, 32, 32)}
    assert 2.0 <= found < 190


def test_a_larger_network_takes_longer() -> None:
    light, heavy = (
        latency_of(TrainConfig(backbone=name, image_px=96), CPU)
        for name in ("squeezenet1_1", "resnet50")
    )
    assert 0 < light < heavy
