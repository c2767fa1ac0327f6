"""(e) How fast a set is prepared, and after how many epochs that has paid for itself.

Pictures of genuine size (450 px) to stored crops of 280 px, with one thread and with one a core;
beside it what the per-image PIL pipeline takes for each epoch on one core.

    python -m benchmarks.preparation --data /tmp/bench --keep epyc-2-cores
"""

import os
import shutil
import time
from pathlib import Path

import torch

from benchmarks import faces
from benchmarks.pil_pipeline import PilDataset
from benchmarks.report import keep, parser, table
from headpose.data.manifest import PrepareSettings
from headpose.data.prepared import prepare

FULL_SET = 122_450  # 300W-LP with its flipped twins
BATCH = 32


def main() -> None:
    arguments = parser(__doc__.split("\n")[0])
    arguments.add_argument("--data", type=Path, required=True, help="where faces are kept")
    arguments.add_argument("--images", type=int, default=400)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    source = faces.pictures(given.data, given.images)
    target = given.data / "preparation"
    rows = []
    cores = len(os.sched_getaffinity(0))
    for workers in sorted({1, cores}):
        shutil.rmtree(target, ignore_errors=True)
        began, processor = time.perf_counter(), time.process_time()
        count = prepare("300w-lp", source, target, PrepareSettings(), workers=workers).count
        wall, used = time.perf_counter() - began, time.process_time() - processor
        minutes = FULL_SET * wall / count / 60
        rows.append(
            (
                *(f"prepare, threads: {workers}", f"{count / wall:.0f}", f"{count / used:.0f}"),
                f"{minutes:.1f} min once",
            )
        )
        once = used / count
    shutil.rmtree(target)
    began, processor, seen = time.perf_counter(), time.process_time(), 0
    for batch in PilDataset(source, 224).batches(BATCH, workers=0):
        seen += len(batch[0])
    wall, used = time.perf_counter() - began, time.process_time() - processor
    rows.append(
        (
            *("PIL pipeline, one process", f"{seen / wall:.0f}", f"{seen / used:.0f}"),
            f"{FULL_SET * wall / seen / 60:.1f} min each epoch",
        )
    )
    columns = ("way", "pictures/s", "pictures/s a core", "all of 300W-LP (122,450)")
    text = table(columns, rows)
    text += f"\n\nPaid for after {once / (used / seen):.2f} epochs of the PIL pipeline."
    keep("preparation", text, given)


if __name__ == "__main__":
    main()
