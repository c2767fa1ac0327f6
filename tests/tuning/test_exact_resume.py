"""A trial that is interrupted after every epoch equals an uninterrupted one, bit for bit.

For every architecture, across the unfreezing of the stem, with dropout, batch normalisation, every
augmentation and a decaying rate; through the spool and the store, as in a worker.
"""

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from headpose.config import TrainConfig
from headpose.data.manifest import PrepareSettings
from headpose.data.prepared import PreparedSet, prepare
from tuning.checkpoints import CheckpointStore
from tuning.objects import Place
from tuning.spool import Spool
from tuning.trial import EpochReport, TrialPlan, train_trial

sys.path.insert(0, str(Path(__file__).parents[1] / "headpose"))
from faces import write_300w_lp
from memory_objects import MemoryObjects

ROOT = Place("bucket", "checkpoints")
EPOCHS, FROZEN = 3, 1
LIGHT = ("squeezenet1_1", "mobilenet_v2")
HEAVY = (
    "squeezenet1_0",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "inception_v4",
)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    root = tmp_path_factory.mktemp("faces")
    write_300w_lp(root / "source", faces=7, variants=2)
    prepare("300w-lp", root / "source", root / "set", PrepareSettings(stored_px=96))
    return PreparedSet.open(root / "set")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plan_of(backbone: str) -> TrialPlan:
    config = TrainConfig(
        backbone=backbone,
        batch_size=4,
        image_px=75 if backbone == "inception_v4" else 32,  # the least that it takes
        learning_rate=1e-3,
        decay_rate=0.9,
        unfreeze_epoch=FROZEN,
        second_learning_rate=5e-4,
        weight_decay=1e-3,
        rotate_deg=15.0,
        rotate_share=0.7,
        blur=0.3,
        bin_width=6.0,
    )
    return TrialPlan(config, EPOCHS, validation_fraction=0.3, split_seed=0)


def timeless(report: EpochReport) -> dict[str, float]:
    return {n: v for n, v in report.metrics.items() if "second" not in n}


def trained(
    plan: TrialPlan,
    faces: PreparedSet,
    folder: Path,
    *,
    interrupted: bool,
    between: Callable[[MemoryObjects], None] = lambda _objects: None,
) -> tuple[list[dict[str, float]], dict[str, dict[str, str]], set[str]]:
    """Metrics of all epochs; of each stored state the sha256 of every tensor, by name; and the
    names of tensors that differ between the first and the last state."""
    objects = MemoryObjects()
    reports: dict[int, EpochReport] = {}
    while len(reports) < plan.epochs:
        store = CheckpointStore(objects, ROOT, Spool(folder, 10**11))  # type: ignore[arg-type]
        trial = train_trial(plan, faces, store, torch.device("cpu"))
        for report in trial:
            if report.epoch in reports:  # taken from the store, or trained again
                assert timeless(report) == timeless(reports[report.epoch])
            else:
                assert not report.restored
                reports[report.epoch] = report
                torch.rand(3)  # whoever shares the process may use the global generator
                if interrupted:
                    break
        trial.close()
        assert store.flush(100)
        store.close()
        between(objects)
    sums: dict[str, dict[str, str]] = {}
    for report in reports.values():
        sums[report.checkpoint_key] = {}
        for part in ("weights", "optimiser"):
            prefix = f"checkpoints/{report.checkpoint_key}/{part}-"
            found = [c for key, c in objects.contents.items() if key.startswith(prefix)]
            for name, value in safetensors.torch.load(found[0]).items() if found else ():
                data = hashlib.sha256(value.numpy().tobytes()).hexdigest()
                sums[report.checkpoint_key][f"{part} {name}"] = f"{tuple(value.shape)} {data}"
    first, *_, last = sums.values()
    changed = {name for name in first if first[name] != last.get(name)}
    return [timeless(reports[epoch]) for epoch in sorted(reports)], sums, changed


