"""Rendering: pixels where they belong, whatever the batch, and few launches on a GPU."""

import math

import torch
from pixels import brightness, seeded
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from headpose.data.augment import Augmentation, Views, central_views, draw_views
from headpose.data.render import (
    _blur,
    _centres,
    _kernel,
    _lines,
    _normalisation,
    _part_size,
    render,
)
from headpose.normalisation import IMAGENET_MEAN, IMAGENET_STD

STORED_PX, VIEW_PX, VIEW_FRACTION = 160, 80, 0.75


def test_the_central_view_is_the_stored_centre_pixel_for_pixel() -> None:
    images = torch.randint(0, 256, (3, 80, 80, 3), dtype=torch.uint8, generator=seeded())
    poses = torch.tensor([[1.0, 2, 3]] * 3)
    views = central_views(poses, 0.8)
    assert torch.equal(views.angles_deg, poses)
    seen = render(images, views, 64)
    assert seen.shape == (3, 3, 64, 64)
    scaled = images[:, 8:72, 8:72].permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(row).view(3, 1, 1) for row in (IMAGENET_MEAN, IMAGENET_STD))
    assert torch.allclose(seen, (scaled - mean) / std, atol=2e-4)


def test_beyond_the_stored_crop_all_is_black() -> None:
    images = torch.full((1, 40, 40, 3), 255, dtype=torch.uint8)
    views = Views(torch.eye(2, 3)[None] * 2, torch.zeros(1, 3), torch.zeros(1).bool(), 1.0)
    light = brightness(render(images, views, 40))[0]
    assert light[:9].abs().max() < 1e-5
    assert (light[11:29, 11:29] - 1).abs().max() < 1e-5


def test_a_much_smaller_view_averages_instead_of_skipping_pixels() -> None:
    stripes = torch.zeros(1, 240, 240, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    light = brightness(render(stripes, central_views(torch.zeros(1, 3), 0.8), 48))[0]
    assert (light - 0.5).abs().max() < 0.01


def test_blur_is_a_gaussian_with_the_edge_repeated() -> None:
    for view_px in (4, 32, 224):
        pixels = 255 * torch.rand(2, 3, view_px, view_px, generator=seeded())
        sigma = 1.66 / 300 * view_px
        radius = max(1, math.ceil(3 * sigma))
        heights = torch.exp(-(torch.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
        kernel = torch.outer(heights, heights) / heights.sum() ** 2
        padded = torch.nn.functional.pad(pixels, (radius,) * 4, mode="replicate")
        expected = torch.nn.functional.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)
        torch.testing.assert_close(_blur(pixels), expected, rtol=0, atol=1e-3)
        torch.testing.assert_close(_kernel(view_px, pixels.device), kernel.expand(3, 1, -1, -1))


def test_a_view_is_the_same_whatever_is_rendered_with_it() -> None:
    size = _part_size(torch.empty(1, STORED_PX, STORED_PX, 3))
    assert size > 1
    count = 2 * size + 1
    shape = (count, STORED_PX, STORED_PX, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded())
    varied = Augmentation(flip=0.5, blur=0.5, rotate_deg=20.0, crop_jitter=0.1)
    views = draw_views(torch.zeros(count, 3), VIEW_FRACTION, varied, seeded(3))
    assert 0 < views.blurred.sum() < count
    together = render(images, views, VIEW_PX)
    assert together.is_contiguous(memory_format=torch.channels_last)
    for row in range(count):
        one = slice(row, row + 1)
        assert torch.equal(together[one], render(images[one], views.of(one), VIEW_PX))


def test_the_grid_is_that_of_pytorch_to_rounding() -> None:
    views = draw_views(
        torch.randn(5, 3, generator=seeded()) * 20,
        VIEW_FRACTION,
        Augmentation(flip=0.5, rotate_deg=40.0, crop_jitter=0.2),
        seeded(1),
    )
    for view_px in (1, 7, 64):
        expected = torch.nn.functional.affine_grid(
            views.thetas, [5, 3, view_px, view_px], align_corners=False
        )
        along_x, along_y = _lines(views.thetas, view_px)
        found = (along_x + along_y).permute(0, 2, 3, 1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_first_view_drawn_for_inference_spoils_no_training() -> None:
    made_once = (_normalisation, _centres, _kernel)
    for make in made_once:
        make.cache_clear()
    images = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    views = central_views(torch.zeros(1, 3), VIEW_FRACTION)
    with torch.inference_mode():
        render(images, views, 8)
        _kernel(8, images.device)  # which a CPU blurs without
    weight = torch.ones(1, requires_grad=True)
    (render(images, views, 8) * weight).sum().backward()
    assert weight.grad is not None
    kept = [*_normalisation(images.device), _centres(8, images.device), _kernel(8, images.device)]
    assert [make.cache_info().misses for make in made_once] == [1, 1, 1]
    assert not any(tensor.is_inference() for tensor in kept)


def test_a_gpu_renders_any_number_of_images_in_a_dozen_launches() -> None:
    """On PyTorch's device without memory, which takes the way of a GPU; views are not launches."""
    images = torch.empty(64, 280, 280, 3, dtype=torch.uint8, device="meta")
    varied = Augmentation(flip=0.5, blur=0.5, rotate_deg=20.0, crop_jitter=0.1)
    views = draw_views(torch.zeros(64, 3), 0.8, varied, seeded()).on(images.device)
    render(images, views, 224)  # makes what is made once
    launches: list[str] = []

    class Launches(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            leaves = tree_leaves((args, kwargs))
            if not func.is_view and any(getattr(leaf, "is_meta", False) for leaf in leaves):
                launches.append(func.name())
            return func(*args, **(kwargs or {}))

    with Launches():
        seen = render(images, views, 224)
    assert seen.shape == (64, 3, 224, 224)
    assert seen.is_contiguous(memory_format=torch.channels_last)
    assert len(launches) <= 12, launches
