"""(a) The training loop against the same network on a batch that already lies in memory.

Loop: gather, render and augment every batch anew, labels composed, Adam stepping. Bare: the same
network, loss and optimiser on one rendered batch again and again. Rounds alternate, and which of
the two comes first in them, so that both see the same machine; the ratio is the median over rounds.
CPU: seconds of the process on one thread, which other load cannot stretch; GPU: wall-clock between
synchronisations.

    python -m benchmarks.loop --data /tmp/bench --keep epyc-2-cores
"""

import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import faces
from benchmarks.report import keep, parser, table
from headpose.allocator import keep_freed_memory
from headpose.config import TrainConfig
from headpose.data.augment import draw_views
from headpose.data.prepared import PreparedSet
from headpose.data.render import render
from headpose.data.sources import ImageSource
from headpose.evaluate import autocast
from headpose.loss import headpose_loss
from headpose.training import Training

CPU_CASES = (("mobilenet_v2", 64), ("resnet18", 64), ("squeezenet1_1", 64), ("resnet18", 224))
GPU_CASES = (("resnet18", 224), ("resnet50", 224), ("mobilenet_v2", 224))
AIM = {"cpu": 0.97, "cuda": 0.95}
_WARM_UPS = 2
"""Epochs: how many views are blurred, and so how much memory it takes, varies."""


def bare_steps(
    training: Training,
    data: PreparedSet,
    config: TrainConfig,
    layout: torch.memory_format = torch.channels_last,
) -> Callable[[int], None]:
    """Steps on one batch that is rendered already."""
    device = training._device
    views = draw_views(
        torch.from_numpy(np.array(data.angles_deg[: config.batch_size])),
        data.view_fraction,
        training._augmentation,
        torch.Generator().manual_seed(0),
    ).on(device)
    images_u8 = training._images.batch(torch.arange(config.batch_size))
    seen = render(images_u8, views, config.image_px).contiguous(memory_format=layout)

    def run(steps: int) -> None:
        training._net.train()
        for _ in range(steps):
            training._optimiser.zero_grad()
            with autocast(device, config.precision):
                logits = training._net(seen)
            loss = headpose_loss(logits, views.angles_deg, training._binning, config.alpha)
            loss.backward()  # type: ignore[no-untyped-call]
            training._optimiser.step()

    return run


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Of the processor on a CPU, of the wall on a GPU."""
    if device.type == "cpu":
        began = time.process_time()
        work()
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def case(
    data: PreparedSet,
    config: TrainConfig,
    device: torch.device,
    steps: int,
    rounds: int,
    images: ImageSource | None = None,
) -> tuple[float, float, float, float, float]:
    """Images/s of the loop and of the bare network; their ratio: median, lowest, highest."""
    rows = np.arange(min(len(data), steps * config.batch_size))
    if len(rows) < steps * config.batch_size:
        rows = np.resize(rows, steps * config.batch_size)
    sources = (images, images) if images else None
    training = Training(config, data, rows, data, rows[:1], device, sources)
    bare = bare_steps(training, data, config)
    for number in range(_WARM_UPS):
        training._train_epoch(1 + number)
    bare(2)
    loop_s: list[float] = []
    bare_s: list[float] = []
    for number in range(rounds):
        loop = functools.partial(training._train_epoch, 1 + _WARM_UPS + number)
        both: list[tuple[Callable[[], object], list[float]]] = [
            (loop, loop_s),
            (functools.partial(bare, steps), bare_s),
        ]
        for work, seconds in both if number % 2 else reversed(both):
            seconds.append(seconds_of(work, device))
    ratios = [b / a for a, b in zip(loop_s, bare_s, strict=True)]
    count = steps * config.batch_size
    return (
        count / statistics.median(loop_s),
        count / statistics.median(bare_s),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )


def main() -> None:
    arguments = parser(__doc__.split("\n")[0])
    arguments.add_argument("--data", type=Path, required=True, help="where faces are kept")
    arguments.add_argument("--images", type=int, default=400)
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--steps", type=int, default=8)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--only", nargs="*", help="such as resnet18@64; default: all cases")
    given = arguments.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()
    rows = []
    for backbone, image_px in GPU_CASES if device.type == "cuda" else CPU_CASES:
        if given.only and f"{backbone}@{image_px}" not in given.only:
            continue
        data = faces.prepared(given.data, given.images, image_px * 5 // 4)
        config = TrainConfig(
            backbone=backbone,
            image_px=image_px,
            batch_size=given.batch,
            rotate_deg=20.0,
            precision="bf16" if device.type == "cuda" else "fp32",
        )
        steps = given.steps if device.type == "cuda" or image_px <= 64 else given.steps // 4
        loop, bare, ratio, low, high = case(data, config, device, steps, given.rounds)
        aim = "met" if ratio >= AIM[device.type] else "missed"
        rows.append(
            (
                *(backbone, image_px, f"{loop:.1f}", f"{bare:.1f}"),
                *(f"{ratio:.3f}", f"{low:.3f} to {high:.3f}", f"{AIM[device.type]}: {aim}"),
            )
        )
    columns = ("network", "px", "loop images/s", "bare images/s", "ratio", "rounds", "aim")
    keep("loop", table(columns, rows), given)


if __name__ == "__main__":
    main()
