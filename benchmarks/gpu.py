"""(f) On a GPU: the loop against its ceiling, and against the per-image PIL pipeline.

ResNet18, ResNet50 and MobileNetV2 at 224 px in bf16, with the set kept in the GPU's memory and
copied batch by batch. The ceiling is the same network on a batch that lies in memory; the PIL
pipeline feeds the same network from as many loader processes as there are cores.

    python -m benchmarks.gpu --data /data/bench --images 50000 --keep h100
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import faces
from benchmarks.loop import AIM, GPU_CASES, case
from benchmarks.pil_pipeline import PilDataset
from benchmarks.report import keep, parser, table
from headpose.config import TrainConfig
from headpose.data.sources import ImageSource, Keep
from headpose.evaluate import autocast
from headpose.loss import headpose_loss
from headpose.training import Training

AGAINST_PIL = 5.0
PIL_STEPS = 40


def pil_images_per_s(root: Path, training: Training, config: TrainConfig) -> float:
    """The same network, fed as the published trainers feed it."""
    device = training._device
    workers = len(os.sched_getaffinity(0))
    began = 0.0
    batches = PilDataset(root, config.image_px).batches(config.batch_size, workers)
    for steps, (images, _labels, degrees) in enumerate(batches, start=1):
        seen = images.to(device).contiguous(memory_format=torch.channels_last)
        training._optimiser.zero_grad()
        with autocast(device, config.precision):
            logits = training._net(seen)
        true_deg = degrees.to(device).clamp(-99, 99)
        loss = headpose_loss(logits, true_deg, training._binning, config.alpha)
        loss.backward()  # type: ignore[no-untyped-call]
        training._optimiser.step()
        if steps == 5:  # the loaders' start does not count
            torch.cuda.synchronize()
            began = time.perf_counter()
        if steps == PIL_STEPS + 5:
            break
    torch.cuda.synchronize()
    return PIL_STEPS * config.batch_size / (time.perf_counter() - began)


def main() -> None:
    arguments = parser(__doc__.split("\n")[0])
    arguments.add_argument("--data", type=Path, required=True, help="where faces are kept")
    arguments.add_argument("--images", type=int, default=50_000)
    arguments.add_argument("--batch", type=int, default=128)
    arguments.add_argument("--steps", type=int, default=100)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    if not torch.cuda.is_available():
        sys.stdout.write("skipped: there is no GPU here (torch.cuda.is_available() is False)\n")
        return
    device = torch.device("cuda")
    data = faces.prepared(given.data, given.images, 280)
    root = faces.pictures(given.data, given.images)
    rows = []
    for backbone, image_px in GPU_CASES:
        config = TrainConfig(
            backbone=backbone,
            image_px=image_px,
            batch_size=given.batch,
            rotate_deg=20.0,
            precision="bf16",
        )
        index = np.arange(len(data))
        pil = pil_images_per_s(root, Training(config, data, index, data, index[:1], device), config)
        places: tuple[Keep, ...] = ("auto", "never")
        for place in places:
            images = ImageSource(data, device, place)
            loop, bare, ratio, low, high = case(
                data, config, device, given.steps, given.rounds, images
            )
            aims = ratio >= AIM["cuda"] and loop / pil >= AGAINST_PIL
            rows.append(
                (
                    *(backbone, images.describe(), f"{loop:,.0f}", f"{bare:,.0f}"),
                    *(f"{ratio:.3f}", f"{low:.3f} to {high:.3f}", f"{pil:,.0f}"),
                    *(f"{loop / pil:.1f}×", "met" if aims else "missed"),
                )
            )
            del images
            torch.cuda.empty_cache()
    columns = (
        *("network", "images", "loop images/s", "ceiling images/s", "ratio", "rounds"),
        *("PIL images/s", "against PIL", f"aims {AIM['cuda']} and {AGAINST_PIL:g}×"),
    )
    keep("gpu", table(columns, rows), given)


if __name__ == "__main__":
    main()
