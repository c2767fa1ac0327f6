"""Training time of a search with MLflow away for all of it, against one with MLflow there.

Searches of the same shape alternate on one local cluster, in one run; each has a training seed of
its own, so none finds the checkpoints of another. Training time is that from the first to the last
report of an epoch, as the study has it. ``MLflow away`` is an address at which nobody listens.

    python -m benchmarks.mlflow_away --data /tmp/bench --keep epyc-2-cores
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import faces
from benchmarks.report import keep, parser, table
from cluster.local.servers import down, up
from cluster.settings import Settings
from tuning.datasets import publish
from tuning.objects import Objects
from tuning.storage import Storage

PLACE = "s3://hopetune/data/mlflow-away"
AIM = 1.05
NOBODY = "http://127.0.0.1:9"  # the port of the discard service, which nobody runs

SEARCH = """
name: mlflow-away
data: {{train: {place}, validation_fraction: 0.2}}
parameters: {{alpha: {{low: 0.01, high: 1.0, log: true}}}}
fixed: {{backbone: squeezenet1_1, image_px: 48, batch_size: 32, seed: {seed}}}
sampler: {{name: random, seed: 1}}
stopping: {{rule: none}}
budget: {{trials: {trials}, epochs: {epochs}}}
resources: {{parallel_trials: 1}}
"""


def search(
    settings: Settings, folder: Path, seed: int, *, away: bool, size: tuple[int, int]
) -> str:
    """Runs one search; returns its name."""
    name = f"{'away' if away else 'there'}-{seed}"
    file = folder / f"{name}.yaml"
    trials, epochs = size
    text = SEARCH.format(place=PLACE, seed=seed, trials=trials, epochs=epochs)
    file.write_text(text, encoding="utf-8")
    environment = os.environ | {"HOPETUNE_STATE_DIR": str(settings.state_dir)}
    if away:
        environment["HOPETUNE_MLFLOW_URI"] = NOBODY
    command = "from tuning.cli.main import main; main()"
    subprocess.run(
        [sys.executable, "-c", command, "run", str(file), "--name", name],
        env=environment,
        check=True,
        capture_output=True,
    )
    return name


def training_s(settings: Settings, name: str) -> float:
    """Seconds from the first to the last report of an epoch."""
    with Storage(settings.require("study_url")) as storage:
        trials = storage.open(name).record().trials
    reports = [epoch.at_ms for trial in trials for epoch in trial.epochs]
    if any(epoch.restored for trial in trials for epoch in trial.epochs):
        raise RuntimeError(f"{name} did not train all of its epochs")
    return (max(reports) - min(reports)) / 1000


def run(arguments: argparse.Namespace, settings: Settings, folder: Path) -> str:
    """The table of all searches, and their ratio."""
    size = arguments.trials, arguments.epochs
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for pair in range(arguments.pairs):
        # Whoever begins is the other one each time.
        for away in (False, True) if pair % 2 == 0 else (True, False):
            name = search(settings, folder, 2 * pair + away, away=away, size=size)
            seconds[away].append(training_s(settings, name))
    rows = [
        (
            "away" if away else "there",
            *(f"{s:.1f}" for s in found),
            f"{statistics.median(found):.1f}",
        )
        for away, found in seconds.items()
    ]
    ratio = statistics.median(seconds[True]) / statistics.median(seconds[False])
    columns = ("MLflow", *(f"search {i + 1}, s" for i in range(arguments.pairs)), "median, s")
    verdict = "met" if ratio <= AIM else "missed"
    return f"{table(columns, rows)}\n\nAway takes {ratio:.3f} of there; aim {AIM}: {verdict}."


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--data", type=Path, required=True, help="folder for made-up faces")
    options.add_argument("--images", type=int, default=600)
    options.add_argument("--pairs", type=int, default=3)
    options.add_argument("--trials", type=int, default=3)
    options.add_argument("--epochs", type=int, default=8)
    arguments = options.parse_args()
    data = faces.prepared(arguments.data, arguments.images, 60, 160)
    with tempfile.TemporaryDirectory(prefix="hopetune-mlflow-away-") as name:
        folder = Path(name)
        settings = up(folder / "state", logical_gpus=1)
        try:
            publish(data.folder, PLACE, Objects(settings))
            keep("mlflow_away", run(arguments, settings, folder), arguments)
        finally:
            down(folder / "state")


if __name__ == "__main__":
    main()
