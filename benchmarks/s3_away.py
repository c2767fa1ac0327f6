"""A search whose S3 server hangs for three minutes in the middle.

The server is stopped by SIGSTOP once every worker has trained an epoch, and goes on by SIGCONT. A
worker's wait is the time from one report of an epoch to the next on the same worker, less the
seconds that the epoch took; trials follow one another on it.

    python -m benchmarks.s3_away --data /tmp/bench --keep epyc-2-cores
"""

import argparse
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import faces
from benchmarks.report import keep, parser, table
from cluster.local.servers import down, status, up
from cluster.settings import Settings
from tuning.datasets import publish
from tuning.objects import Objects
from tuning.records import SearchRecord, TrialRecord
from tuning.storage import Storage

PLACE, NAME, WORKERS = "s3://hopetune/data/s3-away", "s3-away", 2
SEARCH = """
name: s3-away
data: {{train: {place}, validation_fraction: 0.2}}
parameters: {{alpha: {{low: 0.01, high: 1.0, log: true}}}}
fixed: {{backbone: mobilenet_v2, image_px: 64, batch_size: 32}}
sampler: {{name: random, seed: 1}}
stopping: {{rule: none}}
budget: {{trials: {trials}, epochs: {epochs}}}
resources: {{parallel_trials: 2, cpus_per_trial: 1}}
"""


def recorded(settings: Settings) -> SearchRecord | None:
    """The search as the study has it now."""
    with Storage(settings.require("study_url")) as storage:
        return storage.open(NAME).record() if NAME in storage.names() else None


def hang(settings: Settings, state: Path, seconds: float) -> tuple[float, float]:
    """Stops the S3 server for a while once all workers are at work; from when to when."""
    while (found := recorded(settings)) is None or len(
        [t for t in found.trials if t.epochs]
    ) < WORKERS:
        time.sleep(1.0)
    pid = next(server.pid for server in status(state) if server.name == "s3")
    if pid is None:
        raise RuntimeError("the S3 server does not run")
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in family:
        process.send_signal(signal.SIGSTOP)
    began = time.time()
    time.sleep(seconds)
    for process in family:
        process.send_signal(signal.SIGCONT)
    return began, time.time()


def waits(trials: tuple[TrialRecord, ...]) -> list[tuple[float, float]]:
    """When each wait of a worker ended, and how long it was; seconds."""
    by_worker: dict[int, list[tuple[float, float]]] = {}
    for trial in trials:
        pid = trial.attempts[-1].pid if trial.attempts else None
        for epoch in trial.epochs:
            report = epoch.at_ms / 1000, epoch.metrics["epoch_seconds"]
            by_worker.setdefault(pid or -1, []).append(report)
    found = []
    for reports in by_worker.values():
        reports.sort()
        for (before, _), (at, took) in itertools.pairwise(reports):
            found.append((at, max(0.0, at - before - took)))
    return found


def run(arguments: argparse.Namespace, settings: Settings, folder: Path) -> str:
    """The table of the search with its outage."""
    file = folder / "search.yaml"
    text = SEARCH.format(place=PLACE, trials=arguments.trials, epochs=arguments.epochs)
    file.write_text(text, encoding="utf-8")
    command = "from tuning.cli.main import main; main()"
    driver = subprocess.Popen(
        [sys.executable, "-c", command, "run", str(file), "--name", NAME],
        env=os.environ | {"HOPETUNE_STATE_DIR": str(settings.state_dir)},
        stdout=subprocess.DEVNULL,
    )
    began, ended = hang(settings, folder / "state", arguments.seconds)
    code = driver.wait()
    search = recorded(settings)
    if search is None:
        raise RuntimeError("the search is gone")
    epochs_s = [e.metrics["epoch_seconds"] for t in search.trials for e in t.epochs]
    usual_s = statistics.median(epochs_s)
    gaps = waits(search.trials)
    during = [gap for at, gap in gaps if began < at < ended + max(epochs_s)]
    other = [gap for at, gap in gaps if not began < at < ended + max(epochs_s)]
    reports = sum(began < e.at_ms / 1000 < ended for t in search.trials for e in t.epochs)
    row = (
        f"{ended - began:.0f}",
        f"{search.count('COMPLETE')} of {arguments.trials}",
        sum(len(t.attempts) > 1 for t in search.trials),
        reports,
        f"{usual_s:.1f}",
        f"{max(during, default=0.0):.1f}",
        f"{max(other, default=0.0):.1f}",
    )
    is_met = search.count("COMPLETE") == arguments.trials and max(during) <= usual_s
    columns = (
        *("S3 away, s", "trials complete", "tried again", "epochs reported meanwhile"),
        *("an epoch (median), s", "longest wait of a worker, s", "longest wait at other times, s"),
    )
    verdict = "met" if is_met and code == 0 else "missed"
    aim = "no trial fails, no worker waits longer than an epoch"
    return f"{table(columns, [row])}\n\nAim: {aim}: {verdict}."


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--data", type=Path, required=True, help="folder for made-up faces")
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--trials", type=int, default=6)
    options.add_argument("--epochs", type=int, default=6)
    options.add_argument("--seconds", type=float, default=180.0)
    arguments = options.parse_args()
    data = faces.prepared(arguments.data, arguments.images, 80, 160)
    with tempfile.TemporaryDirectory(prefix="hopetune-s3-away-") as name:
        folder = Path(name)
        settings = up(folder / "state", logical_gpus=WORKERS)
        try:
            publish(data.folder, PLACE, Objects(settings))
            keep("s3_away", run(arguments, settings, folder), arguments)
        finally:
            down(folder / "state")


if __name__ == "__main__":
    main()
