"""The schedule: decay per epoch, the frozen stem, the optional second learning rate."""

import dataclasses

import pytest

from headpose.config import TrainConfig
from headpose.schedule import SCHEDULE_FIELDS, EpochSchedule, schedule_of
from usererror import UserError


def test_the_rate_decays_from_the_second_epoch_on() -> None:
    config = TrainConfig(learning_rate=1e-3, decay_rate=0.5)
    rates = [schedule_of(config, epoch).learning_rate for epoch in (1, 2, 3)]
    assert rates == pytest.approx([1e-3, 5e-4, 2.5e-4])


def test_the_stem_is_frozen_up_to_and_including_the_unfreeze_epoch() -> None:
    config = TrainConfig(unfreeze_epoch=2)
    assert [schedule_of(config, epoch).stem_frozen for epoch in (1, 2, 3)] == [True, True, False]
    assert not schedule_of(TrainConfig(), 1).stem_frozen


def test_a_second_rate_begins_after_unfreezing_and_decays_anew() -> None:
    config = TrainConfig(
        learning_rate=1e-3, decay_rate=0.5, unfreeze_epoch=2, second_learning_rate=8e-4
    )
    rates = [schedule_of(config, epoch).learning_rate for epoch in (1, 2, 3, 4)]
    assert rates == pytest.approx([1e-3, 5e-4, 8e-4, 4e-4])


def test_trials_that_unfreeze_at_different_epochs_share_their_trunk() -> None:
    early, late = TrainConfig(unfreeze_epoch=3), TrainConfig(unfreeze_epoch=5)
    same = [schedule_of(early, epoch) == schedule_of(late, epoch) for epoch in range(1, 7)]
    assert same == [True, True, True, False, False, True]


def test_only_the_schedule_fields_reach_the_schedule() -> None:
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    assert set(SCHEDULE_FIELDS) <= names
    other = TrainConfig(backbone="resnet50", alpha=2.0, seed=7, batch_size=8, rotate_deg=10.0)
    assert schedule_of(other, 4) == schedule_of(TrainConfig(), 4) == EpochSchedule(1e-4, False)


def test_epoch_zero_does_not_exist() -> None:
    with pytest.raises(UserError, match="epochs count from 1"):
        schedule_of(TrainConfig(), 0)
