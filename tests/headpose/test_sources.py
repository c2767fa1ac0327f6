"""Batches on the device: the rows of the set, gathered ahead where a GPU computes meanwhile."""

import contextlib
import threading
import time
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from faces import write_300w_lp

from headpose.data import sources
from headpose.data.manifest import PrepareSettings
from headpose.data.prepared import PreparedSet, prepare
from headpose.data.sources import ImageSource, ahead
from usererror import UserError

CPU = torch.device("cpu")
GPU = torch.device("cuda")  # only named here: what is decided about it needs none


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    root = tmp_path_factory.mktemp("faces")
    write_300w_lp(root / "source", faces=4)
    prepare("300w-lp", root / "source", root / "set", PrepareSettings(stored_px=40))
    return PreparedSet.open(root / "set")


def test_batches_are_the_rows_of_the_set_in_order(faces: PreparedSet) -> None:
    wanted = [torch.tensor([5, 0]), torch.tensor([7, 7, 1])]
    found = list(ImageSource(faces, CPU).batches(wanted))
    for rows, batch in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(batch.numpy(), faces.images_u8[rows.numpy()])
    assert "mapped from disk" in ImageSource(faces, CPU).describe()


@pytest.mark.parametrize(
    ("keep", "free_sets", "kept"),
    [("auto", 2.1, True), ("auto", 1.9, False), ("always", 1.1, True), ("never", 9.0, False)],
)
def test_a_set_is_kept_where_it_fits_or_where_somebody_says_so(
    faces: PreparedSet, keep: str, free_sets: float, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = faces.images_u8.nbytes
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(free_sets * size), 10 * size))
    monkeypatch.setattr(sources, "_uploaded", lambda images, _: torch.from_numpy(images.copy()))
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: None)
    source = ImageSource(faces, GPU, keep)  # type: ignore[arg-type]
    assert ("kept in the GPU" in source.describe()) == kept
    assert ("batch by batch" in source.describe()) == (not kept)


def test_a_set_that_cannot_be_kept_is_refused(
    faces: PreparedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (100, 1000))
    with pytest.raises(UserError, match="does not fit into the GPU"):
        ImageSource(faces, GPU, "always")


def test_all_passes_copy_in_one_stream(faces: PreparedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator keeps what a stream has freed for that stream alone."""
    made, used = [], []

    def make(_device: torch.device) -> MagicMock:
        made.append(MagicMock())
        return made[-1]

    def use(stream: object) -> contextlib.nullcontext[None]:
        used.append(stream)
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.cuda, "Stream", make)
    monkeypatch.setattr(torch.cuda, "stream", use)
    monkeypatch.setattr(torch.cuda, "current_stream", MagicMock())
    monkeypatch.setattr(ImageSource, "batch", MagicMock())
    source = ImageSource(faces, GPU, "never")
    for _ in range(3):
        assert len(list(source.batches([torch.tensor([0]), torch.tensor([1])]))) == 2
    assert len(made) == 1
    assert used == 6 * made


def test_gathering_runs_ahead_of_its_reader_but_not_far() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return item * item

    results = ahead(work, range(9), depth=2)
    assert next(results) == 0
    until = time.monotonic() + 60
    while len(begun) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    assert begun == [0, 1, 2]
    assert list(results) == [i * i for i in range(1, 9)]


def test_a_reader_that_stops_leaves_no_thread_and_errors_come_through() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    results = ahead(work, range(100))
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("gather")]
    with pytest.raises(ValueError, match="three"):
        list(ahead(work, range(5)))
