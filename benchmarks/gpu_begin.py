"""How long a GPU waits for a trial's first step: in a worker that trained before, in a new process.

From the end of one training to the end of the next one's first step: freeing what that one held,
building the network, moving it, Adam, one batch. The new process imports PyTorch and opens CUDA
first, which is what a trial costs where each has a process of its own.

    python -m benchmarks.gpu_begin --data /data/bench --keep h100
"""

import gc
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import faces
from benchmarks.gpu import STORED_PX
from benchmarks.loop import GPU_CASES
from benchmarks.report import keep, parser, table
from headpose.config import TrainConfig
from headpose.data.prepared import PreparedSet
from headpose.data.sources import ImageSource
from headpose.training import Training

BATCH = 128


def first_step(data: PreparedSet, images: ImageSource, backbone: str, image_px: int) -> None:
    """A training, up to the end of its first step."""
    config = TrainConfig(
        backbone=backbone, image_px=image_px, batch_size=BATCH, rotate_deg=20.0, precision="bf16"
    )
    device, rows = torch.device("cuda"), np.arange(BATCH)
    Training(config, data, rows, data, rows[:1], device, (images, images))._train_epoch(1)


def main() -> None:
    arguments = parser(__doc__.split("\n")[0])
    arguments.add_argument("--data", type=Path, required=True, help="where faces are kept")
    arguments.add_argument("--pictures", type=int, default=8_192)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--alone", metavar="NETWORK", help="one first step, in this process")
    given = arguments.parse_args()
    if not torch.cuda.is_available():
        sys.stdout.write("skipped: there is no GPU here (torch.cuda.is_available() is False)\n")
        return
    data = faces.prepared(given.data, given.pictures, STORED_PX)
    images = ImageSource(data, torch.device("cuda"), "never" if given.alone else "auto")
    sizes = dict(GPU_CASES)
    if given.alone:
        first_step(data, images, given.alone, sizes[given.alone])
        return
    rows = []
    for backbone, image_px in GPU_CASES:
        first_step(data, images, backbone, image_px)
        warm_s, fresh_s = [], []
        for _ in range(given.rounds):
            began = time.perf_counter()
            gc.collect()  # as a worker does before a trial, with what the last one held
            torch.cuda.empty_cache()
            first_step(data, images, backbone, image_px)
            warm_s.append(time.perf_counter() - began)
            began = time.perf_counter()
            command = [sys.executable, "-m", "benchmarks.gpu_begin", "--data", str(given.data)]
            command += ["--pictures", str(given.pictures), "--alone", backbone]
            subprocess.run(command, check=True)
            fresh_s.append(time.perf_counter() - began)
        warm, fresh = statistics.median(warm_s), statistics.median(fresh_s)
        rows.append((backbone, f"{warm:.2f}", f"{fresh:.2f}", f"{fresh / warm:.0f}×"))
        print(rows[-1], flush=True)  # what there is, should time run out
    columns = ("network", "warm worker, s", "new process, s", "ratio")
    keep("gpu_begin", table(columns, rows), given)


if __name__ == "__main__":
    main()
