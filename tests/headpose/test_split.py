"""The validation split keeps photos whole and depends on seed and keys alone."""

import numpy as np
import pytest

from headpose.data.split import split_by_photo
from usererror import UserError

PHOTOS = [f"photo{number // 7}" for number in range(700)]  # 100 photos of 7 images


def test_no_photo_lies_on_both_sides_and_no_image_is_lost() -> None:
    train, validation = split_by_photo(PHOTOS, 0.1, seed=0)
    assert not {PHOTOS[i] for i in train} & {PHOTOS[i] for i in validation}
    assert sorted([*train, *validation]) == list(range(700))
    assert len(validation) == 70
    assert train.dtype == validation.dtype == np.int64


def test_the_split_follows_the_keys_not_their_order() -> None:
    _, validation = split_by_photo(PHOTOS, 0.2, seed=3)
    _, of_reversed = split_by_photo(PHOTOS[::-1], 0.2, seed=3)
    assert {PHOTOS[i] for i in validation} == {PHOTOS[::-1][i] for i in of_reversed}
    _, of_other_seed = split_by_photo(PHOTOS, 0.2, seed=4)
    assert validation.tolist() != of_other_seed.tolist()


def test_two_photos_give_one_to_each_side() -> None:
    train, validation = split_by_photo(["a", "a", "b"], 0.99, seed=0)
    assert len(train) >= 1
    assert len(validation) >= 1


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_an_impossible_share_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match="validation_fraction"):
        split_by_photo(PHOTOS, fraction, seed=0)


def test_a_single_photo_cannot_be_split() -> None:
    with pytest.raises(UserError, match="too few photos"):
        split_by_photo(["a", "a"], 0.5, seed=0)
