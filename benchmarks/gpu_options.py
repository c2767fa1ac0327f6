"""What each choice of the training step is worth on a GPU, and whether bf16 learns as fp32 does.

Pace: steps on a batch that lies in memory; each row changes one thing of the first. Learning:
validation MAE after equal epochs from scratch, the same seeds.

    python -m benchmarks.gpu_options --data /data/bench --keep h100
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks import faces
from benchmarks.gpu import STORED_PX
from benchmarks.loop import GPU_CASES, bare_steps, seconds_of
from benchmarks.report import keep, parser, table
from headpose.config import Precision, TrainConfig
from headpose.data.prepared import PreparedSet
from headpose.data.sources import ImageSource
from headpose.training import Training

LEARNING = ("resnet18", "mobilenet_v2")
VALIDATION_SHARE = 0.1


def as_it_is(_training: Training) -> None:
    """Channels last, fused Adam."""


def channels_first(training: Training) -> None:
    training._net.to(memory_format=torch.contiguous_format)


def unfused(training: Training) -> None:
    adam = training._optimiser._adam
    training._optimiser._adam = torch.optim.Adam(
        [{"params": group["params"]} for group in adam.param_groups],
        foreach=True,  # `fused=False` alone would mean one parameter after the other
    )


def cudnn_benchmark(_training: Training) -> None:
    torch.backends.cudnn.benchmark = True


def compiled(training: Training) -> None:
    training._net = torch.compile(training._net)  # type: ignore[assignment]


VARIANTS: tuple[tuple[str, Precision, Callable[[Training], None]], ...] = (
    ("bf16, channels last, fused Adam", "bf16", as_it_is),
    ("fp32 (TF32 convolutions)", "fp32", as_it_is),
    ("channels first", "bf16", channels_first),
    ("Adam of several kernels", "bf16", unfused),
    ("cuDNN's own search for kernels", "bf16", cudnn_benchmark),
    ("torch.compile", "bf16", compiled),
)


def pace(
    data: PreparedSet, config: TrainConfig, change: Callable[[Training], None], steps: int
) -> tuple[float, float]:
    """Images/s (median of three rounds), and seconds until two steps are done."""
    device, rows = torch.device("cuda"), np.arange(2)
    images = ImageSource(data, device, "never")
    training = Training(config, data, rows, data, rows, device, (images, images))
    layout = torch.contiguous_format if change is channels_first else torch.channels_last
    torch.backends.cudnn.benchmark = False
    change(training)
    run = bare_steps(training, data, config, layout)
    first_s = seconds_of(lambda: run(2), device)
    run(5)
    taken_s = statistics.median(seconds_of(lambda: run(steps), device) for _ in range(3))
    torch.backends.cudnn.benchmark = False
    return steps * config.batch_size / taken_s, first_s


def maes(data: PreparedSet, config: TrainConfig, epochs: int) -> tuple[float, float]:
    """Validation MAE after the last epoch, and seconds of all."""
    device = torch.device("cuda")
    order = np.random.default_rng(0).permutation(len(data))
    held_out = round(VALIDATION_SHARE * len(data))
    images = ImageSource(data, device)
    training = Training(
        config, data, order[held_out:], data, order[:held_out], device, (images, images)
    )
    began = time.perf_counter()
    results = [training.run_epoch(epoch) for epoch in range(1, epochs + 1)]
    return results[-1].val.mae, time.perf_counter() - began


def main() -> None:
    arguments = parser(__doc__.split("\n")[0])
    arguments.add_argument("--data", type=Path, required=True, help="where faces are kept")
    arguments.add_argument("--pictures", type=int, default=8_192)
    arguments.add_argument("--batch", type=int, default=128)
    arguments.add_argument("--steps", type=int, default=60)
    arguments.add_argument("--epochs", type=int, default=8)
    arguments.add_argument("--seeds", type=int, default=2)
    given = arguments.parse_args()
    if not torch.cuda.is_available():
        sys.stdout.write("skipped: there is no GPU here (torch.cuda.is_available() is False)\n")
        return
    data = faces.prepared(given.data, given.pictures, STORED_PX)
    paces, learning = [], []
    for backbone, image_px in GPU_CASES:
        base = TrainConfig(backbone=backbone, image_px=image_px, batch_size=given.batch)
        first = 0.0
        for name, precision, change in VARIANTS:
            images_per_s, begin_s = pace(
                data, replace(base, precision=precision), change, given.steps
            )
            first = first or images_per_s
            print(f"{backbone}, {name}: {images_per_s:,.0f}", flush=True)
            paces.append(
                (
                    backbone,
                    name,
                    f"{images_per_s:,.0f}",
                    f"{images_per_s / first:.2f}",
                    f"{begin_s:.1f}",
                )
            )
    for backbone in LEARNING:
        for precision in ("fp32", "bf16"):
            results = [
                maes(
                    data,
                    TrainConfig(
                        backbone=backbone,
                        image_px=224,
                        batch_size=64,
                        learning_rate=1e-3,
                        precision=precision,
                        seed=seed,
                    ),
                    given.epochs,
                )
                for seed in range(given.seeds)
            ]
            learning.append(
                (
                    *(backbone, precision, ", ".join(f"{mae:.2f}°" for mae, _ in results)),
                    f"{statistics.mean(mae for mae, _ in results):.2f}°",
                    f"{sum(seconds for _, seconds in results):.1f}",
                )
            )
            print(learning[-1], flush=True)
    columns = ("network", "step", "images/s", "of the first row", "first two steps, s")
    pace_table = table(columns, paces)
    columns = ("network", "precision", "validation MAE of each seed", "mean", "seconds")
    keep("gpu_options", f"{pace_table}\n\n{table(columns, learning)}", given)


if __name__ == "__main__":
    main()
