"""Keys of checkpoints: what was stored once is found by every later version that trains alike."""

import dataclasses

import pytest

from headpose.config import TrainConfig
from tuning.prefix import ADDED_LATER, DataIdentity, prefix_keys

DATA = DataIdentity("any", 0.15, 0)


def last_key(config: TrainConfig, epochs: int = 1) -> str:
    return prefix_keys(config, DATA, epochs)[-1]


def test_what_was_stored_by_this_training_code_keeps_its_keys() -> None:
    """As of this version of the training code; to be changed with TRAINING_CODE_VERSION alone."""
    trunk = "ad29ff2060ead09275402f7f8e40fa50"
    assert prefix_keys(TrainConfig(), DATA, 2) == [
        f"{trunk}/{trunk}",
        f"{trunk}/32ba519c72fcddfd6ae4b6f3cef52f9c",
    ]
    assert last_key(TrainConfig(rotate_deg=20.0)) == "/".join(
        ["fae9392f94711c0ddb83b816f807bc8a"] * 2
    )


def test_a_backbone_that_sees_other_inputs_than_before_is_trained_anew() -> None:
    before = "/".join(["81973e631ef6867b6ec1b9df41da50ff"] * 2)
    assert last_key(TrainConfig(backbone="efficientnet_v2_l")) != before


def test_what_trains_as_before_by_default_was_added() -> None:
    for name, as_before in ADDED_LATER.items():
        assert getattr(TrainConfig(), name) == as_before


@pytest.mark.parametrize(
    "field", [field.name for field in dataclasses.fields(TrainConfig) if field.name != "centres"]
)
def test_every_setting_reaches_the_key(field: str) -> None:
    given = {
        "backbone": "resnet50",
        "imagenet": "download",
        "precision": "bf16",
        "unfreeze_epoch": 1,
        "second_learning_rate": 1e-5,
        "image_px": 96,
        "batch_size": 8,
        "seed": 1,
    }
    base = {"unfreeze_epoch": 1} if field == "second_learning_rate" else {}
    value = given.get(field, 0.25)
    assert getattr(TrainConfig(**base), field) != value  # type: ignore[arg-type]
    one, other = (TrainConfig(**config) for config in (base, {**base, field: value}))  # type: ignore[arg-type]
    assert last_key(one, 2) != last_key(other, 2)
