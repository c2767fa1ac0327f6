"""Training learns, freezes what it must, and a resumed training equals an uninterrupted one."""

import dataclasses
import io
import math
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from faces import write_300w_lp

from headpose import training as training_module
from headpose.config import TrainConfig
from headpose.data.augment import Views
from headpose.data.manifest import PrepareSettings
from headpose.data.prepared import PreparedSet, prepare
from headpose.data.render import render
from headpose.data.split import split_by_photo
from headpose.networks.network import _pristine_trunk
from headpose.networks.snapshots import weights_to_bytes
from headpose.training import Training
from usererror import UserError

CPU = torch.device("cpu")
LIGHT = TrainConfig(
    backbone="mobilenet_v2",  # has batch normalisation and dropout
    batch_size=8,
    image_px=32,
    learning_rate=1e-3,
    decay_rate=0.9,
    unfreeze_epoch=2,
    rotate_deg=15.0,
    blur=0.3,
    bin_width=6.0,
)
STEM = ("trunk.features.0.0.weight", "trunk.features.0.1.running_mean")


class Meanwhile:
    """Writes a training's files while it is validated, in a thread that ends later."""

    def __init__(self, training: Training) -> None:
        self.written: list[bytes] = []
        self.is_validated = threading.Event()
        self._thread = threading.Thread(target=self._write, args=(training,))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.is_validated.set()
        self._thread.join()

    def _write(self, training: Training) -> None:
        files = training.files()
        assert self.is_validated.wait(60)
        self.written = [b"".join(file) for file in files]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    root = tmp_path_factory.mktemp("faces")
    write_300w_lp(root / "source", faces=14, variants=2)
    prepare("300w-lp", root / "source", root / "set", PrepareSettings(stored_px=40))
    return PreparedSet.open(root / "set")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_the_state_can_be_written_while_it_is_validated(faces: PreparedSet) -> None:
    training, plain = training_of(LIGHT, faces), training_of(LIGHT, faces)
    for epoch in (1, 2):
        meanwhile = Meanwhile(training)
        result = training.run_epoch(epoch, meanwhile)
        expected = plain.run_epoch(epoch)
        assert (result.train_loss, result.val) == (expected.train_loss, expected.val)
        weights, optimiser = meanwhile.written
        assert weights == weights_to_bytes(plain.network())
        assert same(safetensors.torch.load(optimiser), plain.optimiser_state())


def training_of(config: TrainConfig, faces: PreparedSet) -> Training:
    train, validation = split_by_photo(faces.photos, 0.15, seed=0)
    return Training(config, faces, train, faces, validation, CPU)


def stored(training: Training) -> tuple[bytes, dict[str, torch.Tensor]]:
    """The state as it comes back from files."""
    buffer = io.BytesIO()
    torch.save(training.optimiser_state(), buffer)
    optimiser = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    return weights_to_bytes(training.network()), optimiser


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "squeezenet1_1"])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(
    backbone: str, faces: PreparedSet
) -> None:
    config = dataclasses.replace(LIGHT, backbone=backbone, weight_decay=1e-4)
    whole = training_of(config, faces)
    expected = []
    states = []
    for epoch in (1, 2, 3, 4):
        expected.append(whole.run_epoch(epoch))
        states.append(stored(whole))
    for resume_after in (1, 2, 3):  # before, at and after the unfreezing
        torch.manual_seed(resume_after)  # the state of global generators must not matter
        resumed = training_of(config, faces)
        resumed.load_file(*states[resume_after - 1])
        for epoch in range(resume_after + 1, 5):
            result = resumed.run_epoch(epoch)
            assert result.train_loss == expected[epoch - 1].train_loss
            assert result.val == expected[epoch - 1].val
        assert same(resumed.weights(), whole.weights())
        assert same(resumed.optimiser_state(), whole.optimiser_state())


def test_weights_and_state_are_copies_that_load_gives_back(faces: PreparedSet) -> None:
    training = training_of(LIGHT, faces)
    training.run_epoch(1)
    weights, optimiser = training.weights(), training.optimiser_state()
    kept = {name: value.clone() for name, value in weights.items()}
    training.run_epoch(2)
    assert same(weights, kept)
    assert not same(training.weights(), kept)
    training.load(weights, optimiser)
    assert same(training.weights(), kept)
    assert same(training.optimiser_state(), optimiser)


