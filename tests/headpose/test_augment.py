"""Views move pixels and labels together: proved on rendered dots, not on formulas."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from pixels import brightness, seeded
from torch import Tensor

from headpose.angles import rotation_matrices
from headpose.data.augment import Augmentation, Views, central_views, draw_views
from headpose.data.render import render
from headpose.labels import LIMIT_DEG

STORED_PX, VIEW_PX, VIEW_FRACTION = 240, 120, 0.75
# Not coplanar and without symmetry: head points (x right, y down, z toward the viewer), stored px.
HEAD_POINTS = 40.0 * torch.tensor([[1.0, 0, 0.3], [-1, 0.2, 0], [0, 1, 0], [0.3, -0.9, 0.5]])
MIRROR = torch.tensor([-1.0, 1.0, 1.0])


def dots_at(points_px: Tensor) -> Tensor:
    """(S, S, 3) uint8: a soft dot around each stored position, relative to the centre."""
    rows, columns = torch.meshgrid(
        *[torch.arange(STORED_PX) + 0.5 - STORED_PX / 2] * 2, indexing="ij"
    )
    light = torch.zeros(STORED_PX, STORED_PX)
    for x, y in points_px:
        light += torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2))
    return (255 * light).clamp(max=255).to(torch.uint8)[..., None].expand(-1, -1, 3).contiguous()


def centroid_px(light: Tensor) -> Tensor:
    """(2,) x and y of the brightness, in view pixels from the view's centre."""
    axis = torch.arange(VIEW_PX) + 0.5 - VIEW_PX / 2
    total = light.sum()
    return torch.stack([(light.sum(0) * axis).sum(), (light.sum(1) * axis).sum()]) / total


def projected_px(angles_deg: Tensor, points: Tensor = HEAD_POINTS) -> Tensor:
    """(points, 2) where the points of a head of that pose appear, orthographically."""
    return (points @ rotation_matrices(angles_deg.double()).float().T)[:, :2]


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("rotate_deg", [0.0, 35.0])
@pytest.mark.parametrize("crop_jitter", [0.0, 0.08])
def test_labels_are_the_pose_that_the_view_shows(
    flip: float, rotate_deg: float, crop_jitter: float
) -> None:
    poses = torch.tensor([[0.0, 0, 0], [40, -20, 10], [-55, 25, -15], [20, 10, 30], [-5, -30, 5]])
    augmentation = Augmentation(flip=flip, rotate_deg=rotate_deg, crop_jitter=crop_jitter)
    views = draw_views(poses, VIEW_FRACTION, augmentation, seeded(3))
    head = HEAD_POINTS * MIRROR if flip else HEAD_POINTS  # the mirrored head of the mirrored view
    to_view = VIEW_PX / (STORED_PX * VIEW_FRACTION)
    for number, pose in enumerate(poses):
        # One picture a point, all seen through the same view, so that each is found for itself.
        images = torch.stack([dots_at(point[None]) for point in projected_px(pose)])
        centre = dots_at(torch.zeros(1, 2))[None]
        one = views.of(slice(number, number + 1))
        same = Views(
            one.thetas.expand(5, -1, -1), one.angles_deg.expand(5, -1), torch.zeros(5).bool(), 0.75
        )
        light = brightness(render(torch.cat([images, centre]), same, VIEW_PX))
        seen = torch.stack([centroid_px(picture) for picture in light])
        offsets = seen[:4] - seen[4]
        expected = projected_px(views.angles_deg[number], head) * to_view
        scale = (offsets * expected).sum() / (expected**2).sum()
        assert abs(float(scale) - 1) <= 1.02 * crop_jitter / (1 - crop_jitter) + 0.005
        assert torch.allclose(offsets, expected * scale, atol=0.3), (pose, offsets, expected)
        assert seen[4].abs().max() <= crop_jitter * VIEW_PX / (1 - crop_jitter) + 0.3


def test_a_positive_turn_is_clockwise_and_rolls_the_head_clockwise() -> None:
    generator = seeded()
    views = draw_views(torch.zeros(50, 3), VIEW_FRACTION, Augmentation(rotate_deg=30.0), generator)
    roll = views.angles_deg[:, 2]
    assert roll.abs().max() <= 30
    assert roll.max() > 15
    number = int(roll.argmax())
    above = dots_at(torch.tensor([[0.0, -60.0]]))[None]  # moves to the right when turned clockwise
    one = views.of(slice(number, number + 1))
    x, y = centroid_px(brightness(render(above, one, VIEW_PX))[0])
    assert math.degrees(math.atan2(x, -y)) == pytest.approx(float(roll[number]), abs=0.5)


