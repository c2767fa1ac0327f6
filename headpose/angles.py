"""Head-pose angles and rotations: degrees become radians here and, in files, in
``headpose.labels``.

The convention, stated once. Axes: x to the image's right, y down, z toward the viewer. A pose is
the triple yaw, pitch, roll in degrees, in this order, and stands for the rotation

    R = Rx(pitch) · Ry(−yaw) · Rz(roll).

yaw > 0 turns the nose toward the image's left, pitch > 0 turns it up, roll > 0 tilts the head
clockwise as the picture is seen. Turning the *picture* clockwise by ``a`` gives R′ = Rz(a) · R.

Two triples stand for every rotation: (yaw, pitch, roll) and (180 − yaw, pitch + 180, roll + 180).

Shapes: ``...`` is any batch, the last axis of ``angles_deg`` is yaw, pitch, roll. Tensors keep
their device and dtype (half precision is computed in float32, whole numbers in float32).
"""

import torch
from torch import Tensor

from headpose.labels import LIMIT_DEG


def rotation_matrices(angles_deg: Tensor) -> Tensor:
    """Rotation of each pose.

    Args:
        angles_deg: (..., 3) yaw, pitch, roll.

    Returns:
        (..., 3, 3) Rx(pitch) · Ry(−yaw) · Rz(roll).
    """
    angles = torch.deg2rad(_computable(angles_deg))
    (cos_y, cos_p, cos_r), (sin_y, sin_p, sin_r) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = (
        (cos_y * cos_r, -cos_y * sin_r, -sin_y),
        (
            cos_p * sin_r - sin_p * sin_y * cos_r,
            cos_p * cos_r + sin_p * sin_y * sin_r,
            -sin_p * cos_y,
        ),
        (
            sin_p * sin_r + cos_p * sin_y * cos_r,
            sin_p * cos_r - cos_p * sin_y * sin_r,
            cos_p * cos_y,
        ),
    )
    return _restored(torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2), angles_deg)


def angles_of(rotations: Tensor) -> Tensor:
    """The triple of a rotation whose yaw lies within ±90°: the inverse of rotation_matrices.

    At yaw = ±90° exactly only the sum or difference of pitch and roll is determined; all of it is
    then given to the pitch.

    Args:
        rotations: (..., 3, 3).

    Returns:
        (..., 3) yaw within [−90, 90], pitch and roll within [−180, 180], in degrees.
    """
    r = _computable(rotations)
    cos_yaw = torch.hypot(r[..., 0, 0], r[..., 0, 1])
    yaw = torch.atan2(-r[..., 0, 2], cos_yaw)  # better conditioned near ±90° than asin
    pitch = torch.atan2(-r[..., 1, 2], r[..., 2, 2])
    roll = torch.atan2(-r[..., 0, 1], r[..., 0, 0])
    locked = cos_yaw < 4 * torch.finfo(r.dtype).eps  # below that pitch and roll are rounding noise
    locked_pitch = -torch.sign(yaw) * torch.atan2(r[..., 1, 0], r[..., 1, 1])
    pitch = torch.where(locked, locked_pitch, pitch)
    roll = torch.where(locked, torch.zeros_like(roll), roll)
    return _restored(torch.rad2deg(torch.stack((yaw, pitch, roll), dim=-1)), rotations)


def turn_clockwise(angles_deg: Tensor, by_deg: Tensor | float) -> Tensor:
    """Poses after their pictures were turned clockwise, as seen by the viewer.

    PIL's and torchvision's ``rotate(+t)`` turn counter-clockwise: pass ``-t`` for them.

    Args:
        angles_deg: (..., 3) yaw, pitch, roll; |yaw| may exceed 90.
        by_deg: (...) or a number.

    Returns:
        (..., 3) the exact pose, R′ = Rz(by) · R; of its two triples the one nearest the source,
        angles within [−180, 180].
    """
    source = _computable(angles_deg)
    turn = torch.deg2rad(torch.as_tensor(by_deg, dtype=source.dtype, device=source.device))
    cos, sin = turn.cos()[..., None], turn.sin()[..., None]
    before = rotation_matrices(source)
    x, y, z = before.unbind(-2)
    after = torch.stack((cos * x - sin * y, sin * x + cos * y, z.expand_as(cos * x)), dim=-2)
    return _restored(_nearest_triple(angles_of(after), source), angles_deg)


def mirror(angles_deg: Tensor) -> Tensor:
    """Poses of the pictures flipped left to right: yaw and roll change sign. (..., 3)"""
    return angles_deg * angles_deg.new_tensor([-1, 1, -1])


def geodesic_deg(a_deg: Tensor, b_deg: Tensor) -> Tensor:
    """Angle of the one rotation that leads from pose a to pose b.

    acos((tr(A·Bᵀ) − 1) / 2) of Huynh 2009, written with atan2: acos loses half of the digits of
    a small angle, 0.03° in float32.

    Args:
        a_deg, b_deg: (..., 3) yaw, pitch, roll.

    Returns:
        (...) degrees within [0, 180].
    """
    relative = rotation_matrices(_computable(a_deg)) @ rotation_matrices(
        _computable(b_deg)
    ).transpose(-1, -2)
    twice_sin = torch.linalg.vector_norm(
        torch.stack(
            (
                relative[..., 2, 1] - relative[..., 1, 2],
                relative[..., 0, 2] - relative[..., 2, 0],
                relative[..., 1, 0] - relative[..., 0, 1],
            ),
            dim=-1,
        ),
        dim=-1,
    )
    twice_cos = relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1
    return _restored(torch.rad2deg(torch.atan2(twice_sin, twice_cos)), a_deg)


def within_limit(angles_deg: Tensor) -> Tensor:
    """Which poses may be labels: all three angles finite and within ±99°, 99.0 included. (...)"""
    return (angles_deg.abs() <= LIMIT_DEG).all(dim=-1)  # a comparison with NaN is false


def _nearest_triple(angles_deg: Tensor, source_deg: Tensor) -> Tensor:
    """Of the two triples of a rotation the one nearest the source, in squared degrees."""
    yaw, pitch, roll = angles_deg.unbind(-1)
    other = _wrapped(torch.stack((180 - yaw, pitch + 180, roll + 180), dim=-1))
    distances = [_wrapped(triple - source_deg).square().sum(-1) for triple in (angles_deg, other)]
    return torch.where((distances[1] < distances[0])[..., None], other, angles_deg)


def _wrapped(degrees: Tensor) -> Tensor:
    """The same directions within [−180, 180)."""
    return torch.remainder(degrees + 180, 360) - 180


def _computable(values: Tensor) -> Tensor:
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _restored(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype) if like.is_floating_point() else values
