"""Time for one picture: warmed up, a median, and of the network that is asked for."""

import time

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from headpose.bins import Binning
from headpose.config import TrainConfig
from headpose.latency import TIMED, WARM_UP, latency_ms, latency_of
from headpose.networks.network import HeadposeNet

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


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(backbone="squeezenet1_1", image_px=96, bin_width=3.0),
        TrainConfig(backbone="resnet18", image_px=64, bin_width=9.0, precision="bf16"),
    ],
    ids=lambda config: config.backbone,
)
def test_what_is_timed_is_the_network_of_the_configuration(config: TrainConfig) -> None:
    passes = []

    def note(net: nn.Module, args: tuple[Tensor]) -> None:
        if isinstance(net, HeadposeNet):
            bf16 = torch.is_autocast_enabled("cpu")
            passes.append((net.backbone, net.n_bins, tuple(args[0].shape), net.training, bf16))

    with register_module_forward_pre_hook(note):
        found = latency_of(config, CPU)
    assert found > 0
    px, n_bins = config.image_px, Binning(config.bin_width, config.centres).count
    expected = (config.backbone, n_bins, (1, 3, px, px), False, config.precision == "bf16")
    assert passes == [expected] * (WARM_UP + TIMED)
