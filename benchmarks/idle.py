"""(c) Idle time between two trials, against plain Ray Tune with a function trainable.

Both train the same networks one after another on one (logical) GPU of one local cluster, in one
run. A wrapper around ``Training.run_epoch`` notes in both when an epoch begins and ends; idle is
the time from the end of a trial's last epoch, validation included, to the beginning of the next
one's first. Hopetune writes a checkpoint during each validation, which is no idle time here, and
waits for it afterwards, which is; plain Ray Tune is spared that.

    python -m benchmarks.idle --data /tmp/bench --keep epyc-2-cores
"""

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import faces
from benchmarks.report import keep, parser, table
from cluster.local.servers import down, up
from cluster.settings import Settings
from headpose.data.prepared import PreparedSet
from headpose.data.split import split_by_photo
from headpose.training import Training
from tuning.datasets import publish
from tuning.driver import drive
from tuning.objects import Objects
from tuning.space import Range
from tuning.spec import Budget, Data, Resources, Sampler, SearchSpec, Stopping

PLACE = "s3://hopetune/data/idle"
AIM_S = 0.5


def timed(log: Path) -> Callable[[], None]:
    """Makes the process that calls it note each epoch's number, beginning and end."""

    def install() -> None:
        original = Training.run_epoch
        if getattr(original, "is_timed", False):
            return

        def run_epoch(self: Training, epoch: int, *more: Any) -> Any:
            began = time.time()
            result = original(self, epoch, *more)
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{epoch} {began:.4f} {time.time():.4f}\n")
            return result

        run_epoch.is_timed = True  # type: ignore[attr-defined]
        Training.run_epoch = run_epoch  # type: ignore[assignment, method-assign]

    return install


def gaps_s(log: Path) -> list[float]:
    """Seconds between the trials of a log."""
    lines = [line.split() for line in log.read_text("utf-8").splitlines()]
    epochs = sorted((float(began), float(ended), int(number)) for number, began, ended in lines)
    return [after[0] - before[1] for before, after in itertools.pairwise(epochs) if after[2] == 1]


def ours(spec: SearchSpec, settings: Settings, log: Path) -> list[float]:
    """A search as ``hopetune run`` drives it."""
    import ray  # noqa: PLC0415 (reads its environment when imported)

    from tuning import ray_tune, ray_worker  # noqa: PLC0415

    install = timed(log)
    whole = ray_worker.HeadposeTrainable

    class Timed(whole):  # type: ignore[misc, valid-type]
        def setup(self, config: dict[str, Any]) -> None:
            install()
            super().setup(config)

    ray_tune.HeadposeTrainable = Timed  # type: ignore[attr-defined]
    try:
        drive(f"idle-{time.time_ns()}", spec, settings)
    finally:
        ray_tune.HeadposeTrainable = whole  # type: ignore[attr-defined]
        ray.shutdown()
    return gaps_s(log)


def plain(
    spec: SearchSpec, settings: Settings, folder: Path, log: Path, trials: int
) -> list[float]:
    """Ray Tune as its own guide shows it: a function that reports."""
    import ray  # noqa: PLC0415
    from ray import tune  # noqa: PLC0415

    from tuning import ray_nodes  # noqa: PLC0415

    ray_nodes.connect(settings.require("ray_address"), "plain")
    install = timed(log)

    def train(config: dict[str, Any]) -> None:
        install()
        torch.set_num_threads(1)
        data = PreparedSet.open(folder)
        rows = split_by_photo(data.photos, spec.data.validation_fraction, spec.data.split_seed)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        training = Training(spec.train_config(config), data, rows[0], data, rows[1], device)
        for epoch in range(1, spec.budget.epochs + 1):
            tune.report({"val_mae": training.run_epoch(epoch).val.mae})

    with tempfile.TemporaryDirectory() as scratch:
        tune.Tuner(
            tune.with_resources(train, {"cpu": 1, "gpu": 1}),
            param_space={"learning_rate": tune.loguniform(1e-5, 1e-3)},
            tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=1),
            run_config=tune.RunConfig(storage_path=scratch, verbose=0),
        ).fit()
    ray.shutdown()
    return gaps_s(log)


def spec_of(backbone: str, sampler: str, trials: int) -> SearchSpec:
    return SearchSpec(
        name="idle",
        data=Data(train=PLACE, validation_fraction=0.2),
        parameters={"learning_rate": Range(low=1e-5, high=1e-3, log=True)},
        fixed={"backbone": backbone, "image_px": 64, "batch_size": 16},
        sampler=Sampler(name=sampler, startup_trials=1, seed=time.time_ns() % 10**6),  # type: ignore[arg-type]
        stopping=Stopping(rule="none"),
        budget=Budget(trials=trials, epochs=2),
        resources=Resources(parallel_trials=1),
    )


def main() -> None:
    arguments = parser(__doc__.split("\n")[0])
    arguments.add_argument("--data", type=Path, required=True, help="where faces are kept")
    arguments.add_argument("--trials", type=int, default=6)
    arguments.add_argument(
        "--networks", nargs="*", default=["mobilenet_v2", "resnet18", "resnet50"]
    )
    given = arguments.parse_args()
    data = faces.prepared(given.data, 200, 80, 160)
    state = Path(tempfile.mkdtemp(prefix="idle-"))
    rows = []
    try:
        settings = up(state, logical_gpus=1)
        os.environ["HOPETUNE_STATE_DIR"] = str(state)
        settings.enter_environment()
        publish(data.folder, PLACE, Objects(settings))
        for backbone in given.networks:
            found = {}
            for sampler in ("random", "tpe", "gp-curves"):
                spec = spec_of(backbone, sampler, given.trials)
                name = f"Hopetune, {sampler} proposals"
                found[name] = ours(spec, settings, state / f"{backbone}-{sampler}.log")
            spec = spec_of(backbone, "random", given.trials)
            log = state / f"{backbone}-plain.log"
            found["plain Ray Tune"] = plain(spec, settings, data.folder, log, given.trials)
            usual = statistics.median(found["plain Ray Tune"])
            for name, gaps in found.items():
                middle = statistics.median(gaps)
                aim = "" if name.startswith("plain") else "met" if max(gaps) <= AIM_S else "missed"
                rows.append(
                    (
                        *(backbone, name, f"{middle:.2f}", f"{min(gaps):.2f} to {max(gaps):.2f}"),
                        *(f"{usual / middle:.0f}×", aim),
                    )
                )
    finally:
        down(state)
    columns = ("network", "way", "idle s, median", "range", "shorter", f"aim <= {AIM_S} s, all")
    keep("idle", table(columns, rows), given)


if __name__ == "__main__":
    main()
