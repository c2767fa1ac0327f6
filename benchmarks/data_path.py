"""(b) The data path against a per-image PIL pipeline as the published trainers have it, per core.

Three rows: what a core does where a GPU renders (gathering rows of the mapped set into a batch);
gathering and rendering on the core itself; and the PIL pipeline. Rounds alternate; seconds of the
process on one thread.

    python -m benchmarks.data_path --data /tmp/bench --keep epyc-2-cores
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import faces
from benchmarks.pil_pipeline import PilDataset
from benchmarks.report import keep, parser, table
from headpose.allocator import keep_freed_memory
from headpose.data.augment import Augmentation, draw_views
from headpose.data.prepared import PreparedSet
from headpose.data.render import render
from headpose.data.sources import ImageSource

BATCH = 32
AIM = 20.0


def ours(data: PreparedSet, image_px: int, *, rendered: bool) -> Callable[[int], None]:
    """Batches of the prepared set."""
    source, generator = ImageSource(data, torch.device("cpu")), torch.Generator().manual_seed(0)
    augmentation = Augmentation(flip=0.5, blur=0.05, rotate_deg=20.0, crop_jitter=0.05)
    true_deg = torch.from_numpy(np.array(data.angles_deg))

    def run(images: int) -> None:
        order = torch.randint(len(data), (images,), generator=generator)
        views = draw_views(true_deg[order], data.view_fraction, augmentation, generator)
        for start in range(0, images, BATCH):
            part = slice(start, start + BATCH)
            batch = source.batch(order[part])
            if rendered:
                render(batch, views.of(part), image_px)

    return run


def published(root: Path, image_px: int) -> Callable[[int], None]:
    """Batches of the PIL pipeline, in this process."""
    dataset = PilDataset(root, image_px)
    batches = dataset.batches(BATCH, workers=0)

    def run(images: int) -> None:
        nonlocal batches
        for _ in range(images // BATCH):
            if next(batches, None) is None:
                batches = dataset.batches(BATCH, workers=0)
                next(batches)

    return run


def main() -> None:
    arguments = parser(__doc__.split("\n")[0])
    arguments.add_argument("--data", type=Path, required=True, help="where faces are kept")
    arguments.add_argument("--images", type=int, default=400)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for image_px in (64, 224):
        data = faces.prepared(given.data, given.images, image_px * 5 // 4)
        ways = {
            "PIL pipeline": (published(faces.pictures(given.data, given.images), image_px), 64),
            "gather, for a GPU that renders": (ours(data, image_px, rendered=False), 2048),
            "gather and render on the core": (ours(data, image_px, rendered=True), 512),
        }
        pace: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(given.rounds + 1):
            for name, (run, images) in ways.items():
                began = time.process_time()
                run(images)
                if number:  # the first round warms up
                    pace[name].append(images / (time.process_time() - began))
        pil = statistics.median(pace["PIL pipeline"])
        for name, values in pace.items():
            middle = statistics.median(values)
            times = middle / pil
            aim = "" if name == "PIL pipeline" else "met" if times >= AIM else "missed"
            spread = f"{min(values):.0f} to {max(values):.0f}"
            rows.append((image_px, name, f"{middle:.0f}", spread, f"{times:.1f}×", aim))
    columns = ("px", "way", "images/s a core", "rounds", "against PIL", f"aim {AIM:g}×")
    keep("data_path", table(columns, rows), given)


if __name__ == "__main__":
    main()
