"""Hopetune's default against plain Ray Tune on real trainings, at equal epochs.

Synthetic faces, light networks, one worker. Both searchers drive the same trainings:
``OptunaSearch`` and ``ASHAScheduler`` are Ray's own classes with their defaults, called as Ray Tune
calls them (``benchmarks/contestants.py::PlainRay``); Hopetune's study lies in memory. What counts
is the lowest validation MAE that was seen when the epochs were spent.

    python -m benchmarks.real_search --folder /tmp/real --write benchmarks/results

One search after the other, each kept a line in ``FOLDER/runs.jsonl``: started again, it goes on.
"""

import argparse
import json
import math
import platform
import statistics
import sys
import time
import warnings
from datetime import date
from pathlib import Path

import torch

from benchmarks.contestants import PlainRay
from benchmarks.report import commit
from headpose.config import TrainConfig
from headpose.data.manifest import PrepareSettings
from headpose.data.prepared import PreparedSet, prepare
from headpose.data.sources import ImageSource
from headpose.data.split import split_by_photo
from headpose.data.synthetic import synthesize
from headpose.training import Training
from tuning.conductor import Conductor
from tuning.events import SearchEvents, Work
from tuning.grid import Configuration, configuration
from tuning.records import EpochRecord
from tuning.simulation.clock import VirtualClock
from tuning.simulation.simulator import Silent
from tuning.space import Choices, Parameter, Range, Settings
from tuning.spec import Budget, Data, Sampler, SearchSpec
from tuning.storage import Storage
from tuning.storing import AtOnce

EPOCHS = 9  # of a whole trial; untuned
SPACE: dict[str, Parameter] = {
    "alpha": Range(low=0.005, high=0.5, log=True),
    "bin_width": Choices(choices=(3.0, 6.0, 11.0)),
    "learning_rate": Range(low=1e-4, high=1e-2, log=True),
    "decay_rate": Range(low=0.5, high=1.0),
    "unfreeze_epoch": Range(low=0, high=3),
    "backbone": Choices(choices=("resnet18", "mobilenet_v2", "squeezenet1_1")),
}
FIXED: Settings = {"image_px": 32, "batch_size": 32, "head_learning_rate_factor": 2.0}
METHODS = ("Hopetune: default", "Ray: OptunaSearch + ASHAScheduler")


class Trainings:
    """Real trainings that go on where they were left."""

    def __init__(self, data: PreparedSet) -> None:
        self._data, self._device = data, torch.device("cpu")
        self._images = ImageSource(data, self._device)
        self._split = split_by_photo(data.photos, 0.2, 0)
        self._left: dict[Configuration, tuple[list[float], Training]] = {}

    def begun(self, settings: Settings) -> tuple[list[float], Training]:
        """The errors (degrees) of the epochs that are trained already, and the training."""
        key = configuration(settings)
        if key not in self._left:
            train, validation = self._split
            config = TrainConfig(**{**FIXED, **settings})  # type: ignore[arg-type]
            sources = (self._images, self._images)
            made = Training(
                config, self._data, train, self._data, validation, self._device, sources
            )
            self._left[key] = ([], made)
        return self._left[key]


def events_of(method: str, seed: int, clock: VirtualClock) -> SearchEvents:
    if method.startswith("Ray"):
        return PlainRay(SPACE, EPOCHS, seed)
    spec = SearchSpec(
        name="real",
        data=Data(train="real"),
        parameters=SPACE,
        fixed=FIXED,
        sampler=Sampler(seed=seed),
        budget=Budget(trials=1_000_000, epochs=EPOCHS),
    )
    study = Storage.in_memory().create(spec.name, spec, "real", clock)
    return Conductor(study, Silent(), AtOnce(), clock)


