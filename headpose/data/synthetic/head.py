"""The bodies that make up a head, and the 68 points fixed on its surface.

Head frame: origin midway between the ears, x toward the image's right, y down, z out of the face,
millimetres. Average adult dimensions, from common anthropometric tables and by eye.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from headpose.data.synthetic.geometry import Ellipsoid, Floats, Mask, Part, outermost
from headpose.data.synthetic.identity import Identity, Look, Shape

NECK_PIVOT_MM = np.array([0.0, 45.0, -25.0], dtype=np.float32)  # where neck and head are joined

# On the unit sphere: low, and turned half outward and half forward, so that it is seen from the
# front as well as from its side.
_EAR_LOBE = np.array([0.6, 0.5, 0.6245], dtype=np.float32)

# Indices of the 68 points after mirroring left and right (the iBUG order).
MIRRORED_68 = np.array(
    [
        *(*range(16, -1, -1), *range(26, 16, -1)),  # contour, brows
        *(*range(27, 31), *range(35, 30, -1)),  # nose
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65),  # mouth
    ]
)


def build_head(identity: Identity) -> list[Ellipsoid]:
    """All bodies of one person, those of the head stretched as the identity says."""
    shape, look = identity.shape, identity.look
    bodies = [*_face(shape), *_nose(shape), *_ears(shape), *_hair(look)]
    return [_stretched(body, shape.stretch) for body in bodies] + _below(shape)


def landmarks_68(identity: Identity) -> Floats:
    """The 68 points (68, 3) on the surface of the head, in its frame; none of them on hair."""
    shape = identity.shape
    skin = [*_face(shape), *_nose(shape)]
    front = _front_points(shape)
    origins = np.concatenate([front, np.zeros((len(front), 1), np.float32)], axis=1)
    forward = np.broadcast_to(np.array([0, 0, 1], dtype=np.float32), origins.shape)
    depth = np.maximum(outermost(skin, origins, forward), 0)
    points = np.concatenate([_contour(skin), origins + forward * depth[:, None]])
    return np.asarray(points * shape.stretch, dtype=np.float32)


def extra_points(identity: Identity) -> Floats:
    """(5, 3): middle of the left and right eye (image side), left and right ear, mouth."""
    shape = identity.shape
    flat = [[-shape.eye_x, shape.eye_y], [shape.eye_x, shape.eye_y], [0, shape.mouth_y]]
    origins = np.array([[x, y, 0] for x, y in flat], dtype=np.float32)
    forward = np.broadcast_to(np.array([0, 0, 1], dtype=np.float32), origins.shape)
    depth = outermost([*_face(shape), *_nose(shape)], origins, forward)
    eyes_mouth = origins + forward * depth[:, None]
    ears = np.stack(
        [
            ear.centre + ear.axes @ (_EAR_LOBE * [side, 1, 1])
            for side, ear in zip((-1, 1), _ears(shape), strict=True)
        ]
    )
    points = np.concatenate([eyes_mouth[:2], ears, eyes_mouth[2:]])
    return np.asarray(points * shape.stretch, dtype=np.float32)


def _ellipsoid(
    part: Part,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    turn: Floats | None = None,
    keep: Callable[[Floats], Mask] | None = None,
) -> Ellipsoid:
    axes = np.diag(np.asarray(radii, dtype=np.float32))
    if turn is not None:
        axes = turn @ axes
    return Ellipsoid(part, np.asarray(centre, dtype=np.float32), axes, keep)


def _stretched(body: Ellipsoid, stretch: Floats) -> Ellipsoid:
    return Ellipsoid(
        body.part, body.centre * stretch, np.diag(stretch).astype(np.float32) @ body.axes, body.keep
    )


def _face(shape: Shape) -> list[Ellipsoid]:
    jaw, chin = shape.jaw_half_width, shape.chin_depth
    return [
        _ellipsoid(Part.FACE, (0, -42, -8), (74, 80, 97)),  # cranium
        _ellipsoid(Part.FACE, (0, 12, 16), (jaw + 5, 80, 71)),
        _ellipsoid(Part.FACE, (0, 70 + chin / 2, 56), (jaw / 2.2, 21, 23 + chin)),  # chin
        _ellipsoid(Part.FACE, (-36, 8, 50), (25, 26, 30)),  # cheeks
        _ellipsoid(Part.FACE, (36, 8, 50), (25, 26, 30)),
        _ellipsoid(Part.FACE, (0, -37, 66), (50, 11, 24)),  # brow ridge
        _ellipsoid(Part.FACE, (0, shape.mouth_y, 66), (27, 15, 26)),  # lips
    ]


def _nose(shape: Shape) -> list[Ellipsoid]:
    tip_y = -26 + shape.nose_length
    tip_z = 99 + shape.nose_reach
    half = shape.nose_half_width
    # The ridge's long axis runs from the root between the eyes to the tip.
    slope = np.arctan2(tip_z - 84.0, shape.nose_length)
    cos, sin = float(np.cos(slope)), float(np.sin(slope))
    lean = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]], dtype=np.float32)
    return [
        _ellipsoid(
            Part.NOSE, (0, -26 + shape.nose_length / 2, 89), (9, shape.nose_length * 0.75, 12), lean
        ),
        _ellipsoid(Part.NOSE, (0, tip_y, tip_z), (half * 0.75, 10, 15)),
        _ellipsoid(Part.NOSE, (-half * 0.6, tip_y + 4, 90), (half * 0.55, 8, 12)),
        _ellipsoid(Part.NOSE, (half * 0.6, tip_y + 4, 90), (half * 0.55, 8, 12)),
    ]


def _ears(shape: Shape) -> list[Ellipsoid]:
    cos = float(np.sqrt(1 - shape.ear_flare**2))
    ears = []
    for side in (-1.0, 1.0):
        sin = shape.ear_flare * side
        outward = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]], dtype=np.float32)
        ears.append(_ellipsoid(Part.EAR, (side * 73, 0, -8), (6, 30, shape.ear_reach), outward))
    return ears


def _hair(look: Look) -> list[Ellipsoid]:
    if look.hair_style == "bald":
        return []
    thick = look.hair_thickness
    cap = _ellipsoid(
        Part.HAIR,
        (0, -44, -10),
        (74 + thick * 0.7, 80 + thick, 97 + thick),
        keep=partial(_under_hair, look.fringe_y, look.hair_style == "cap"),
    )
    if look.hair_style == "short":
        return [cap]
    if look.hair_style == "cap":
        return [cap, _ellipsoid(Part.HAIR, (0, -66, 92), (52, 5, 46))]  # the visor
    return [cap, _ellipsoid(Part.HAIR, (0, 32, -38), (82 + thick, 132 + thick, 62))]


def _under_hair(fringe_y: float, is_cap: bool, points: Floats) -> Mask:
    """Above the fringe in front, above the ears at the side, down to the nape behind."""
    y, z = points[:, 1], points[:, 2]
    if is_cap:
        line = -62 + 0.1 * z
    else:
        line = np.interp(z, [-110, -30, 8, 30, 70], [50, 40, -14, -45, fringe_y])
    under: Mask = y < line
    return under


def _below(shape: Shape) -> list[Ellipsoid]:
    """Neck and shoulders in the frame of the body, whose origin is the neck's pivot."""
    radius = shape.neck_radius
    return [
        _ellipsoid(Part.NECK, (0, 55, -4), (radius, 110, radius)),
        _ellipsoid(Part.TORSO, (0, 205, -15), (205, 115, 85)),
    ]


