"""What it brings that a worker keeps freed memory (``headpose/allocator.py``).

Training steps in a fresh process with and without, in turn; seconds of the process on one thread.

    python -m benchmarks.allocator --keep epyc-2-cores
"""

import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from benchmarks.report import keep, parser, table
from headpose.allocator import keep_freed_memory
from headpose.bins import Binning
from headpose.loss import headpose_loss
from headpose.networks.network import build_network

CASES = (("mobilenet_v2", 64), ("squeezenet1_1", 64), ("resnet18", 64), ("mobilenet_v2", 224))
BATCH, SECONDS = 32, 4.0


def measure(backbone: str, image_px: int, with_it: bool) -> None:
    """In a process of its own: milliseconds a step, page faults a step, peak MB, as JSON."""
    torch.set_num_threads(1)
    if with_it and not keep_freed_memory():
        raise SystemExit("this C library takes no such settings")
    binning = Binning(3.0)
    net = build_network(backbone, binning.count, seed=0).to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(net.parameters(), fused=True)
    seen = torch.randn(BATCH, 3, image_px, image_px).contiguous(memory_format=torch.channels_last)
    true_deg = torch.zeros(BATCH, 3)

    def step() -> None:
        adam.zero_grad(set_to_none=True)
        headpose_loss(net(seen), true_deg, binning, 1.0).backward()  # type: ignore[no-untyped-call]
        adam.step()

    for _ in range(3):
        step()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    began, steps = time.process_time(), 0
    while time.process_time() - began < SECONDS:
        step()
        steps += 1
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "ms": (time.process_time() - began) / steps * 1e3,
        "faults": (used.ru_minflt - faults) / steps,
        "mb": used.ru_maxrss / 1e3,
    }
    sys.stdout.write(json.dumps(found) + "\n")


def main() -> None:
    arguments = parser(__doc__.split("\n")[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--measure", nargs=3, help="one measurement, in this process")
    given = arguments.parse_args()
    if given.measure:
        measure(given.measure[0], int(given.measure[1]), given.measure[2] == "with")
        return
    rows = []
    for backbone, image_px in CASES:
        found: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
        for _ in range(given.rounds):
            for way, entries in found.items():
                command = [sys.executable, "-m", "benchmarks.allocator", "--measure"]
                command += [backbone, str(image_px), way]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                entries.append(json.loads(done.stdout))
        middle = {
            way: {name: statistics.median(entry[name] for entry in entries) for name in entries[0]}
            for way, entries in found.items()
        }
        before, after = middle["without"], middle["with"]
        rows.append(
            (
                *(backbone, image_px, f"{before['ms']:.1f}", f"{after['ms']:.1f}"),
                f"{before['ms'] / after['ms']:.2f}×",
                f"{before['faults']:,.0f} → {after['faults']:,.0f}",
                f"{before['mb']:,.0f} → {after['mb']:,.0f}",
            )
        )
    columns = ("network", "px", "ms a step", "with it", "faster", "page faults a step", "peak MB")
    keep("allocator", table(columns, rows), given)


if __name__ == "__main__":
    main()
