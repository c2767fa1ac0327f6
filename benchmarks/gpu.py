"""(f) On a GPU: the loop against its ceiling, and against the per-image PIL pipeline.

ResNet18, ResNet50 and MobileNetV2 at 224 px in bf16, with the set kept in the GPU's memory and
copied batch by batch. The ceiling is the same network on a batch that lies in memory. The PIL
pipeline feeds the same network from two loader processes, as Hopenet's trainer does, and from one
for each core.

    python -m benchmarks.gpu --data /data/bench --images 51200 --keep h100
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import faces
from benchmarks.loop import AIM, GPU_CASES, case
from benchmarks.pil_pipeline import PUBLISHED_WORKERS, PilDataset, batches_needed, batches_per_s
from benchmarks.report import keep, parser, table
from headpose.config import TrainConfig
from headpose.data.prepared import PreparedSet
from headpose.data.sources import ImageSource
from headpose.evaluate import autocast
from headpose.loss import headpose_loss
from headpose.training import Training

AGAINST_PIL = 5.0
STORED_PX = 280


def pil_images_per_s(
    root: Path, data: PreparedSet, config: TrainConfig, device: torch.device, workers: int
) -> float:
    """The same network, fed as the published trainers feed it."""
    rows, images = np.arange(2), ImageSource(data, device, "never")
    training = Training(config, data, rows, data, rows, device, (images, images))

    def step(batch: tuple[Tensor, Tensor, Tensor]) -> None:
        pictures, _labels, degrees = batch
        seen = pictures.to(device).contiguous(memory_format=torch.channels_last)
        training._optimiser.zero_grad()
        with autocast(device, config.precision):
            logits = training._net(seen)
        true_deg = degrees.to(device).clamp(-99, 99)
        loss = headpose_loss(logits, true_deg, training._binning, config.alpha)
        loss.backward()  # type: ignore[no-untyped-call]
        training._optimiser.step()

    def now_s() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    count = sum(batches_needed(workers))
    batches = PilDataset(root, config.image_px).batches(config.batch_size, workers, count)
    return config.batch_size * batches_per_s(batches, step, workers, now_s)


def main() -> None:
    arguments = parser(__doc__.split("\n")[0])
    arguments.add_argument("--data", type=Path, required=True, help="where faces are kept")
    arguments.add_argument("--pictures", type=int, default=8_192, help="different ones")
    arguments.add_argument("--images", type=int, default=51_200, help="of the set: repeated")
    arguments.add_argument("--batch", type=int, default=128)
    arguments.add_argument("--steps", type=int, default=150)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--no-pil", action="store_true", help="the loop and its ceiling alone")
    given = arguments.parse_args()
    if not torch.cuda.is_available():
        sys.stdout.write("skipped: there is no GPU here (torch.cuda.is_available() is False)\n")
        return
    device = torch.device("cuda")
    root = faces.pictures(given.data, given.pictures)
    data = faces.repeated(faces.prepared(given.data, given.pictures, STORED_PX), given.images)
    began = time.perf_counter()
    kept, copied = ImageSource(data, device, "always"), ImageSource(data, device, "never")
    torch.cuda.synchronize()
    note = f"The set was in the GPU's memory after {time.perf_counter() - began:.1f} s."
    cores = len(os.sched_getaffinity(0))
    loaders = () if given.no_pil else (PUBLISHED_WORKERS, cores)
    rows = []
    for backbone, image_px in GPU_CASES:
        config = TrainConfig(
            backbone=backbone,
            image_px=image_px,
            batch_size=given.batch,
            rotate_deg=20.0,
            precision="bf16",
        )
        pil = [pil_images_per_s(root, data, config, device, workers) for workers in loaders]
        for images in (kept, copied):
            loop, bare, ratio, low, high = case(
                data, config, device, given.steps, given.rounds, images
            )
            aims = [ratio >= AIM["cuda"], *(loop / pace >= AGAINST_PIL for pace in pil)]
            rows.append(
                (
                    *(backbone, images.describe(), f"{loop:,.0f}", f"{bare:,.0f}"),
                    *(f"{ratio:.3f}", f"{low:.3f} to {high:.3f}"),
                    *(f"{pace:,.0f}: {loop / pace:.1f}×" for pace in pil),
                    ", ".join("met" if aim else "missed" for aim in aims),
                )
            )
            print(rows[-1], flush=True)  # what there is, should time run out
    columns = (
        *("network", "images", "loop images/s", "ceiling images/s", "ratio", "rounds"),
        *(f"PIL, {workers} processes, images/s" for workers in loaders),
        "aims " + ", ".join([f"{AIM['cuda']}", *(f"{AGAINST_PIL:g}×" for _ in loaders)]),
    )
    keep("gpu", f"{table(columns, rows)}\n\n{note}", given)


if __name__ == "__main__":
    main()