def _contour(skin: list[Ellipsoid]) -> Floats:
    """Points 0-16: from the image's left ear under the chin to the right ear."""
    turn = np.linspace(0, np.pi, 17)
    directions = np.stack(
        [-np.cos(turn), np.sin(turn) * 1.1 - 0.12, 0.12 + 0.72 * np.sin(turn) ** 2], axis=1
    ).astype(np.float32)
    origins = np.zeros_like(directions)
    reach: Floats = outermost(skin, origins, directions)
    contour: Floats = directions * reach[:, None]
    return contour


def _front_points(shape: Shape) -> Floats:
    """Points 17-67 as (51, 2) x, y seen from the front."""
    left_brow = _brow(shape)
    left_eye = _eye(shape)
    tip_y = -26 + shape.nose_length
    ridge = np.stack([np.zeros(4), np.linspace(shape.eye_y - 4, tip_y, 4)], axis=1)
    base_x = np.linspace(-0.9, 0.9, 5) * shape.nose_half_width
    base = np.stack([base_x, tip_y + np.array([7, 9, 10, 9, 7])], axis=1)
    mirror = np.array([-1.0, 1.0])
    right_eye = (left_eye * mirror)[[3, 2, 1, 0, 5, 4]]
    points = [left_brow, (left_brow * mirror)[::-1], ridge, base, left_eye, right_eye]
    return np.concatenate([*points, _mouth(shape)]).astype(np.float32)


def brow_height(shape: Shape, inward: Floats) -> Floats:
    """y of a brow's middle line at ``inward`` = |x| - eye_x, millimetres."""
    arc: Floats = shape.brow_y + 0.012 * inward * inward + 0.04 * inward
    return arc


def mouth_line(shape: Shape, x: Floats) -> Floats:
    """y of the line between the lips: smiling raises the corners."""
    line: Floats = shape.mouth_y - shape.smile * (x / shape.mouth_half_width) ** 2
    return line


def _brow(shape: Shape) -> Floats:
    inward = np.linspace(18, -17, 5).astype(np.float32)
    return np.stack([-(shape.eye_x + inward), brow_height(shape, inward)], axis=1)


def _eye(shape: Shape) -> Floats:
    half, opening = shape.eye_half_width, shape.eye_opening
    x = np.array([-1, -0.4, 0.4, 1, 0.4, -0.4]) * half - shape.eye_x
    y = shape.eye_y + np.array([0, -0.84, -0.84, 0, 0.84, 0.84]) * opening
    return np.stack([x, y], axis=1).astype(np.float32)


def _mouth(shape: Shape) -> Floats:
    half, lip, gap = shape.mouth_half_width, shape.lip_thickness, shape.mouth_opening / 2
    outer_x = np.array([-1, -0.6, -0.2, 0, 0.2, 0.6, 1, 0.6, 0.2, 0, -0.2, -0.6]) * half
    outer_side = np.array([0] + [-1] * 5 + [0] + [1] * 5)
    inner_x = np.array([-0.85, -0.2, 0, 0.2, 0.85, 0.2, 0, -0.2]) * half
    inner_side = np.array([0, -1, -1, -1, 0, 1, 1, 1])
    x = np.concatenate([outer_x, inner_x]).astype(np.float32)
    side = np.concatenate([outer_side, inner_side])
    rise = np.concatenate([np.full(12, lip + gap), np.full(8, gap)]) * (1 - (x / half) ** 2)
    y = mouth_line(shape, x) + side * rise
    return np.stack([x, y], axis=1).astype(np.float32)
