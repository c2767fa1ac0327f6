"""The same training on a GPU: whole sets kept there, or batches copied through pinned memory."""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from headpose.config import TrainConfig
from headpose.data import sources
from headpose.data.augment import Augmentation, central_views, draw_views
from headpose.data.manifest import PrepareSettings
from headpose.data.prepared import PreparedSet, prepare
from headpose.data.render import render
from headpose.data.sources import ImageSource, Keep
from headpose.networks.snapshots import weights_to_bytes
from headpose.normalisation import IMAGENET_STD
from headpose.training import Training

sys.path.insert(0, str(Path(__file__).parents[1] / "headpose"))
from faces import write_300w_lp

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]

CONFIG = TrainConfig(
    backbone="mobilenet_v2", batch_size=8, image_px=32, rotate_deg=15.0, blur=0.3, unfreeze_epoch=1
)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    root = tmp_path_factory.mktemp("faces")
    write_300w_lp(root / "source", faces=16)
    prepare("300w-lp", root / "source", root / "set", PrepareSettings(stored_px=40))
    return PreparedSet.open(root / "set")


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_batches_are_the_rows_of_the_set(
    faces: PreparedSet, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_RESIDENT_SHARE", share)
    rows = torch.tensor([5, 0, 31])
    batch = ImageSource(faces, torch.device("cuda")).batch(rows)
    assert batch.device.type == "cuda"
    np.testing.assert_array_equal(batch.cpu().numpy(), faces.images_u8[rows.numpy()])


@pytest.mark.parametrize("keep", ["always", "never"])
def test_batches_are_whole_when_they_are_used(faces: PreparedSet, keep: Keep) -> None:
    """Copied in a stream of their own: neither used too early nor overwritten too soon."""
    order = torch.arange(200) % len(faces)
    parts = [order[start : start + 8] for start in range(0, 200, 8)]
    busy = torch.rand(2000, 2000, device="cuda")
    sums = []
    for batch in ImageSource(faces, torch.device("cuda"), keep).batches(parts):
        for _ in range(5):
            busy = busy @ busy / busy.norm()
        sums.append(batch.long().sum(dim=(1, 2, 3)))
        del batch
    expected = faces.images_u8[order.numpy()].sum(axis=(1, 2, 3), dtype=np.int64)
    np.testing.assert_array_equal(torch.cat(sums).cpu().numpy(), expected)


def test_a_set_that_gives_way_frees_its_memory_and_gives_the_same_batches(
    faces: PreparedSet,
) -> None:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    images = ImageSource(faces, torch.device("cuda"))
    assert torch.cuda.memory_allocated() - before >= faces.images_u8.nbytes
    parts = [torch.tensor([5, 0, 31]), torch.tensor([2])]
    kept = [batch.cpu() for batch in images.batches(parts)]
    assert images.give_way()
    assert torch.cuda.memory_allocated() == before
    copied = [batch.cpu() for batch in images.batches(parts)]
    assert all(torch.equal(*both) for both in zip(kept, copied, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stored_training_goes_on_as_if_uninterrupted(faces: PreparedSet, precision: str) -> None:
    config = TrainConfig(**{**CONFIG.__dict__, "precision": precision})
    rows = np.arange(24), np.arange(24, 32)

    def fresh() -> Training:
        return Training(config, faces, rows[0], faces, rows[1], torch.device("cuda"))

    whole = fresh()
    whole.run_epoch(1)
    weights, optimiser = whole.weights(), whole.optimiser_state()
    expected = [whole.run_epoch(epoch).train_loss for epoch in (2, 3)]
    resumed = fresh()
    resumed.load(weights, optimiser)
    # GPU kernels add in changing order: close, not equal.
    assert [resumed.run_epoch(epoch).train_loss for epoch in (2, 3)] == pytest.approx(
        expected, rel=0.05
    )


class InAThread:
    """Asks for a training's files from when its validation begins."""

    def __init__(self, training: Training) -> None:
        self._training, self._pool = training, ThreadPoolExecutor(1)

    def __enter__(self) -> None:
        self.files = self._pool.submit(self._training.files)

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


def test_the_state_can_be_copied_while_the_gpu_validates(faces: PreparedSet) -> None:
    rows = np.arange(24), np.arange(24, 32)
    training = Training(CONFIG, faces, rows[0], faces, rows[1], torch.device("cuda"))
    for epoch in (1, 2):
        meanwhile = InAThread(training)
        training.run_epoch(epoch, meanwhile)
        weights, optimiser = (b"".join(file) for file in meanwhile.files.result())
        assert weights == weights_to_bytes(training.network())
        state, expected = safetensors.torch.load(optimiser), training.optimiser_state()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_views_are_those_of_the_cpu() -> None:
    seed = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 280, 280, 3), dtype=torch.uint8, generator=seed)
    varied = Augmentation(flip=0.5, blur=0.5, rotate_deg=20.0, crop_jitter=0.1)
    views = draw_views(torch.zeros(16, 3), 0.8, varied, seed)
    assert 0 < views.blurred.sum() < 16
    device = torch.device("cuda")
    seen = render(images.to(device), views.on(device), 224)
    assert seen.is_contiguous(memory_format=torch.channels_last)
    half_a_grey_level = 0.5 / (255 * max(IMAGENET_STD))
    torch.testing.assert_close(
        seen.cpu(), render(images, views, 224), rtol=0, atol=half_a_grey_level
    )


def test_the_first_step_agrees_with_the_cpu(faces: PreparedSet) -> None:
    config = TrainConfig(backbone="resnet18", batch_size=24, image_px=32)
    rows = np.arange(24), np.arange(24, 32)
    losses = [
        Training(config, faces, rows[0], faces, rows[1], torch.device(name)).run_epoch(1).train_loss
        for name in ("cpu", "cuda")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_no_step_waits_for_the_gpu(faces: PreparedSet) -> None:
    rows = np.arange(24), np.arange(24, 32)
    training = Training(CONFIG, faces, rows[0], faces, rows[1], torch.device("cuda"))
    training.run_epoch(1)
    images = ImageSource(faces, torch.device("cuda"))
    views = central_views(torch.zeros(8, 3), faces.view_fraction).on(torch.device("cuda"))
    views = replace(views, blurred=torch.arange(8) < 3)
    batch = images.batch(torch.arange(8))

    def step() -> None:
        training._step(render(batch, views, CONFIG.image_px), views.angles_deg)

    step()  # makes what is made once
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_trainings_share_the_set_on_the_gpu_and_free_what_is_theirs(faces: PreparedSet) -> None:
    device = torch.device("cuda")
    rows = np.arange(24), np.arange(24, 32)
    images = ImageSource(faces, device)
    torch.cuda.synchronize()
    kept = []
    for _ in range(3):
        Training(CONFIG, faces, rows[0], faces, rows[1], device, (images, images)).run_epoch(1)
        gc.collect()
        kept.append(torch.cuda.memory_allocated(device))
    assert kept[0] == kept[1] == kept[2]
