"""From pictures to degrees: the network's use outside of training and evaluation."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from headpose.data.augment import central_views
from headpose.data.crops import Box, NoBoxError, square_view
from headpose.data.decoding import in_rgb
from headpose.data.render import render
from headpose.networks.snapshots import LoadedNetwork
from usererror import UserError

_BATCH = 32  # bounds the memory; untuned


def predict_images(
    network: LoadedNetwork,
    images: Sequence[Image.Image],
    boxes: Sequence[Box | None] | None = None,
) -> npt.NDArray[np.float32]:
    """Where heads are looking.

    Each face is cut as at test time: its box's central square, resized once to the network's
    input. That is pixel for pixel what evaluation sees of a set whose stored views have that size,
    and a little sharper or softer than one stored at another.

    Args:
        network: evaluated on its own device; its mode is left as it is found.
        images: N pictures of any size and mode, but for those of 32 bits a pixel (I, F).
        boxes: N boxes (left, top, right, bottom) in pixels, as :mod:`headpose.data.crops` draws
            them around a face; None in place of one, or of all, takes the whole picture.

    Returns:
        (N, 3) yaw, pitch, roll in degrees.

    Raises:
        UserError: a box has no area or lies far beyond its picture, or a picture's mode does not
            say what is white.
        ValueError: not as many boxes as pictures.
    """
    faces = list(zip(images, boxes or [None] * len(images), strict=True))
    found = [np.zeros((0, 3), dtype=np.float32)]
    for start in range(0, len(faces), _BATCH):
        chunk = [
            _view(start + place, image, box, network.image_px)
            for place, (image, box) in enumerate(faces[start : start + _BATCH])
        ]
        found.append(_degrees(network, torch.from_numpy(np.stack(chunk))))
    return np.concatenate(found)


def _view(index: int, image: Image.Image, box: Box | None, side_px: int) -> npt.NDArray[np.uint8]:
    try:
        pixels = in_rgb(image)  # first: a palette or an alpha channel cannot be averaged
    except ValueError as error:
        raise UserError(
            f"picture {index + 1}", "not a picture that can be used", got=str(error)
        ) from error
    try:
        view = square_view(pixels, box or (0, 0, *image.size), side_px)
    except NoBoxError as error:
        raise UserError(
            f"box of picture {index + 1}",
            str(error),
            rule="left, top, right, bottom in pixels, right of left and below top",
        ) from error
    return np.asarray(view)


def _degrees(network: LoadedNetwork, views_u8: torch.Tensor) -> npt.NDArray[np.float32]:
    """(N, P, P, 3) uint8 views to (N, 3)."""
    net = network.net
    device = next(net.parameters()).device
    whole = central_views(torch.zeros(len(views_u8), 3), view_fraction=1.0)
    was_training = net.training
    net.eval()
    try:
        with torch.inference_mode():
            pixels = render(views_u8.to(device), whole, network.image_px)
            angles_deg = network.binning.expectation(net(pixels))
    finally:
        net.train(was_training)
    degrees: npt.NDArray[np.float32] = angles_deg.float().cpu().numpy()
    return degrees
