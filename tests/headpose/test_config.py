"""TrainConfig refuses what cannot be trained, and says which field it was."""

import dataclasses
import json
import math

import pytest

from headpose.config import TrainConfig
from usererror import UserError


def test_every_field_has_a_default_of_a_plain_type() -> None:
    for value in dataclasses.asdict(TrainConfig()).values():
        assert value is None or type(value) in (str, int, float)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("backbone", ""),
        ("bin_width", 0.0),
        ("bin_width", 100.0),
        ("centres", "left"),
        ("alpha", -1.0),
        ("alpha", math.nan),
        ("alpha", math.inf),
        ("learning_rate", 0.0),
        ("learning_rate", "1e-5"),
        ("decay_rate", 1.5),
        ("unfreeze_epoch", -1),
        ("unfreeze_epoch", 2.0),
        ("head_learning_rate_factor", 0.0),
        ("batch_size", 1),
        ("batch_size", True),
        ("image_px", 31),
        ("weight_decay", -0.1),
        ("imagenet", ""),
        ("flip", 1.1),
        ("blur", -0.1),
        ("rotate_deg", 181.0),
        ("rotate_share", 1.1),
        ("crop_jitter", 0.6),
        ("precision", "fp16"),
        ("seed", -1),
    ],
)
def test_an_illegal_value_is_refused_by_field_name(field: str, value: object) -> None:
    with pytest.raises(UserError) as caught:
        TrainConfig(**{field: value})  # type: ignore[arg-type]
    assert caught.value.where == f"TrainConfig.{field}"
    assert f"got {value!r}" in str(caught.value)


def test_a_second_learning_rate_needs_a_frozen_phase() -> None:
    with pytest.raises(UserError, match="unfreeze_epoch >= 1"):
        TrainConfig(second_learning_rate=1e-5)
    with pytest.raises(UserError, match=r"TrainConfig\.second_learning_rate"):
        TrainConfig(second_learning_rate=math.nan, unfreeze_epoch=1)
    assert TrainConfig(second_learning_rate=1e-5, unfreeze_epoch=1).second_learning_rate == 1e-5


def test_two_and_two_point_nought_are_one_configuration() -> None:
    whole, fraction = TrainConfig(alpha=2, bin_width=6), TrainConfig(alpha=2.0, bin_width=6.0)
    assert json.dumps(dataclasses.asdict(whole)) == json.dumps(dataclasses.asdict(fraction))
