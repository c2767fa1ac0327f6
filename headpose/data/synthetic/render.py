"""One face in one pose: the picture and its landmarks."""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from headpose.data.synthetic.geometry import (
    Ellipsoid,
    Floats,
    Hits,
    Mask,
    Part,
    View,
    cast,
    normals,
    outermost,
)
from headpose.data.synthetic.head import NECK_PIVOT_MM, build_head, extra_points, landmarks_68
from headpose.data.synthetic.identity import Identity
from headpose.data.synthetic.paint import paint
from headpose.data.synthetic.scene import Scene, background_at, develop, shade

Indices: TypeAlias = npt.NDArray[np.int64]

#: Pictures up to this side are rendered at twice their resolution and averaged; larger ones are
#: already finer than any network's input.
SUPERSAMPLED_UP_TO_PX = 256
_CREASE_MM = 5.0  # untuned; about the width of the folds of a face
_HIDDEN_BEHIND_MM = 4.0  # a point this far under another surface cannot be seen


@dataclass(frozen=True)
class Pose:
    """How head and body stand: rotation matrices (3, 3) of :mod:`headpose.angles`."""

    head: Floats
    body: Floats


@dataclass(frozen=True)
class Figure:
    """One person in one pose, in the camera's frame; the head's origin is the frame's."""

    identity: Identity
    pose: Pose

    @cached_property
    def pivot(self) -> Floats:
        """(3,) where the neck carries the head."""
        pivot: Floats = self.pose.head @ (NECK_PIVOT_MM * self.identity.shape.stretch)
        return pivot

    @cached_property
    def own_bodies(self) -> list[Ellipsoid]:
        """Each in its own frame."""
        return build_head(self.identity)

    @cached_property
    def bodies(self) -> list[Ellipsoid]:
        """All in the camera's frame."""
        rest = np.zeros(3, dtype=np.float32)
        return [
            body.placed(self.pose.head, rest)
            if body.part.turns_with_head
            else body.placed(self.pose.body, self.pivot)
            for body in self.own_bodies
        ]

    def unplace(self, part: Part, points: Floats) -> Floats:
        """Camera points (n, 3) to the frame that a part is painted and cut in."""
        if part.turns_with_head:
            return (points @ self.pose.head / self.identity.shape.stretch).astype(np.float32)
        return ((points - self.pivot) @ self.pose.body).astype(np.float32)

    @cached_property
    def landmarks(self) -> Floats:
        """The 68 points (68, 3), mm in the camera's frame."""
        turned: Floats = landmarks_68(self.identity) @ self.pose.head.T
        return turned

    @cached_property
    def extras(self) -> Floats:
        """The points of :func:`extra_points` (5, 3), mm in the camera's frame."""
        turned: Floats = extra_points(self.identity) @ self.pose.head.T
        return turned

    def visible(self, points: Floats) -> Mask:
        """Whether nothing stands between each camera point (n, 3) and the viewer."""
        toward = np.broadcast_to(np.array([0, 0, 1], dtype=np.float32), points.shape)
        seen = np.ones(len(points), dtype=np.bool_)
        for body in self.bodies:
            ahead = outermost([body], points, toward)
            covers = ahead > _HIDDEN_BEHIND_MM
            if body.keep is not None and covers.any():
                hit = points[covers] + toward[covers] * ahead[covers, None]
                covers[covers] = body.keep(self.unplace(body.part, hit))
            seen &= ~covers
        return seen


def render(figure: Figure, view: View, scene: Scene, rng: np.random.Generator) -> Image.Image:
    """The picture of a figure: RGB, ``view.size_px`` square. ``rng`` only draws the noise."""
    factor = 2 if view.size_px <= SUPERSAMPLED_UP_TO_PX else 1
    fine = view.enlarged(factor)
    hits = cast(figure.bodies, figure.unplace, fine)
    pixels = np.flatnonzero(hits.body >= 0)
    parts = np.array([body.part.value for body in figure.bodies])[hits.body.flat[pixels]]
    light = np.zeros((fine.size_px**2, 4), dtype=np.float32)  # RGB and coverage
    for part in Part:
        shown = pixels[parts == part.value]
        if len(shown):
            points = _camera_points(shown, hits, fine)
            light[shown, :3] = _light_of(part, points, figure, scene)
            light[shown, 3] = 1
    light = _averaged(light.reshape(fine.size_px, fine.size_px, 4), factor)
    around = background_at(scene, view.size_px) * (1 - light[..., 3:])
    seen: Floats = light[..., :3] + around
    return develop(seen, scene, rng)


def _camera_points(pixels: Indices, hits: Hits, view: View) -> Floats:
    """Where (n, 3) in mm the surfaces lie that the pixels (n,) of the picture show."""
    row, column = np.divmod(pixels, view.size_px)
    points = np.empty((len(pixels), 3), dtype=np.float32)
    points[:, 0] = (column + (0.5 - view.origin_px[0])) / view.px_per_mm
    points[:, 1] = (row + (0.5 - view.origin_px[1])) / view.px_per_mm
    points[:, 2] = hits.depth.flat[pixels]
    return points


def _light_of(part: Part, points: Floats, figure: Figure, scene: Scene) -> Floats:
    """Linear light (n, 3) from camera points (n, 3) of one part."""
    skin = (Part.FACE, Part.NOSE)
    joined = [body for body in figure.bodies if body.part is part or {body.part, part} <= set(skin)]
    factors, highlight = shade(normals(joined, points, _CREASE_MM), points, scene.light)
    colours = paint(part, figure.unplace(part, points), figure.identity)
    light: Floats = colours * factors + highlight[:, None]
    return light


def _averaged(light: Floats, factor: int) -> Floats:
    """(S·f, S·f, C) to (S, S, C), each pixel the mean of its f x f finer ones."""
    total = np.zeros_like(light[::factor, ::factor])
    for row in range(factor):
        for column in range(factor):
            total += light[row::factor, column::factor]
    return total / np.float32(factor**2)
