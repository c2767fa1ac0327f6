"""(d) Memory of a node whose trials share one prepared set.

Each trial is a process that opens the set, has its images gathered batch by batch, all of them, and
stays. Memory is proportional set size (/proc/PID/smaps_rollup and smaps): a page that n processes
share counts 1/n in each, so the sum over processes is what they take together. "without the set" is
the same process with an empty set's worth of pages touched.

    python -m benchmarks.shared_pages --data /tmp/bench --gigabytes 3 --keep epyc-2-cores
"""

import hashlib
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import keep, parser, table
from headpose.data.manifest import (
    ANGLES_FILE,
    DATA_FILES,
    IMAGES_FILE,
    MANIFEST_FILE,
    NAMES_FILE,
    Manifest,
    PrepareSettings,
)
from headpose.data.prepared import PreparedSet, is_prepared
from headpose.data.sources import ImageSource

STORED_PX, BATCH = 280, 64
AIM = 0.10


def large_set(root: Path, gigabytes: float) -> Path:
    """A valid prepared set of noise, as large as asked for."""
    count = int(gigabytes * 1e9 / (STORED_PX**2 * 3))
    folder = root / f"noise-{count}"
    if is_prepared(folder):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    shape = (count, STORED_PX, STORED_PX, 3)
    images = np.lib.format.open_memmap(folder / IMAGES_FILE, "w+", np.uint8, shape)
    for start in range(0, count, 500):
        images[start : start + 500] = rng.integers(0, 256, images[start : start + 500].shape)
    images.flush()
    np.save(folder / ANGLES_FILE, rng.uniform(-60, 60, (count, 3)).astype(np.float32))
    names = [f'"{number}"' for number in range(count)]
    listed = ", ".join(names)
    (folder / NAMES_FILE).write_text(f'{{"names": [{listed}], "photos": [{listed}]}}\n')
    files = {}
    for name in DATA_FILES:
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[name] = {"sha256": digest, "bytes": (folder / name).stat().st_size}
    settings = PrepareSettings(stored_px=STORED_PX)
    manifest = Manifest("300w-lp", settings, count, (), files, {"yaw": (0.0, 0.0, 0.0)})
    (folder / MANIFEST_FILE).write_text(manifest.to_json())
    return folder


def trial(folder: Path, channel: Connection, share: float) -> None:
    """Looks at every image once, as an epoch does, and waits."""
    torch.set_num_threads(1)
    data = PreparedSet.open(folder)
    source = ImageSource(data, torch.device("cpu"))
    for start in range(0, int(share * len(data)), BATCH):
        rows = torch.arange(start, min(start + BATCH, len(data)))
        source.batch(rows).sum()
    channel.send("seen")
    channel.recv()


def memory_of(pid: int, file: Path) -> tuple[float, float]:
    """PSS in MB: of the whole process, and of the images' file in it."""
    total = 0.0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            total = int(line.split()[1]) / 1e3 * 1.024
    of_file, inside = 0.0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split()[0] and ":" not in line.split()[0]:
            inside = str(file) in line
        elif inside and line.startswith("Pss:"):
            of_file += int(line.split()[1]) / 1e3 * 1.024
    return total, of_file


def together(folder: Path, trials: int, share: float = 1.0) -> tuple[float, float]:
    """MB of so many trials at once: all they take, and what of it is the images."""
    context = multiprocessing.get_context("spawn")
    running = []
    for _ in range(trials):
        ours, theirs = context.Pipe()
        process = context.Process(target=trial, args=(folder, theirs, share))
        process.start()
        running.append((process, ours))
    for _, channel in running:
        channel.recv()
    found = [memory_of(process.pid or 0, folder / IMAGES_FILE) for process, _ in running]
    for process, channel in running:
        channel.send("end")
        process.join()
    return sum(total for total, _ in found), sum(of_file for _, of_file in found)


def main() -> None:
    arguments = parser(__doc__.split("\n")[0])
    arguments.add_argument("--data", type=Path, required=True, help="where the set is kept")
    arguments.add_argument("--gigabytes", type=float, default=3.0)
    given = arguments.parse_args()
    folder = large_set(given.data, given.gigabytes)
    set_mb = (folder / IMAGES_FILE).stat().st_size / 1e6
    bare, _ = together(folder, 1, share=0.0)
    rows, before, first = [], 0.0, 0.0
    before_trials = 0
    for trials in (1, 2, 4):
        total, of_set = together(folder, trials)
        growth = (total - before) / (trials - before_trials) / set_mb if before_trials else None
        set_growth = (of_set - first) / (trials - before_trials) / set_mb if before_trials else None
        aim = "" if growth is None else "met" if growth < AIM else "missed"
        rows.append(
            (
                *(trials, f"{total:,.0f}", f"{of_set:,.0f}"),
                "" if growth is None else f"{growth:.1%}",
                "" if set_growth is None else f"{set_growth:.1%}",
                aim,
            )
        )
        before, first, before_trials = total, of_set, trials
    columns = (
        *("trials", "all memory, MB", "of it images, MB"),
        *("growth a further trial, of the set", "of the images alone", "aim < 10%"),
    )
    text = table(columns, rows)
    text += f"\n\nThe set: {set_mb:,.0f} MB. A trial's process without the set: {bare:,.0f} MB."
    keep("shared_pages", text, given)


if __name__ == "__main__":
    main()