def run(method: str, seed: int, data: PreparedSet, budget: int) -> dict[str, object]:
    """One search: trains until ``budget`` epochs are spent."""
    clock, trainings = VirtualClock(), Trainings(data)
    events = events_of(method, seed, clock)
    began, spent, trials, best = time.perf_counter(), 0, 0, math.inf
    best_after: dict[int, float] = {}
    while spent < budget:
        work = events.next_trial()
        if not isinstance(work, Work):
            break
        trials += 1
        known, training = trainings.begun(work.parameters)
        goes_on, epoch = True, 0
        while goes_on and (epoch < len(known) or spent < budget):
            epoch += 1
            restored = epoch <= len(known)
            if not restored:
                result = training.run_epoch(epoch)
                known.append(result.val.mae if math.isfinite(result.train_loss) else math.nan)
                spent += 1
                clock.move_to(clock() + round(1000 * result.seconds))
                best = min(best, known[-1]) if math.isfinite(known[-1]) else best
                best_after[spent] = best
            metrics = {"val_mae": known[epoch - 1], "epoch_seconds": 1.0}
            record = EpochRecord(epoch, clock(), metrics, "kept in memory", restored)
            goes_on = events.on_epoch(work.number, work.attempt, record)
    return {
        "method": method,
        "seed": seed,
        "budget": budget,
        "best_mae_deg": best,
        "best_after": best_after,
        "stretches": trials,
        "seconds": round(time.perf_counter() - began, 1),
    }


def faces(folder: Path, images: int) -> PreparedSet:
    """A prepared set of synthetic faces; made once."""
    target = folder / f"prepared-{images}"
    if not target.exists():
        source = folder / f"faces-{images}"
        synthesize(source, train_images=images, test_images=10, size_px=96, seed=11)
        settings = PrepareSettings(stored_px=40, policy="visible-landmarks")
        prepare("300w-lp", source / "300W_LP", target, settings)
    return PreparedSet.open(target)


def table(rows: list[dict[str, object]]) -> str:
    """Markdown: best validation MAE of each seed and their mean."""
    seeds = sorted({int(str(r["seed"])) for r in rows})
    head = ["method", *(f"seed {s}" for s in seeds), "mean", "mean at half", "stretches", "seconds"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for method in METHODS:
        own = {int(str(r["seed"])): r for r in rows if r["method"] == method}
        if not own:
            continue
        best = [float(str(r["best_mae_deg"])) for r in own.values()]
        half = [_at_half(r) for r in own.values()]
        cells = [method, *(f"{float(str(own[s]['best_mae_deg'])):.3f}°" for s in seeds if s in own)]
        cells += [f"{statistics.mean(best):.3f}°", f"{statistics.mean(half):.3f}°"]
        cells += [
            f"{statistics.mean(float(str(r[n])) for r in own.values()):.0f}" for n in head[-2:]
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _at_half(row: dict[str, object]) -> float:
    after = {int(k): float(v) for k, v in row["best_after"].items()}  # type: ignore[attr-defined]
    return after[max(e for e in after if e <= max(1, int(str(row["budget"])) // 2))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="faces and finished runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=150, help="of each search")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--write", type=Path, help="folder for the table")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    data = faces(options.folder, options.images)
    cache = options.folder / "runs.jsonl"
    rows = [json.loads(line) for line in cache.read_text().splitlines()] if cache.exists() else []
    for seed in range(options.seeds):
        for method in METHODS:
            wanted = (method, seed, options.epochs)
            if any((r["method"], r["seed"], r["budget"]) == wanted for r in rows):
                continue
            row = run(method, seed, data, options.epochs)
            rows.append(json.loads(json.dumps(row)))
            with cache.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{method}, seed {seed}: {row['best_mae_deg']:.3f}° in {row['seconds']} s")
    rows = [r for r in rows if r["budget"] == options.epochs]
    text = table(rows)
    print(text)
    if options.write:
        print(_write(text, options))


def _write(text: str, options: argparse.Namespace) -> Path:
    path: Path = options.write / f"real_search_{platform.machine()}-cpu_{date.today()}.md"
    path.write_text(
        "# Real trainings: Hopetune's default against plain Ray Tune with Optuna and ASHA\n\n"
        f"{options.images} synthetic faces (a fifth for validation), 32 px, trials of {EPOCHS} "
        f"epochs, {options.epochs} epochs for each search, one worker on one core. The lowest "
        "validation MAE of each search:\n\n"
        f"{text}\n\nCommand: `python -m benchmarks.real_search {' '.join(sys.argv[1:])}`\n"
        f"Commit: {commit()}\n",
        encoding="utf-8",
    )
    return path


if __name__ == "__main__":
    main()
