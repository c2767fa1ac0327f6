"""What a search ends up as where nothing can happen to it: trained in this process, without Ray,
servers or checkpoints."""

from pathlib import Path

import torch

from headpose.data.prepared import PreparedSet
from headpose.data.split import split_by_photo
from headpose.training import Training
from tests.chaos.watching import Epoch, Trial
from tuning.spec import load_spec
from tuning.storage import Storage


def trained_alone(file: Path, folder: Path) -> list[Trial]:
    """The trials of a search file without early stopping, on the prepared set in ``folder``."""
    spec = load_spec(file)
    data = PreparedSet.open(folder)
    study = Storage.in_memory().create("alone", spec, data.fingerprint)
    rows = split_by_photo(data.photos, spec.data.validation_fraction, spec.data.split_seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(int(spec.resources.cpus_per_trial))  # sums depend on it
    try:
        found = []
        for _ in range(spec.budget.trials):
            asked = study.ask()
            assert asked is not None
            number, parameters = asked
            config = spec.train_config(parameters)
            training = Training(config, data, rows[0], data, rows[1], torch.device("cpu"))
            epochs = {e: _epoch(training, e) for e in range(1, spec.budget.epochs + 1)}
            found.append(_trial(number, dict(parameters), epochs))
        return found
    finally:
        torch.set_num_threads(threads)


def _epoch(training: Training, epoch: int) -> Epoch:
    result = training.run_epoch(epoch)
    metrics = {**result.val.as_dict("val_"), "train_loss": result.train_loss}
    return Epoch(0.0, {**metrics, "val_mae": result.val.mae}, "", restored=False)


def _trial(number: int, parameters: dict[str, object], epochs: dict[int, Epoch]) -> Trial:
    curve = {n: epoch.metrics["val_mae"] for n, epoch in epochs.items()}
    best = min(curve.values())
    return Trial(number, parameters, "COMPLETE", best, "completed", set(), epochs, curve)
