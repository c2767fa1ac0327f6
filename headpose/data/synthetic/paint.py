"""Colours on the surface of a head: skin, eyes, brows, mouth, beard, glasses, hair, clothes.

Points are (n, 3) millimetres in the unstretched head's frame (of the body's frame for neck and
torso); colours are (n, 3) linear RGB. Edges are soft over about a millimetre. All constants are
untuned: chosen by looking at the pictures.
"""

import numpy as np

from headpose.data.synthetic.geometry import Floats, Part
from headpose.data.synthetic.head import brow_height, mouth_line
from headpose.data.synthetic.identity import Identity, Look, Shape

# Hair varies more across its strands than along them.
_STRANDS = np.array([3, 0.6, 2], dtype=np.float32)


def paint(part: Part, points: Floats, identity: Identity) -> Floats:
    """The colour (n, 3) of each surface point of one part."""
    look = identity.look
    if part is Part.FACE:
        return _face(points, identity)
    if part is Part.NOSE:
        return _nose(points, identity)
    if part is Part.HAIR:
        return look.hair * (0.75 + 0.5 * _texture(points * _STRANDS, look))[:, None]
    if part is Part.TORSO:
        stripes = 1 - look.stripes * (np.sin(points[:, 1] * 0.35) > 0.2)
        return np.asarray(look.clothes * stripes[:, None], dtype=np.float32)
    skin = _skin(points, look)
    if part is Part.EAR:
        return skin * np.array([0.95, 0.8, 0.78], dtype=np.float32)
    return skin * np.float32(0.8)  # the neck lies in the head's shade


def _texture(points: Floats, look: Look) -> Floats:
    """A smooth pattern (n,) in 0..1, different for each face."""
    phase = points @ look.waves[:, :3].T + look.waves[:, 3]
    pattern: Floats = 0.5 + 0.5 * np.sin(phase.astype(np.float32)).mean(axis=1)
    return pattern


def _skin(points: Floats, look: Look) -> Floats:
    tone: Floats = look.skin * (0.92 + 0.16 * _texture(points, look))[:, None]
    return tone


def _soft(distance: Floats, width: float = 1.2) -> Floats:
    """1 where ``distance`` is negative, 0 where positive, a ramp of ``width`` mm between."""
    ramp: Floats = np.clip(0.5 - distance / width, 0, 1)
    return ramp


def _blend(colours: Floats, over: Floats, share: Floats) -> None:
    """Lay ``over`` (3,) or (n, 3) on ``colours`` in place, with (n,) opacity."""
    colours += (over - colours) * share[:, None]


def _spot(points: Floats, x: float, y: float, wide: float, high: float) -> Floats:
    """A soft round spot (n,) of height 1, the same on both sides of the face."""
    across = (np.abs(points[:, 0]) - x) / wide
    along = (points[:, 1] - y) / high
    spot: Floats = np.exp(-(across * across + along * along))
    return spot


def _face(points: Floats, identity: Identity) -> Floats:
    shape, look = identity.shape, identity.look
    colours = _skin(points, look)
    front = np.flatnonzero((points[:, 2] > 5) & (points[:, 1] > -62))
    near, patch = points[front], colours[front]
    _blend(
        patch,
        patch * np.array([1.05, 0.75, 0.72], dtype=np.float32),
        0.7 * _spot(near, 38, 14, 18, 16),
    )
    sockets = _spot(near, shape.eye_x - 3, shape.eye_y - 2, 19, 10)
    _blend(patch, patch * np.float32(0.45), 0.8 * sockets)
    if look.beard:
        _beard(near, patch, shape, look)
    _mouth(near, patch, shape, look)
    _eyes(near, patch, shape, look)
    _brows(near, patch, shape, look)
    if look.glasses:
        _glasses(near, patch, shape, look)
    colours[front] = patch
    return colours


