"""A warm worker: fast from one trial to the next, and no trial notices that it is not the first."""

import gc
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from headpose.data import sources
from headpose.data.manifest import PrepareSettings
from headpose.data.prepared import PreparedSet, prepare
from headpose.training import EpochResult, Training
from tuning import worker as worker_module
from tuning.causes import cause_of
from tuning.checkpoints import CheckpointStore
from tuning.exits import ExitReason
from tuning.objects import Place, StorageAwayError
from tuning.spec import Budget, Choices, Data, Resources, SearchSpec
from tuning.spool import Spool
from tuning.trial import EpochReport
from tuning.worker import Worker
from usererror import NotHereError

sys.path.insert(0, str(Path(__file__).parents[1] / "headpose"))
from faces import write_300w_lp
from memory_objects import MemoryObjects

FIRST = {"backbone": "mobilenet_v2", "learning_rate": 3e-3}
SECOND = {"backbone": "squeezenet1_1", "learning_rate": 1e-3}


ROOT = Place("bucket", "checkpoints")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faces")
    write_300w_lp(root / "source", faces=14)
    prepare("300w-lp", root / "source", root / "set", PrepareSettings(stored_px=40))
    return root / "set"


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def worker(
    objects: MemoryObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Worker]:
    monkeypatch.setenv("HOPETUNE_STATE_DIR", str(tmp_path))
    found = worker_on(objects, tmp_path / "waiting")
    yield found
    objects.gate.set()
    ended(found)


def ended(worker: Worker) -> None:
    """As its process would end: also what its collector was told never to look at."""
    worker.close()
    worker._checkpoints.close()
    worker._data.clear()


def worker_on(objects: MemoryObjects, folder: Path, limit_bytes: int = 10**9) -> Worker:
    found = Worker(has_gpu=True)
    found._checkpoints.close()
    found._checkpoints = CheckpointStore(
        objects,  # type: ignore[arg-type]
        ROOT,
        Spool(folder, limit_bytes),
        found._note,
    )
    return found