def check(backbone: str, faces: PreparedSet, folder: Path) -> None:
    plan = plan_of(backbone)
    metrics, sums, changed = trained(plan, faces, folder / "whole", interrupted=False)
    again = trained(plan, faces, folder / "parts", interrupted=True)
    assert again[0] == metrics
    assert list(again[1]) == list(sums)
    for key, state in sums.items():
        assert again[1][key] == state, key
    frozen, *_, last = sums.values()
    stem = set(last) - set(frozen)
    assert stem, "Adam has averages of the stem only once it learns"
    assert len(changed) > len(stem)


def test_going_on_beyond_collected_states_equals_never_having_stopped(
    faces: PreparedSet, tmp_path: Path
) -> None:
    plan = plan_of("squeezenet1_1")
    metrics, sums, _ = trained(plan, faces, tmp_path / "whole", interrupted=False)

    def collect(objects: MemoryObjects) -> None:
        """As a collection does, though of all but the last epoch's state."""
        last = f"{list(sums)[-1]}/"
        for key in list(objects.contents):
            if not key.endswith("manifest.json") and last not in key:
                del objects.contents[key]

    again = trained(plan, faces, tmp_path / "parts", interrupted=True, between=collect)
    assert again[0] == metrics
    assert list(again[1].values())[-1] == list(sums.values())[-1]
    assert not all(again[1].values())


def test_a_trial_whose_best_weights_are_gone_brings_them_back_before_its_last_report(
    faces: PreparedSet, tmp_path: Path
) -> None:
    plan, objects = plan_of("squeezenet1_1"), MemoryObjects()
    seen: list[tuple[int, bool]] = []

    def run() -> list[EpochReport]:
        store = CheckpointStore(objects, ROOT, Spool(tmp_path, 10**11))  # type: ignore[arg-type]
        reports = []
        for report in train_trial(plan, faces, store, torch.device("cpu")):
            reports.append(report)
            if report.epoch == plan.epochs:
                break  # as a worker does: nobody asks for more
        assert store.flush(100)
        store.close()
        seen[:] = [(report.epoch, report.restored) for report in reports]
        return reports

    first = run()
    whole = dict(objects.contents)
    assert run()[-1].restored
    assert seen == [(1, True), (2, True), (3, True)]
    best = min(first, key=lambda r: r.metrics["val_mae"])
    weights = [key for key in objects.contents if f"{best.checkpoint_key}/weights-" in key]
    for key in list(objects.contents):
        if not key.endswith("manifest.json"):
            del objects.contents[key]
    run()
    trained = [(epoch, False) for epoch in range(1, min(best.epoch, plan.epochs - 1) + 1)]
    assert seen == [(1, True), (2, True), *trained, (3, True)]
    assert objects.contents[weights[0]] == whole[weights[0]]


def test_epochs_of_which_only_the_figures_are_left_are_stored_again_as_they_are_trained(
    faces: PreparedSet, tmp_path: Path
) -> None:
    """Else a trial that is often interrupted would begin at its first epoch each time."""
    plan, objects = plan_of("squeezenet1_1"), MemoryObjects()

    def run(until: int) -> list[tuple[int, bool]]:
        store = CheckpointStore(objects, ROOT, Spool(tmp_path, 10**11))  # type: ignore[arg-type]
        seen = []
        for report in train_trial(plan, faces, store, torch.device("cpu")):
            seen.append((report.epoch, report.restored))
            if seen[-1] == (until, False):
                break
        assert store.flush(100)
        store.close()
        return seen

    known = [(1, True), (2, True)]
    assert run(until=2) == [(1, False), (2, False)]
    for key in list(objects.contents):
        if not key.endswith("manifest.json"):
            del objects.contents[key]
    assert run(until=1) == [*known, (1, False)]
    assert run(until=2) == [*known, (2, False)]
    assert run(until=3) == [*known, (3, False)]


@pytest.mark.parametrize("backbone", LIGHT)
def test_interrupted_equals_uninterrupted(
    backbone: str, faces: PreparedSet, tmp_path: Path
) -> None:
    check(backbone, faces, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", HEAVY)
def test_interrupted_equals_uninterrupted_in_all_others(
    backbone: str, faces: PreparedSet, tmp_path: Path
) -> None:
    if backbone == "inception_v4" and importlib.util.find_spec("timm") is None:
        pytest.skip("Inception v4 needs timm, an optional extra")
    check(backbone, faces, tmp_path)