def _nose(points: Floats, identity: Identity) -> Floats:
    shape, look = identity.shape, identity.look
    colours = _skin(points, look) * np.array([1.0, 0.92, 0.9], dtype=np.float32)
    tip_y = -26 + shape.nose_length
    across = (np.abs(points[:, 0]) - shape.nose_half_width * 0.45) / 4
    along = (points[:, 1] - tip_y - 10) / 3.5
    outside: Floats = ((across * across + along * along - 1) * 2).astype(np.float32)
    nostrils = _soft(outside)
    _blend(colours, look.skin * np.float32(0.08), nostrils)
    return colours


def _beard(points: Floats, colours: Floats, shape: Shape, look: Look) -> None:
    y, z = points[:, 1], points[:, 2]
    # Along the jaw from the ears, and all below the nose.
    upper_edge = np.interp(z, [5, 40, 75], [0, 40, shape.mouth_y - 16])
    below: Floats = (upper_edge - y).astype(np.float32)
    _blend(colours, look.brow, look.beard * _soft(below, 8))


def _mouth(points: Floats, colours: Floats, shape: Shape, look: Look) -> None:
    x = points[:, 0]
    bulge = 1 - (x / shape.mouth_half_width) ** 2
    off = np.abs(points[:, 1] - mouth_line(shape, x))
    in_front = (points[:, 2] > 40) & (bulge > 0)
    gap = shape.mouth_opening / 2
    lips = _soft(off - (shape.lip_thickness + gap) * bulge) * in_front
    _blend(colours, look.lips, lips)
    _blend(colours, look.lips * np.float32(0.15), _soft(off - gap * bulge - 0.8) * in_front)
    if gap > 2:  # teeth
        above = points[:, 1] < mouth_line(shape, x)
        _blend(
            colours,
            np.array([0.75, 0.72, 0.65], dtype=np.float32),
            _soft(off - (gap - 0.8) * bulge) * in_front * above,
        )


def _eyes(points: Floats, colours: Floats, shape: Shape, look: Look) -> None:
    x, y = points[:, 0], points[:, 1]
    side = np.sign(x)
    dx = np.abs(x) - shape.eye_x  # grows outward
    almond = 1 - (dx / shape.eye_half_width) ** 2
    dy = y - shape.eye_y
    in_front = (points[:, 2] > 30) & (almond > 0)
    edge = np.abs(dy) - shape.eye_opening * almond
    _blend(colours, look.skin * np.float32(0.12), _soft(edge - 1.3) * in_front)  # lids, lashes
    inside = _soft(edge) * in_front
    _blend(colours, np.array([0.72, 0.7, 0.68], dtype=np.float32), inside)
    radius = np.hypot(dx * side - look.gaze[0], dy - look.gaze[1])
    _blend(colours, look.iris, _soft(radius - 6.2) * inside)
    _blend(colours, np.zeros(3, dtype=np.float32), _soft(radius - 2.6) * inside)


def _brows(points: Floats, colours: Floats, shape: Shape, look: Look) -> None:
    inward: Floats = np.abs(points[:, 0]) - np.float32(shape.eye_x)
    thick = shape.brow_thickness * np.clip((19 - inward) / 30, 0.25, 1)
    off = np.abs(points[:, 1] - brow_height(shape, inward)) - thick
    reach = np.abs(inward) - 19
    _blend(colours, look.brow, 0.9 * _soft(np.maximum(off, reach), 2) * (points[:, 2] > 20))


def _glasses(points: Floats, colours: Floats, shape: Shape, look: Look) -> None:
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    dx, dy = np.abs(x) - shape.eye_x, y - shape.eye_y - 3
    rim = np.abs((np.abs(dx / 24) ** 3 + np.abs(dy / 19) ** 3) ** (1 / 3) - 1) * 20 - 1.6
    bridge = np.maximum(np.abs(x) - (shape.eye_x - 23), np.abs(dy + 6) - 1.5)
    temples = np.maximum(z - 62, np.abs(dy + 8) - 1.8)
    rings = np.where(z > 25, np.minimum(rim, bridge), 9)
    frame = _soft(np.minimum(rings, temples))
    _blend(colours, np.array([0.02, 0.02, 0.02], dtype=np.float32), look.glasses * frame)