def test_a_checkpoint_is_read_into_the_network_that_is_there(faces: PreparedSet) -> None:
    training = training_of(dataclasses.replace(LIGHT, seed=5), faces)
    training.run_epoch(1)
    state = stored(training)
    kept = _pristine_trunk.cache_info()
    training.load_file(*state)
    assert _pristine_trunk.cache_info() == kept, "no second one was made"


def test_a_frozen_stem_stays_as_it_is_and_learns_afterwards(faces: PreparedSet) -> None:
    training = training_of(dataclasses.replace(LIGHT, weight_decay=0.1), faces)
    start = training.weights()
    for epoch in (1, 2):
        training.run_epoch(epoch)
        assert all(torch.equal(training.weights()[name], start[name]) for name in STEM)
    assert not any("trunk.features.0." in name for name in training.optimiser_state())
    assert not torch.equal(
        training.weights()["trunk.features.1.conv.0.0.weight"],
        start["trunk.features.1.conv.0.0.weight"],
    )
    training.run_epoch(3)
    assert not any(torch.equal(training.weights()[name], start[name]) for name in STEM)


def test_training_learns(faces: PreparedSet) -> None:
    config = TrainConfig(
        backbone="resnet18",
        image_px=32,
        batch_size=8,
        learning_rate=5e-4,
        alpha=0.1,
        crop_jitter=0.0,
        blur=0.0,
    )
    training = training_of(config, faces)
    results = [training.run_epoch(epoch) for epoch in range(1, 9)]
    assert results[-1].train_loss < 0.5 * results[0].train_loss
    assert [result.epoch for result in results] == list(range(1, 9))
    assert all(result.images_per_s > 0 and result.seconds > 0 for result in results)
    assert results[-1].val.count == len(faces) - len(split_by_photo(faces.photos, 0.15, 0)[0])


