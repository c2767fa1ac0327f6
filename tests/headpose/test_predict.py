"""Prediction sees faces as evaluation does, whatever the picture's size and mode."""

import numpy as np
import pytest
import torch
from PIL import Image

from headpose.bins import Binning
from headpose.data.augment import central_views
from headpose.data.crops import square_view
from headpose.data.render import render
from headpose.networks.network import build_network
from headpose.networks.snapshots import LoadedNetwork
from headpose.predict import predict_images
from usererror import UserError

IMAGE_PX = 32


@pytest.fixture(scope="module")
def network() -> LoadedNetwork:
    binning = Binning(11.0)
    return LoadedNetwork(
        build_network("squeezenet1_1", binning.count, seed=1).eval(), binning, IMAGE_PX
    )


def picture(seed: int, side: int = 90) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


def test_it_answers_what_evaluation_sees_of_a_stored_crop(network: LoadedNetwork) -> None:
    box = (5, 10, 75, 85)
    # As a prepared set stores it: 40 px, of which the view of 32 px is the central 0.8.
    stored = np.asarray(square_view(picture(0), box, 40, scale=1 / 0.8))[None]
    views = central_views(torch.zeros(1, 3), 0.8)
    with torch.inference_mode():
        pixels = render(torch.from_numpy(stored.copy()), views, IMAGE_PX)
        expected = network.binning.expectation(network.net(pixels)).numpy()
    found = predict_images(network, [picture(0)], [box])
    assert found.shape == (1, 3)
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_many_pictures_answer_in_order_as_each_alone(network: LoadedNetwork) -> None:
    images = [picture(seed, side=40 + seed) for seed in range(35)]  # more than one batch
    together = predict_images(network, images)
    assert together.shape == (35, 3)
    alone = np.concatenate([predict_images(network, [image]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-3)
    assert np.ptp(together, axis=0).min() > 1e-3


def test_without_a_box_the_whole_picture_is_the_face(network: LoadedNetwork) -> None:
    whole = predict_images(network, [picture(3), picture(3)], [None, (0, 0, 90, 90)])
    np.testing.assert_array_equal(whole[0], whole[1])
    part = predict_images(network, [picture(3)], [(0, 0, 45, 45)])
    assert np.abs(part - whole[0]).max() > 1e-3


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_pictures_of_any_mode_are_taken(network: LoadedNetwork, mode: str) -> None:
    image = picture(4).convert(mode)
    np.testing.assert_array_equal(
        predict_images(network, [image]), predict_images(network, [image.convert("RGB")])
    )


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_sixteen_bits_of_grey_are_seen_as_eight(network: LoadedNetwork, mode: str) -> None:
    grey = picture(4).convert("L")
    values = np.asarray(grey).astype(np.uint16) * 257  # the same in either order of bytes
    deep = Image.frombytes(mode, grey.size, values.tobytes())
    assert deep.mode == mode
    np.testing.assert_array_equal(predict_images(network, [deep]), predict_images(network, [grey]))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_mode_without_a_known_white_is_refused(network: LoadedNetwork, mode: str) -> None:
    with pytest.raises(UserError, match=r"^picture 2: not a picture that can be used"):
        predict_images(network, [picture(4), Image.new(mode, (40, 40))])


def test_no_pictures_give_no_rows(network: LoadedNetwork) -> None:
    assert predict_images(network, []).shape == (0, 3)


def test_the_networks_mode_is_left_as_it_was_and_dropout_is_off(network: LoadedNetwork) -> None:
    network.net.train()
    try:
        first, second = (predict_images(network, [picture(5)]) for _ in range(2))
        assert network.net.training
    finally:
        network.net.eval()
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("box", [(10, 10, 10, 50), (50, 10, 20, 40), (0, 0, 10**6, 10**6)])
def test_an_impossible_box_is_named(network: LoadedNetwork, box: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"box of picture 2: .*box"):
        predict_images(network, [picture(6), picture(7)], [None, box])


def test_boxes_must_be_as_many_as_pictures(network: LoadedNetwork) -> None:
    with pytest.raises(ValueError, match="zip"):
        predict_images(network, [picture(6)], [None, None])
