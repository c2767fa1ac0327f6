"""The search that every fault meets: tiny, and with a result that no timing can change.

Random proposals with seeds and no early stopping: what is proposed and how long it is trained
depends on nothing that a fault moves. Training on a CPU is bit-exact.
"""

from dataclasses import dataclass
from pathlib import Path

from headpose.data.manifest import PrepareSettings
from headpose.data.prepared import prepare
from tests.headpose.faces import write_300w_lp
from tuning.datasets import publish
from tuning.objects import Objects

PLACE = "s3://hopetune/data/chaos"

_FILE = """
name: chaos
data: {{train: {place}, validation_fraction: 0.2}}
parameters:
  alpha: {{low: 0.01, high: 1.0, log: true}}
  learning_rate: {{low: 1.0e-4, high: 3.0e-3, log: true}}
fixed: {{backbone: squeezenet1_1, image_px: 32, batch_size: 16}}
sampler: {{name: random, seed: 4}}
stopping: {{rule: none}}
budget: {{trials: {trials}, epochs: {epochs}}}
resources: {{parallel_trials: 2, retries: 50, stall_retries: 50, {patience}}}
"""
# 50 retries: dozens of faults may hit one trial, and giving it up is not what is asked here.
# Epochs take a second or two: the defaults would wait ten minutes for a frozen one.
_PATIENCE = "stall_minutes: 0.4, start_minutes: 4"


@dataclass(frozen=True)
class Size:
    """How long a search is, and an epoch of it."""

    faces: int
    trials: int
    epochs: int


SHORT = Size(faces=40, trials=3, epochs=4)
LONG = Size(faces=40, trials=8, epochs=8)


def publish_faces(folder: Path, size: Size, objects: Objects) -> None:
    """Tiny faces, prepared and stored where the search file looks for them."""
    write_300w_lp(folder / "set", faces=size.faces, variants=4)
    prepare("300w-lp", folder / "set", folder / "prepared", PrepareSettings(stored_px=40))
    publish(folder / "prepared", PLACE, objects)


def write_file(path: Path, size: Size) -> Path:
    """The search file."""
    sizes = {"trials": size.trials, "epochs": size.epochs}
    path.write_text(_FILE.format(place=PLACE, patience=_PATIENCE, **sizes), "utf-8")
    return path