@pytest.mark.parametrize(
    ("given", "usable", "shown", "device"),
    [
        (True, True, 1, "cuda"),
        (True, False, 0, "cpu"),  # a logical one
        (False, True, 1, "cpu"),  # another trial's
        (False, False, 0, "cpu"),
        (True, False, 1, None),  # its driver is too old, say
    ],
)
def test_a_trial_is_trained_where_the_cluster_says(
    given: bool, usable: bool, shown: int, device: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    monkeypatch.setattr(worker_module, "real_gpus", lambda: shown)
    if device is None:
        with pytest.raises(NotHereError, match="GPU: torch cannot use the one"):
            worker_module._device(given)
    else:
        assert worker_module._device(given).type == device


def spec_of(prepared: Path, epochs: int = 2) -> SearchSpec:
    return SearchSpec(
        name="small",
        data=Data(train=str(prepared), validation_fraction=0.2),
        parameters={"backbone": Choices(choices=("mobilenet_v2", "squeezenet1_1"))},
        fixed={"image_px": 32, "batch_size": 8, "rotate_deg": 20.0, "blur": 0.3},
        budget=Budget(trials=9, epochs=epochs),
        resources=Resources(cpus_per_trial=1.0),
    )


def outcome(worker: Worker, objects: MemoryObjects, spec: SearchSpec) -> str:
    """All that the second trial gives, as text: metrics to the last bit, and its weights."""
    reports = list(worker.start(spec, SECOND))
    worker.close()
    assert not any(report.restored for report in reports)
    folder = f"checkpoints/{reports[-1].checkpoint_key}/weights-"
    key = next(key for key in objects.contents if key.startswith(folder))
    timeless = [
        {name: value for name, value in report.metrics.items() if "second" not in name}
        for report in reports
    ]
    return json.dumps([timeless, hashlib.sha256(objects.contents[key]).hexdigest()])


def test_results_equal_those_of_a_cold_start(
    worker: Worker, objects: MemoryObjects, prepared: Path, tmp_path: Path
) -> None:
    spec = spec_of(prepared)
    list(worker.start(spec, FIRST))  # one trial to its end,
    next(worker.start(spec, FIRST | {"learning_rate": 1e-2}))  # and one that is stopped early
    torch.rand(7)
    warm = outcome(worker, objects, spec)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "import test_worker as t\n"
        "objects = t.MemoryObjects()\n"
        "worker = t.worker_on(objects, Path(sys.argv[2]).parent / 'another spool')\n"
        "print(t.outcome(worker, objects, t.spec_of(Path(sys.argv[2]))))\n"
    )
    cold = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(prepared)],
        env=os.environ | {"HOPETUNE_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert cold.returncode == 0, cold.stderr
    assert warm == cold.stdout.strip()


def left_behind() -> dict[str, object]:
    """What a trial could leave in its process."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    return {
        "tensor bytes": sum(tensor.untyped_storage().nbytes() for tensor in tensors),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "open files": len(list(Path("/proc/self/fd").iterdir())),
        "random state": torch.get_rng_state().tolist(),
        "intra-op threads": torch.get_num_threads(),
    }


def test_a_trial_leaves_nothing_behind(
    objects: MemoryObjects, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOPETUNE_STATE_DIR", str(tmp_path))
    # Else the look for orphans may have the spool's lock open while files are counted.
    monkeypatch.setattr("tuning.uploads.ADOPT_S", 1e6)
    worker = worker_on(objects, tmp_path / "waiting")
    spec = spec_of(prepared, epochs=2)
    for parameters in (FIRST | {"learning_rate": 1e-2}, SECOND):  # whose beginnings are kept
        list(worker.start(spec, parameters))
    worker.close()
    before = left_behind()
    assert len(worker.take_notes()) == 1
    for number in range(3):
        reports = worker.start(spec, FIRST | {"learning_rate": 1e-3 * (number + 1)})
        next(reports)
        held = left_behind()["tensor bytes"]
        assert held > before["tensor bytes"] + 20e6, "a trial in the middle holds its network"
        del reports
        worker.close()
        assert left_behind() == before
    assert worker.take_notes() == [], "the data are placed once"
    ended(worker)


def test_the_next_trial_begins_while_the_last_checkpoint_is_on_its_way(
    worker: Worker, objects: MemoryObjects, prepared: Path
) -> None:
    spec = spec_of(prepared, epochs=1)
    objects.gate.clear()
    first = list(worker.start(spec, FIRST))
    second = list(worker.start(spec, SECOND))
    assert len(first) == len(second) == 1
    assert objects.contents == {}, "nothing could be stored so far"
    objects.gate.set()
    worker.close()
    for report in first + second:
        assert f"checkpoints/{report.checkpoint_key}/manifest.json" in objects.contents


def test_a_trial_taken_up_at_once_finds_the_checkpoint_that_is_on_its_way(
    worker: Worker, objects: MemoryObjects, prepared: Path, tmp_path: Path
) -> None:
    spec = spec_of(prepared)
    objects.gate.clear()
    first = next(worker.start(spec, SECOND))
    assert not first.restored
    other = worker_on(objects, tmp_path / "waiting")
    try:
        for taker in (worker, other):
            reports = taker.start(spec, SECOND, trained_epochs=1)
            again = next(reports)
            assert again.restored
            assert again.metrics == first.metrics
            assert next(reports).restored == (taker is other), "the first taker trained it"
    finally:
        objects.gate.set()
        ended(other)


def test_a_store_that_is_away_fails_no_trial_and_holds_none_up(
    worker: Worker, objects: MemoryObjects, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.checkpoints.AWAY_S", 0.5)
    spec = spec_of(prepared)
    objects.away = True
    trained = list(worker.start(spec, FIRST))
    assert [report.restored for report in trained] == [False, False]
    assert [r.restored for r in worker.start(spec, FIRST, trained_epochs=2)] == [True, True]
    assert list(worker.start(spec, SECOND))[-1].epoch == 2
    assert objects.contents == {}
    assert any("checkpoints wait on this node's disk" in note for note in worker.take_notes())
    objects.away = False
    worker.close()
    assert sum(key.endswith("manifest.json") for key in objects.contents) == 4


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sets count as kept on a GPU, beside which no second epoch fits; epochs that were begun."""
    begun: list[int] = []
    run_epoch = Training.run_epoch

    def run(self: Training, epoch: int, *rest: Any) -> EpochResult:
        begun.append(epoch)
        if epoch == 2 and self._images._resident is not None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run_epoch(self, epoch, *rest)

    monkeypatch.setattr(Training, "run_epoch", run)
    monkeypatch.setattr(
        sources,
        "_placed",
        lambda images, _device, keep, _share: (
            None if keep == "never" else torch.from_numpy(images.copy())
        ),
    )
    return begun


def test_a_set_on_the_gpu_gives_way_to_a_trial_that_does_not_fit_beside_it(
    worker: Worker, prepared: Path, tmp_path: Path, crowded: list[int]
) -> None:
    def losses(reports: list[EpochReport]) -> list[float]:
        return [report.metrics["train_loss"] for report in reports]

    reports = list(worker.start(spec_of(prepared), FIRST))
    assert [(report.epoch, report.restored) for report in reports] == [
        (1, False),
        (1, True),
        (2, False),
    ]
    assert crowded == [1, 2, 2], "it goes on from its checkpoint"
    assert any("does not fit beside the set" in note for note in worker.take_notes())
    assert [r.epoch for r in worker.start(spec_of(prepared), SECOND)] == [1, 2], "it stays away"
    other = worker_on(MemoryObjects(), tmp_path / "another spool")
    try:
        resources = Resources(cpus_per_trial=1.0, images_on_gpu="never")
        roomy = spec_of(prepared).model_copy(update={"resources": resources})
        assert losses(reports[1:]) == losses(list(other.start(roomy, FIRST)))
    finally:
        ended(other)


def test_a_set_that_must_stay_on_the_gpu_does_not_give_way(
    worker: Worker, prepared: Path, crowded: list[int]
) -> None:
    resources = Resources(cpus_per_trial=1.0, images_on_gpu="always")
    spec = spec_of(prepared).model_copy(update={"resources": resources})
    with pytest.raises(torch.OutOfMemoryError):
        list(worker.start(spec, FIRST))
    assert crowded == [1, 2]


class AwayFor:
    """Opens a data set once it has been asked for often enough; until then the store is away."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self, uri: str, *_: object) -> PreparedSet:
        self.left -= 1
        if self.left >= 0:
            raise StorageAwayError(uri, "the S3 server cannot be used")
        return PreparedSet.open(Path(uri))


def test_a_worker_that_begins_while_the_store_is_away_waits_for_its_data(
    worker: Worker, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.worker.DATA_POLL_S", 0.01)
    monkeypatch.setattr("tuning.worker.open_set", AwayFor(3))
    assert list(worker.start(spec_of(prepared), SECOND))[-1].epoch == 2


def test_data_that_do_not_come_are_wanted_of_another_node_in_the_end(
    worker: Worker, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.worker.DATA_POLL_S", 0.01)
    monkeypatch.setattr("tuning.worker.DATA_PATIENCE_S", 0.1)
    monkeypatch.setattr("tuning.worker.open_set", AwayFor(10**6))
    with pytest.raises(NotHereError) as error:
        worker.start(spec_of(prepared), SECOND)
    assert cause_of(error.value)[0] == ExitReason.UNFIT_NODE, "another node may have them"


def test_other_data_than_the_search_has_are_no_fault_of_the_configuration(
    worker: Worker, prepared: Path, tmp_path: Path
) -> None:
    fingerprint = PreparedSet.open(prepared).fingerprint
    spec = spec_of(prepared)
    assert next(worker.start(spec, SECOND, fingerprint=fingerprint)).epoch == 1
    for path, meant in ((prepared, "0" * 64), (tmp_path / "absent", fingerprint)):
        with pytest.raises(NotHereError) as error:
            worker.start(spec_of(path), SECOND, fingerprint=meant)
        cause, words = cause_of(error.value)
        assert cause == ExitReason.UNFIT_NODE, "another node may have them"
        assert str(path) in words


def test_imagenet_weights_from_the_store_are_those_of_the_file(
    worker: Worker, objects: MemoryObjects, prepared: Path, tmp_path: Path
) -> None:
    file = tmp_path / "weights" / "squeezenet1_1.pth"
    file.parent.mkdir()
    torch.save(models.get_model("squeezenet1_1", weights=None).state_dict(), file)
    objects.contents["imagenet/squeezenet1_1.pth"] = file.read_bytes()
    worker._fetching = objects  # type: ignore[assignment]

    def losses(**fixed: str) -> list[float]:
        spec = spec_of(prepared)
        spec = spec.model_copy(update={"fixed": spec.fixed | fixed})
        reports = list(worker.start(spec, SECOND))
        restored.extend(report.restored for report in reports)
        return [report.metrics["train_loss"] for report in reports]

    restored: list[bool] = []
    scratch, from_store = losses(), losses(imagenet="s3://bucket/imagenet")
    assert not any(restored)
    assert from_store != scratch
    restored.clear()
    assert from_store == losses(imagenet=str(file.parent))
    assert all(restored), "what was trained is known by the weights, wherever they lie"
    restored.clear()
    torch.save(models.get_model("squeezenet1_1", weights=None).state_dict(), file)
    assert from_store != losses(imagenet=str(file.parent))
    assert not any(restored), "others lie at the same place now"


def test_initial_weights_that_cannot_be_had_are_no_fault_of_the_configuration(
    worker: Worker, objects: MemoryObjects, prepared: Path, tmp_path: Path
) -> None:
    worker._fetching = objects  # type: ignore[assignment]
    spec = spec_of(prepared)
    for place in ("s3://bucket/imagenet", str(tmp_path / "absent")):
        lacking = spec.model_copy(update={"fixed": spec.fixed | {"imagenet": place}})
        with pytest.raises(NotHereError) as error:
            next(worker.start(lacking, SECOND))
        assert cause_of(error.value)[0] == ExitReason.UNFIT_NODE


@pytest.mark.parametrize("what", ["data", "weights"])
def test_a_node_that_cannot_keep_what_a_trial_begins_with_is_unfit(
    worker: Worker, objects: MemoryObjects, prepared: Path, tmp_path: Path, what: str
) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    worker._looking = worker._fetching = objects  # type: ignore[assignment]
    worker._cache = worker._weights_cache = tmp_path / "file" / "cache"
    objects.contents["imagenet/squeezenet1_1.pth"] = b"weights"
    objects.contents["set/manifest.json"] = (prepared / "manifest.json").read_bytes()
    spec = spec_of(prepared)
    if what == "data":
        spec = spec.model_copy(
            update={"data": spec.data.model_copy(update={"train": "s3://b/set"})}
        )
    else:
        spec = spec.model_copy(update={"fixed": spec.fixed | {"imagenet": "s3://b/imagenet"}})
    with pytest.raises(NotHereError, match=r"file/cache.*Not a directory") as error:
        worker.start(spec, SECOND)
    assert cause_of(error.value)[0] == ExitReason.UNFIT_NODE


def test_all_processes_share_the_pages_of_a_set(worker: Worker, prepared: Path) -> None:
    spec = spec_of(prepared, epochs=1)
    list(worker.start(spec, SECOND))
    file = str(prepared / "images.npy")
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if file in line]
    assert len(maps) == 1
    assert " r--s " in maps[0], "mapped read-only and shared: the page cache holds the one copy"
