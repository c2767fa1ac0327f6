"""Rotations against geometry worked out by hand and against each other."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from headpose.angles import (
    angles_of,
    geodesic_deg,
    mirror,
    rotation_matrices,
    turn_clockwise,
    within_limit,
)
from headpose.labels import LIMIT_DEG, from_pose_para
from usererror import UserError


def random_poses(count: int, yaw_limit_deg: float = 89.0) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    limits = torch.tensor([yaw_limit_deg, 99.0, 99.0], dtype=torch.float64)
    return (2 * torch.rand(count, 3, generator=generator, dtype=torch.float64) - 1) * limits


def degrees(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_rotation_is_the_product_of_three_axis_rotations() -> None:
    for pose in random_poses(20):
        y, p, r = (math.radians(float(angle)) for angle in pose)
        about_x = torch.tensor(
            [[1, 0, 0], [0, math.cos(p), -math.sin(p)], [0, math.sin(p), math.cos(p)]],
            dtype=torch.float64,
        )
        about_y = torch.tensor(
            [[math.cos(-y), 0, math.sin(-y)], [0, 1, 0], [-math.sin(-y), 0, math.cos(-y)]],
            dtype=torch.float64,
        )
        about_z = torch.tensor(
            [[math.cos(r), -math.sin(r), 0], [math.sin(r), math.cos(r), 0], [0, 0, 1]],
            dtype=torch.float64,
        )
        torch.testing.assert_close(rotation_matrices(pose), about_x @ about_y @ about_z)


@pytest.mark.parametrize(
    ("pose", "where_the_nose_points"),
    [
        ((30.0, 0.0, 0.0), (-1, 0)),  # the image's left
        ((0.0, 30.0, 0.0), (0, -1)),  # up; y points down
    ],
)
def test_signs_of_yaw_and_pitch(
    pose: tuple[float, float, float], where_the_nose_points: tuple[int, int]
) -> None:
    nose = rotation_matrices(degrees(*pose)) @ degrees(0, 0, 1)
    assert tuple(torch.sign(nose[:2].round(decimals=9)).int().tolist()) == where_the_nose_points


def test_positive_roll_is_clockwise() -> None:
    crown = rotation_matrices(degrees(0, 0, 30)) @ degrees(0, -1, 0)
    assert crown[0] > 0  # the top of the head leans toward the image's right


def test_angles_of_inverts_rotation_matrices() -> None:
    poses = random_poses(500)
    torch.testing.assert_close(angles_of(rotation_matrices(poses)), poses)
    single = poses.float()
    torch.testing.assert_close(angles_of(rotation_matrices(single)), single, atol=2e-3, rtol=0)


@pytest.mark.parametrize("yaw_deg", [90.0, -90.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rotation_survives_a_yaw_of_exactly_90(yaw_deg: float, dtype: torch.dtype) -> None:
    pose = torch.tensor([yaw_deg, 20.0, 35.0], dtype=dtype)
    rotation = rotation_matrices(pose)
    torch.testing.assert_close(rotation_matrices(angles_of(rotation)), rotation)


@pytest.mark.parametrize(
    ("pose", "by_deg", "expected"),
    [
        ((60.0, 0.0, 0.0), 20.0, (54.47, 30.64, 36.05)),
        ((85.0, 0.0, 0.0), 10.0, (78.8, 63.3, 63.7)),
        ((0.0, 0.0, 10.0), 15.0, (0.0, 0.0, 25.0)),
    ],
)
def test_turning_a_picture(
    pose: tuple[float, ...], by_deg: float, expected: tuple[float, ...]
) -> None:
    turned = turn_clockwise(degrees(*pose), by_deg)
    torch.testing.assert_close(turned, degrees(*expected), atol=0.05, rtol=0)


def test_turning_agrees_with_the_closed_form() -> None:
    poses = random_poses(200)
    by_deg = torch.linspace(-30, 30, 200, dtype=torch.float64)
    y, p, r = torch.deg2rad(poses).unbind(-1)
    a = torch.deg2rad(by_deg)
    yaw = torch.asin(a.cos() * y.sin() - a.sin() * y.cos() * p.sin())
    pitch = torch.atan2(a.sin() * y.sin() + a.cos() * y.cos() * p.sin(), y.cos() * p.cos())
    roll = torch.atan2(
        a.cos() * y.cos() * r.sin() + a.sin() * (p.cos() * r.cos() + p.sin() * y.sin() * r.sin()),
        a.cos() * y.cos() * r.cos() - a.sin() * (p.cos() * r.sin() - p.sin() * y.sin() * r.cos()),
    )
    closed = torch.rad2deg(torch.stack((yaw, pitch, roll), dim=-1))
    turned = turn_clockwise(poses, by_deg)
    # Near ±90° of yaw the other triple may lie nearer the source: compare the rotations.
    torch.testing.assert_close(rotation_matrices(turned), rotation_matrices(closed))
    gentle = poses[:, 0].abs() < 45
    torch.testing.assert_close(turned[gentle], closed[gentle])


def test_turning_and_turning_back_is_the_identity_past_90_too() -> None:
    poses = random_poses(500, yaw_limit_deg=99.0)
    back = turn_clockwise(turn_clockwise(poses, 7.0), -7.0)
    torch.testing.assert_close(rotation_matrices(back), rotation_matrices(poses))
    torch.testing.assert_close(turn_clockwise(poses, 0.0), poses)


def test_past_90_the_triple_nearest_the_source_is_taken() -> None:
    turned = turn_clockwise(degrees(95, 3, 4), 1.0)
    assert abs(float(turned[0]) - 95) < 1
    assert bool((turned[1:].abs() < 20).all())


def test_one_turn_for_each_picture_and_any_batch_shape() -> None:
    poses = random_poses(6).reshape(2, 3, 3)
    by_deg = torch.linspace(-20, 20, 6, dtype=torch.float64).reshape(2, 3)
    turned = turn_clockwise(poses, by_deg)
    torch.testing.assert_close(turned[1, 2], turn_clockwise(poses[1, 2], float(by_deg[1, 2])))


def test_mirror_twice_is_the_identity_and_mirrors_the_rotation() -> None:
    poses = random_poses(50)
    flip = torch.diag(degrees(-1, 1, 1))
    torch.testing.assert_close(
        rotation_matrices(mirror(poses)), flip @ rotation_matrices(poses) @ flip
    )
    assert torch.equal(mirror(mirror(poses)), poses)


def test_geodesic_of_one_axis_is_the_difference() -> None:
    start = degrees(0, 0, 10)
    torch.testing.assert_close(geodesic_deg(start, degrees(0, 0, 55)), torch.tensor(45.0).double())
    half_turn = geodesic_deg(degrees(0, 0, 0), degrees(0, 180, 0))
    torch.testing.assert_close(half_turn, torch.tensor(180.0).double())


def test_geodesic_is_symmetric_invariant_and_blind_to_the_choice_of_triple() -> None:
    a, b = random_poses(100), random_poses(100).flip(0)
    torch.testing.assert_close(geodesic_deg(a, b), geodesic_deg(b, a))
    turned = geodesic_deg(turn_clockwise(a, 25.0), turn_clockwise(b, 25.0))
    torch.testing.assert_close(turned, geodesic_deg(a, b))
    other = torch.stack((180 - a[:, 0], a[:, 1] + 180, a[:, 2] + 180), dim=-1)
    assert float(geodesic_deg(a, other).max()) < 1e-6


def test_small_geodesics_are_exact_in_single_precision() -> None:
    a = torch.tensor([40.0, 10.0, -5.0])
    assert float(geodesic_deg(a, a)) < 1e-4
    near = geodesic_deg(a, a + torch.tensor([0.0, 0.01, 0.0]))
    assert float(near) == pytest.approx(0.01, rel=0.02)


def test_limit_is_inclusive_and_refuses_what_is_not_finite() -> None:
    poses = torch.tensor(
        [
            [99.0, -99.0, 0.0],
            [99.001, 0.0, 0.0],
            [0.0, math.nan, 0.0],
            [0.0, 0.0, -math.inf],
            [0.0, 0.0, -99.1],
        ]
    )
    assert within_limit(poses).tolist() == [True, False, False, False, False]
    assert LIMIT_DEG == 99.0


@pytest.mark.parametrize("shape", [(1, 7), (7,)])
def test_pose_para_is_pitch_yaw_roll_in_radians(shape: tuple[int, ...]) -> None:
    field = np.array([0.1, -0.2, 0.3, 5, 6, 7, 8], dtype=np.float32).reshape(shape)
    angles = from_pose_para(field)
    assert angles.dtype == np.float64
    np.testing.assert_allclose(angles, np.rad2deg([-0.2, 0.1, 0.3]), rtol=1e-6)


def test_a_nan_in_pose_para_is_kept_for_the_filter() -> None:
    angles = from_pose_para(np.array([[np.nan, 0, 0, 0, 0, 0, 0]]))
    assert not bool(within_limit(torch.from_numpy(angles)))


@pytest.mark.parametrize(
    "field", [np.zeros((1, 2)), np.zeros((2, 7)), np.array(["a", "b", "c"]), np.array(0.5)]
)
def test_what_is_no_pose_para_is_refused(field: np.ndarray) -> None:
    with pytest.raises(UserError, match="Pose_Para: not a row of numbers"):
        from_pose_para(field)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_is_kept(dtype: torch.dtype) -> None:
    poses = random_poses(3).to(dtype)
    assert rotation_matrices(poses).dtype == dtype
    assert turn_clockwise(poses, 5.0).dtype == dtype
    assert geodesic_deg(poses, poses).dtype == dtype
