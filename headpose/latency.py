"""How long a network takes for one picture."""

import statistics
import time

import torch
from torch import nn

from headpose.bins import Binning
from headpose.config import Precision, TrainConfig
from headpose.evaluate import autocast
from headpose.networks.network import build_network

WARM_UP = 10  # untuned; the first calls choose kernels and grow memory
TIMED = 50  # untuned


def latency_ms(
    net: nn.Module,
    image_px: int,
    device: torch.device,
    *,
    precision: Precision = "fp32",
    warm_up: int = WARM_UP,
    timed: int = TIMED,
) -> float:
    """Median milliseconds of a forward pass of one picture that lies on the device already.

    Every pass is timed by itself, from an idle device until its logits are there: the published
    figures lack both and are mere times of launching kernels.

    Args:
        net: moved to the device and left in evaluation mode.
        image_px: side of the picture.
        device: where to compute.
        precision: "bf16" computes under autocast.
        warm_up: passes before the first that counts.
        timed: passes that count.
    """
    net.eval().to(device).to(memory_format=torch.channels_last)  # as in training
    image = torch.zeros(1, 3, image_px, image_px, device=device)
    image = image.contiguous(memory_format=torch.channels_last)
    times_s = []
    with torch.inference_mode(), autocast(device, precision):
        for _ in range(warm_up + timed):
            _wait_for(device)
            began = time.perf_counter()
            net(image)
            _wait_for(device)
            times_s.append(time.perf_counter() - began)
    return 1000 * statistics.median(times_s[warm_up:])


def latency_of(config: TrainConfig, device: torch.device) -> float:
    """Latency (ms) of the network of a configuration. Its weights do not matter, so none are
    loaded."""
    n_bins = Binning(config.bin_width, config.centres).count
    net = build_network(config.backbone, n_bins, seed=config.seed)
    return latency_ms(net, config.image_px, device, precision=config.precision)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
