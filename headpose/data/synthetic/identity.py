"""Who is in a photo: the shape of a head and the colours on it, drawn once per face.

Lengths in millimetres of an average adult head; colours are linear RGB in 0..1. The ranges are
untuned: plausible by eye, wide enough that a network must look at the face and not at one hue.
"""

from dataclasses import dataclass

import numpy as np

from headpose.data.synthetic.geometry import Floats

# sRGB tones from very light to very dark skin.
_SKIN_TONES = np.array(
    [[246, 215, 190], [233, 190, 158], [212, 160, 122], [178, 124, 86], [134, 88, 58], [84, 54, 38]]
)
_HAIR_TONES = np.array(
    [[28, 22, 20], [52, 36, 26], [96, 62, 36], [150, 104, 58], [206, 172, 112], [150, 150, 150]]
)
_IRIS_TONES = np.array([[60, 38, 24], [92, 62, 34], [70, 100, 70], [80, 120, 160]])


@dataclass(frozen=True)
class Shape:
    """Where the features of a face lie, in millimetres of the unstretched head."""

    stretch: Floats  # (3,) of the whole head along x, y, z
    jaw_half_width: float
    chin_depth: float
    nose_length: float
    nose_reach: float
    nose_half_width: float
    ear_flare: float  # sine of the angle between ear and side of the head
    ear_reach: float
    eye_x: float
    eye_half_width: float
    eye_opening: float
    brow_rise: float
    brow_thickness: float
    mouth_y: float
    mouth_half_width: float
    lip_thickness: float
    mouth_opening: float
    smile: float
    neck_radius: float

    @property
    def eye_y(self) -> float:
        """Height of the eyes over the ears' centres."""
        return -21.0

    @property
    def brow_y(self) -> float:
        """Height of the brows' middle."""
        return self.eye_y - 13.0 - self.brow_rise


@dataclass(frozen=True)
class Look:
    """What is painted on a head and its clothes."""

    skin: Floats
    lips: Floats
    hair: Floats  # of the cap, where one is worn
    brow: Floats
    iris: Floats
    clothes: Floats
    stripes: float  # contrast of the clothes' pattern
    hair_style: str  # bald, short, long, cap
    hair_thickness: float
    fringe_y: float
    beard: float  # 0 none .. 1 full
    glasses: float  # 0 none, else darkness of the frame
    gaze: Floats  # (2,) mm, of both irises
    waves: Floats  # (8, 4) frequencies per mm and phases of the skin's and hair's texture


@dataclass(frozen=True)
class Identity:
    """One face."""

    shape: Shape
    look: Look


def linear(srgb: np.ndarray) -> Floats:
    """sRGB bytes to linear light in 0..1 (a plain 2.2 gamma)."""
    light: Floats = ((np.asarray(srgb, dtype=np.float32) / 255) ** np.float32(2.2)).astype(
        np.float32
    )
    return light


def draw_identity(rng: np.random.Generator) -> Identity:
    """A face drawn from ``rng``."""
    return Identity(_draw_shape(rng), _draw_look(rng))


def _draw_shape(rng: np.random.Generator) -> Shape:
    def around(mean: float, spread: float) -> float:
        return float(mean + spread * np.clip(rng.normal(), -2, 2))

    return Shape(
        stretch=np.array([around(1, 0.035), around(1, 0.035), around(1, 0.03)], dtype=np.float32),
        jaw_half_width=around(60, 3),
        chin_depth=around(0, 3),
        nose_length=around(33, 2.5),
        nose_reach=around(0, 2.5),
        nose_half_width=around(15, 1.5),
        ear_flare=around(0.38, 0.09),
        ear_reach=around(19, 2),
        eye_x=around(32, 1.5),
        eye_half_width=around(14.5, 1),
        eye_opening=max(1.0, around(6, 1.3)),
        brow_rise=around(2, 1.5),
        brow_thickness=around(3.6, 0.9),
        mouth_y=around(45, 2),
        mouth_half_width=around(25, 2.5),
        lip_thickness=around(5.5, 1.2),
        mouth_opening=float(max(0.0, rng.normal(-1, 4))),
        smile=around(1.5, 3),
        neck_radius=around(52, 5),
    )


def _draw_look(rng: np.random.Generator) -> Look:
    tone = rng.uniform(0, len(_SKIN_TONES) - 1)
    skin = _between(linear(_SKIN_TONES), tone) * rng.uniform(0.9, 1.1, 3).astype(np.float32)
    hair = _between(linear(_HAIR_TONES), rng.uniform(0, len(_HAIR_TONES) - 1))
    if tone > 3:  # dark skin: mostly dark hair
        hair = hair * np.float32(0.3)
    clothes = rng.uniform(0, 1, 3) ** 2
    style = str(rng.choice(["bald", "short", "long", "cap"], p=[0.08, 0.49, 0.33, 0.1]))
    cover = rng.uniform(0, 1, 3) ** 2 if style == "cap" else hair
    return Look(
        skin=skin.clip(0, 1),
        lips=(skin * np.array([0.85, 0.5, 0.5]) * rng.uniform(0.8, 1.2)).astype(np.float32),
        hair=np.asarray(cover, dtype=np.float32),
        brow=(hair * 0.6).astype(np.float32),
        iris=_between(linear(_IRIS_TONES), rng.uniform(0, len(_IRIS_TONES) - 1)),
        clothes=clothes.astype(np.float32),
        stripes=float(rng.choice([0.0, 0.4])),
        hair_style=style,
        hair_thickness=float(rng.uniform(4, 12)),
        fringe_y=float(rng.uniform(-84, -58)),
        beard=float(rng.choice([0.0, 1.0], p=[0.75, 0.25]) * rng.uniform(0.3, 0.9)),
        glasses=float(rng.choice([0.0, 1.0], p=[0.85, 0.15]) * rng.uniform(0.6, 1.0)),
        gaze=rng.normal(0, [2.0, 0.8]).astype(np.float32),
        waves=np.concatenate(
            [rng.normal(0, 0.25, (8, 3)), rng.uniform(0, 2 * np.pi, (8, 1))], axis=1
        ).astype(np.float32),
    )


def _between(tones: Floats, position: float) -> Floats:
    low = min(int(position), len(tones) - 2)
    share = np.float32(position - low)
    mixed: Floats = (tones[low] * (1 - share) + tones[low + 1] * share).astype(np.float32)
    return mixed