def test_the_seed_decides_and_global_generators_stay_untouched(faces: PreparedSet) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = training_of(LIGHT, faces).run_epoch(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert training_of(LIGHT, faces).run_epoch(1).train_loss == first.train_loss
    other = training_of(dataclasses.replace(LIGHT, seed=1), faces).run_epoch(1)
    assert other.train_loss != first.train_loss


def test_epochs_differ_in_order_and_augmentation(faces: PreparedSet) -> None:
    training = training_of(LIGHT, faces)
    orders = [training._order(epoch).tolist() for epoch in (1, 2)]
    assert orders[0] != orders[1]
    assert (
        sorted(orders[0]) == sorted(orders[1]) == split_by_photo(faces.photos, 0.15, 0)[0].tolist()
    )


def test_the_heads_learn_faster_by_the_factor(faces: PreparedSet) -> None:
    # Adam's first step is lr · sign(gradient), so the largest step shows the rate.
    def largest_steps(factor: float) -> tuple[float, float]:
        config = dataclasses.replace(
            LIGHT, batch_size=16, head_learning_rate_factor=factor, unfreeze_epoch=0
        )
        training = training_of(config, faces)
        before = training.weights()
        training.run_epoch(1)
        moved = {
            name: float((value.float() - before[name].float()).abs().max())
            for name, value in training.weights().items()
            if name.endswith("weight")
        }
        heads = max(value for name, value in moved.items() if name.startswith("heads."))
        return heads, moved["trunk.features.1.conv.0.0.weight"]

    for factor in (1.0, 5.0):
        head, body = largest_steps(factor)
        assert head == pytest.approx(1e-3 * factor, rel=0.02)
        assert body == pytest.approx(1e-3, rel=0.02)


def test_a_diverged_training_reports_no_number_instead_of_failing(faces: PreparedSet) -> None:
    training = training_of(LIGHT, faces)
    weights = training.weights()
    weights["heads.pitch.bias"].fill_(torch.nan)
    training.run_epoch(1)
    training.load(weights, training.optimiser_state())
    result = training.run_epoch(2)
    assert math.isnan(result.train_loss)
    assert math.isnan(result.val.mae)


def test_bf16_runs_and_stays_close(faces: PreparedSet) -> None:
    config = dataclasses.replace(LIGHT, backbone="squeezenet1_1")
    exact = training_of(config, faces).run_epoch(1)
    rounded = training_of(dataclasses.replace(config, precision="bf16"), faces).run_epoch(1)
    assert rounded.train_loss == pytest.approx(exact.train_loss, rel=0.05)
    assert rounded.train_loss != exact.train_loss


def test_how_many_batches_are_rendered_at_a_time_changes_nothing(
    faces: PreparedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[int] = []

    def counted(images_u8: torch.Tensor, views: Views, image_px: int) -> torch.Tensor:
        rendered.append(len(images_u8))
        return render(images_u8, views, image_px)

    monkeypatch.setattr(training_module, "render", counted)
    # Five batches of four; the last two of 22 images are left out.
    whole, two_batches = 2**28, 2 * 4 * faces.images_u8[0].size
    cases = (
        (4, 1, whole, [4] * 5),
        (11, 1, whole, [8, 8, 4]),
        (0, 4, whole, [16, 4]),
        (256, 4, whole, [20]),
        (256, 4, two_batches, [8, 8, 4]),
        (256, 4, 1, [4] * 5),  # one batch at a time is never too many
    )
    ends = []
    for images, fewest_batches, largest, expected in cases:
        monkeypatch.setattr(training_module, "_RENDERED_AT_A_TIME", images)
        monkeypatch.setattr(training_module, "_FEWEST_BATCHES_AT_A_TIME", fewest_batches)
        monkeypatch.setattr(training_module, "_LARGEST_PART", largest)
        rendered.clear()
        training = training_of(dataclasses.replace(LIGHT, batch_size=4), faces)
        result = training.run_epoch(1)
        assert rendered == expected
        ends.append((result.train_loss, result.val, training.weights()))
    for loss, val, weights in ends[1:]:
        assert (loss, val) == ends[0][:2]
        assert same(weights, ends[0][2])


@pytest.mark.parametrize(
    ("first", "sizes"), [(4, [4, 8, 16, 12]), (16, [16, 16, 8]), (64, [40]), (8, [8, 16, 16])]
)
def test_parts_begin_small_and_hold_every_row(first: int, sizes: list[int]) -> None:
    parts = training_module._parts(40, first, max(first, 16))
    assert [len(range(40)[part]) for part in parts] == sizes
    assert [row for part in parts for row in range(40)[part]] == list(range(40))


def test_losses_are_added_as_on_the_device(faces: PreparedSet) -> None:
    losses = [*torch.rand(1000, generator=torch.Generator().manual_seed(1)).unbind()]
    total = torch.zeros(())
    for loss in losses:
        total += loss
    assert training_module._sum(losses) == float(total)
    assert math.isnan(training_module._sum([*losses, torch.tensor(math.nan)]))


def test_a_set_smaller_than_a_batch_is_one_batch(faces: PreparedSet) -> None:
    config = dataclasses.replace(LIGHT, batch_size=512)
    assert math.isfinite(training_of(config, faces).run_epoch(1).train_loss)


@pytest.mark.parametrize(("train_rows", "validation_rows"), [(1, 4), (0, 4), (4, 0)])
def test_too_few_images_are_refused(
    faces: PreparedSet, train_rows: int, validation_rows: int
) -> None:
    with pytest.raises(UserError, match="too few images"):
        Training(LIGHT, faces, np.arange(train_rows), faces, np.arange(validation_rows), CPU)


def test_views_finer_than_the_set_are_refused(faces: PreparedSet) -> None:
    with pytest.raises(UserError, match="too coarse"):
        training_of(dataclasses.replace(LIGHT, image_px=64), faces)


def test_a_state_of_another_network_is_refused(faces: PreparedSet, tmp_path: Path) -> None:
    training = training_of(LIGHT, faces)
    training.run_epoch(1)
    weights_file, optimiser = stored(training)
    before = training.weights()
    other = training_of(dataclasses.replace(LIGHT, bin_width=3.0), faces)
    with pytest.raises(UserError, match="belongs to another network"):
        other.load_file(weights_file, optimiser)
    with pytest.raises(UserError, match="checkpoint: the weights are of another network"):
        other.load(training.weights(), optimiser)
    with pytest.raises(UserError, match="damaged"):
        training.load_file(weights_file[:-7], optimiser)
    name = "exp_avg/heads.yaw.weight"
    for state, message in (
        ({}, "missing"),
        ({key: value for key, value in optimiser.items() if key != name}, "missing"),
        (optimiser | {name: torch.zeros(2)}, r"\(2,\)"),
        (optimiser | {"exp_avg/nothing": torch.zeros(2)}, "unknown entries"),
    ):
        with pytest.raises(UserError, match=message):
            training.load_file(weights_file, state)
    assert same(training.weights(), before)