def test_jitter_moves_by_shares_of_the_view_side_both_ways() -> None:
    views = draw_views(torch.zeros(4000, 3), 0.5, Augmentation(crop_jitter=0.1), seeded())
    move = views.thetas[:, :, 2]  # in units of half the stored side; the view's side is one unit
    assert move.abs().max() <= 0.1
    assert (move.amax(0) > 0.099).all()
    assert (move.amin(0) < -0.099).all()
    side = views.thetas[:, 0, 0] / 0.5
    assert side.min() == pytest.approx(0.9, abs=1e-3)
    assert side.max() == pytest.approx(1.1, abs=1e-3)


def test_labels_never_leave_the_limit_and_such_images_are_not_turned() -> None:
    rng = np.random.default_rng(0)
    poses = torch.from_numpy(rng.uniform(-99, 99, (5000, 3)).astype(np.float32))
    poses[0] = torch.tensor([99.0, -99.0, 99.0])
    views = draw_views(poses, 0.8, Augmentation(rotate_deg=45.0), seeded())
    assert (views.angles_deg.abs() <= LIMIT_DEG).all()
    unchanged = (views.angles_deg == poses).all(1)
    straight = views.thetas[:, 0, 1] == 0
    assert torch.equal(unchanged, straight)
    assert 50 < int(straight.sum()) < 4000


def test_flip_and_blur_happen_as_often_as_asked() -> None:
    poses = torch.tensor([[10.0, 20.0, 30.0]]).expand(4000, 3)
    views = draw_views(poses, 0.8, Augmentation(flip=0.5, blur=0.05), seeded())
    flipped = views.angles_deg[:, 0] < 0
    assert 0.45 < flipped.float().mean() < 0.55
    assert 0.03 < views.blurred.float().mean() < 0.07
    assert (views.angles_deg[flipped] == torch.tensor([-10.0, 20.0, -30.0])).all()
    assert (views.angles_deg[~flipped] == poses[0]).all()


def test_a_share_is_turned_and_the_rest_keeps_view_and_label_to_the_last_bit() -> None:
    poses = torch.tensor([[30.0, -10.0, 5.0]]).expand(4000, 3)
    everything = Augmentation(flip=0.5, blur=0.05, rotate_deg=20.0, crop_jitter=0.05)
    whole = draw_views(poses, 0.8, everything, seeded())
    part = draw_views(poses, 0.8, dataclasses.replace(everything, rotate_share=0.44), seeded())
    none = draw_views(poses, 0.8, dataclasses.replace(everything, rotate_deg=0.0), seeded())
    turned = (part.angles_deg != none.angles_deg).any(1)
    assert 0.42 < turned.float().mean() < 0.46
    assert torch.equal(part.blurred, none.blurred)
    for name in ("thetas", "angles_deg"):
        seen = getattr(part, name)
        assert torch.equal(seen[turned], getattr(whole, name)[turned])
        assert torch.equal(seen[~turned], getattr(none, name)[~turned])


@pytest.mark.parametrize(("share", "as_without"), [(0.0, {"rotate_deg": 0.0}), (1.0, {})])
def test_a_share_of_none_or_all(share: float, as_without: dict[str, float]) -> None:
    poses = torch.tensor([[30.0, -10.0, 5.0]]).expand(500, 3)
    given = Augmentation(rotate_deg=20.0, rotate_share=share)
    expected = Augmentation(**{"rotate_deg": 20.0, **as_without})
    views, same = (draw_views(poses, 0.8, each, seeded()) for each in (given, expected))
    assert torch.equal(views.thetas, same.thetas)
    assert torch.equal(views.angles_deg, same.angles_deg)


def test_the_same_generator_gives_the_same_views_and_one_property_moves_no_other() -> None:
    poses = torch.zeros(20, 3)
    plain = draw_views(poses, 0.8, Augmentation(flip=0.5), seeded(1))
    again = draw_views(poses, 0.8, Augmentation(flip=0.5), seeded(1))
    jittered = draw_views(poses, 0.8, Augmentation(flip=0.5, crop_jitter=0.1), seeded(1))
    assert torch.equal(plain.thetas, again.thetas)
    assert torch.equal(plain.thetas[:, 0, 0] < 0, jittered.thetas[:, 0, 0] < 0)


def test_blur_softens_only_the_chosen_and_keeps_the_brightness() -> None:
    images = dots_at(torch.zeros(1, 2))[None].repeat(2, 1, 1, 1)
    views = central_views(torch.zeros(2, 3), VIEW_FRACTION)
    chosen = Views(views.thetas, views.angles_deg, torch.tensor([True, False]), VIEW_FRACTION)
    soft, sharp = brightness(render(images, chosen, VIEW_PX))
    assert soft.max() < sharp.max() - 0.02
    assert float(soft.sum()) == pytest.approx(float(sharp.sum()), rel=1e-3)
    untouched = brightness(render(images, views, VIEW_PX))[1]
    assert torch.equal(sharp, untouched)
