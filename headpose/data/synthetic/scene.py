"""What surrounds a head in a photo: light, background, and what the camera adds."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from headpose.data.synthetic.geometry import Floats

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # Rec. 601, as JPEG


@dataclass(frozen=True)
class Light:
    """One distant lamp in the camera's frame, and the sky."""

    direction: Floats  # (3,) unit vector toward the lamp
    lamp: Floats  # (3,) RGB strength
    ambient: Floats  # (3,)
    gloss: float


@dataclass(frozen=True)
class Camera:
    """How a photo is taken and kept."""

    grey: bool
    exposure: float
    noise: float  # standard deviation in sRGB bytes
    jpeg_quality: int
    margins: tuple[float, float, float, float]  # black left, top, right, bottom, shares of the side


@dataclass(frozen=True)
class Scene:
    """Everything of a photo but its faces."""

    light: Light
    camera: Camera
    background: Image.Image  # small, linear light as bytes


def draw_scene(rng: np.random.Generator) -> Scene:
    """Light, camera and background of one photo."""
    return Scene(_draw_light(rng), _draw_camera(rng), _draw_background(rng))


def shade(normals: Floats, points: Floats, light: Light) -> tuple[Floats, Floats]:
    """Lambert's law with a soft terminator and Blinn's highlight.

    Args:
        normals: (n, 3) unit vectors in the camera's frame.
        points: (n, 3) mm, only used to darken what lies far behind.

    Returns:
        Factors (n, 3) for the colours, and highlights (n,) to add.
    """
    facing = normals @ light.direction
    lit = np.clip((facing + 0.2) / 1.2, 0, 1)  # wraps round: skin scatters (untuned)
    half = light.direction + np.array([0, 0, 1], dtype=np.float32)
    half /= np.float32(np.linalg.norm(half))
    highlight = light.gloss * np.clip(normals @ half, 0, 1) ** 24
    recess = np.clip(1 + points[:, 2] / 300, 0.6, 1)  # a cheap stand-in for ambient occlusion
    sky = (0.75 - 0.25 * normals[:, 1]) * recess
    factors = lit[:, None] * light.lamp + sky[:, None] * light.ambient
    return factors.astype(np.float32), highlight.astype(np.float32)


def background_at(scene: Scene, size_px: int) -> Floats:
    """(S, S, 3) linear light."""
    pixels = scene.background.resize((size_px, size_px), Image.Resampling.BICUBIC)
    return np.asarray(pixels, dtype=np.float32) / np.float32(255)


def develop(light: Floats, scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Linear light (S, S, 3) to a picture: exposure, gamma, grey, noise, black margins."""
    camera = scene.camera
    exposed = np.clip(light * np.float32(camera.exposure), 0, 1)
    srgb: Floats = exposed ** np.float32(1 / 2.2) * np.float32(255)
    if camera.grey:
        srgb = np.repeat((srgb @ _LUMA)[..., None], 3, axis=2)
    srgb += rng.standard_normal(srgb.shape, dtype=np.float32) * np.float32(camera.noise)
    size = len(srgb)
    left, top, right, bottom = (round(share * size) for share in camera.margins)
    inside = np.zeros((size, size, 1), dtype=np.float32)
    inside[top : size - bottom, left : size - right] = 1
    return Image.fromarray(np.clip(srgb * inside, 0, 255).astype(np.uint8))


def _draw_light(rng: np.random.Generator) -> Light:
    toward = np.array([rng.normal(0, 0.8), rng.normal(-0.5, 0.5), rng.uniform(0.3, 1.2)])
    strength = rng.uniform(0.5, 1.1)
    warm = rng.normal(0, 0.08)
    tint = np.array([1 + warm, 1, 1 - warm])
    return Light(
        direction=(toward / np.linalg.norm(toward)).astype(np.float32),
        lamp=(tint * strength).astype(np.float32),
        ambient=(rng.uniform(0.2, 0.55) * (2 - tint)).astype(np.float32),
        gloss=float(rng.uniform(0, 0.12)),
    )


def _draw_camera(rng: np.random.Generator) -> Camera:
    margins = [0.0, 0.0, 0.0, 0.0]
    if rng.random() < 0.3:  # the photo ended there: 300W-LP fills its canvas with black
        for side in range(4):
            if rng.random() < 0.5:
                margins[side] = float(rng.uniform(0, 0.06 if side in (0, 2) else 0.14))
    return Camera(
        grey=bool(rng.random() < 0.08),
        exposure=float(rng.uniform(0.75, 1.25)),
        noise=float(rng.uniform(0.5, 5)),
        jpeg_quality=int(rng.integers(80, 96)),
        margins=(margins[0], margins[1], margins[2], margins[3]),
    )


def _draw_background(rng: np.random.Generator) -> Image.Image:
    cells = int(rng.choice([2, 3, 6, 12, 24]))
    vivid = rng.uniform(0, 0.6)
    base = _muted(rng.uniform(0, 1, 3) ** 1.5, vivid)
    contrast = rng.uniform(0.05, 0.5)
    blotches = base + _muted(contrast * rng.normal(0, 0.5, (cells, cells, 3)), vivid)
    small = Image.fromarray((np.clip(blotches, 0, 1) * 255).astype(np.uint8))
    canvas = small.resize((96, 96), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(0, 7))):
        colour = tuple(int(value) for value in _muted(rng.uniform(0, 1, 3) ** 2, vivid) * 255)
        x, y = (float(value) for value in rng.uniform(-20, 96, 2))
        wide, high = (float(value) for value in rng.uniform(4, 60, 2))
        shape = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        shape([x, y, x + wide, y + high], fill=colour)
    return canvas


def _muted(colours: np.ndarray, vivid: float) -> np.ndarray:
    """(..., 3) drawn toward grey: most surroundings are less colourful than chance."""
    grey = colours.mean(axis=-1, keepdims=True)
    muted: np.ndarray = grey + (colours - grey) * vivid
    return muted
