"""Ellipsoids seen in parallel projection: which one a pixel shows, where, and how it is turned.

Frames: x right, y down, z toward the viewer (:mod:`headpose.angles`); lengths in millimetres. A
body is the set ``centre + axes @ u`` with ``|u| <= 1``, so ``axes`` may turn, stretch and shear.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]


class Part(Enum):
    """What an ellipsoid stands for: how it is painted, and whether the head carries it."""

    FACE = auto()
    NOSE = auto()
    EAR = auto()
    HAIR = auto()
    NECK = auto()
    TORSO = auto()

    @property
    def turns_with_head(self) -> bool:
        """Neck and torso stand in the frame of the body; the rest turns with the head."""
        return self not in (Part.NECK, Part.TORSO)


@dataclass(frozen=True)
class Ellipsoid:
    """One body. ``keep`` takes (n, 3) points in the frame of the part and cuts the rest away."""

    part: Part
    centre: Floats  # (3,)
    axes: Floats  # (3, 3), columns are the semi-axes
    keep: Callable[[Floats], Mask] | None = None

    @cached_property
    def quadric(self) -> Floats:
        """(3, 3) M with (p - centre)ᵀ M (p - centre) = 1 on the surface."""
        inverse: Floats = np.linalg.inv(self.axes @ self.axes.T).astype(np.float32)
        return inverse

    def placed(self, rotation: Floats, shift: Floats) -> "Ellipsoid":
        """The same body after ``rotation @ p + shift``; ``keep`` still takes unplaced points."""
        return Ellipsoid(self.part, rotation @ self.centre + shift, rotation @ self.axes, self.keep)


@dataclass(frozen=True)
class View:
    """A square picture: where the head's origin falls (px from the top left edge) and its scale."""

    size_px: int
    origin_px: tuple[float, float]
    px_per_mm: float

    def enlarged(self, factor: int) -> "View":
        """The same view at ``factor`` times the resolution."""
        x, y = self.origin_px
        return View(self.size_px * factor, (x * factor, y * factor), self.px_per_mm * factor)

    def project(self, points: Floats) -> Floats:
        """Camera points (n, 3) in mm to pixels (2, n); a pixel's centre lies at index + 0.5."""
        origin = np.asarray(self.origin_px, dtype=np.float32)
        pixels: Floats = (points[:, :2] * self.px_per_mm + origin).T.astype(np.float32)
        return pixels


@dataclass(frozen=True)
class Hits:
    """What a picture shows. ``body`` (S, S) is an index into the bodies, or -1 for background."""

    body: npt.NDArray[np.int16]
    depth: Floats  # (S, S) mm toward the viewer; -inf for background


def cast(
    bodies: Sequence[Ellipsoid], unplace: Callable[[Part, Floats], Floats], view: View
) -> Hits:
    """The nearest body at every pixel centre.

    Args:
        bodies: placed in the camera's frame.
        unplace: (part, (n, 3) camera points) to points in the frame that the part is cut in.
        view: the picture.
    """
    size = view.size_px
    hits = Hits(
        np.full((size, size), -1, dtype=np.int16),
        np.full((size, size), -np.inf, dtype=np.float32),
    )
    centres_px = np.arange(size, dtype=np.float32) + np.float32(0.5)
    x_mm = (centres_px - np.float32(view.origin_px[0])) / np.float32(view.px_per_mm)
    y_mm = (centres_px - np.float32(view.origin_px[1])) / np.float32(view.px_per_mm)
    for index, body in enumerate(bodies):
        _cast_one(index, body, unplace, (x_mm, y_mm), hits)
    return hits


def _cast_one(
    index: int,
    body: Ellipsoid,
    unplace: Callable[[Part, Floats], Floats],
    grid_mm: tuple[Floats, Floats],
    hits: Hits,
) -> None:
    x_mm, y_mm = grid_mm
    half_x, half_y = np.linalg.norm(body.axes[:2], axis=1)  # of the outline's bounding box
    columns = _covered(x_mm, body.centre[0], half_x)
    rows = _covered(y_mm, body.centre[1], half_y)
    if columns.start >= columns.stop or rows.start >= rows.stop:
        return
    dx = x_mm[None, columns] - body.centre[0]
    dy = y_mm[rows, None] - body.centre[1]
    m = body.quadric
    half_b = m[0, 2] * dx + m[1, 2] * dy
    c = m[0, 0] * dx * dx + (m[1, 1] * dy + 2 * m[0, 1] * dx) * dy - 1
    discriminant = half_b * half_b - m[2, 2] * c
    root = np.sqrt(np.maximum(discriminant, 0))
    z = (root - half_b) / m[2, 2] + body.centre[2]
    depth, owner = hits.depth[rows, columns], hits.body[rows, columns]
    nearer = (discriminant > 0) & (z > depth)
    if body.keep is not None:
        row, column = np.nonzero(nearer)
        points = np.stack(
            [x_mm[columns][column], y_mm[rows][row], z[row, column]], axis=1, dtype=np.float32
        )
        nearer[row, column] = body.keep(unplace(body.part, points))
    depth[nearer] = z[nearer]
    owner[nearer] = index


def _covered(coordinates: Floats, centre: float, half: float) -> slice:
    low, high = np.searchsorted(coordinates, [centre - half, centre + half])
    return slice(int(low), int(high))


def normals(bodies: Sequence[Ellipsoid], points: Floats, blend_mm: float) -> Floats:
    """Outward unit normals (n, 3) at points (n, 3) on the surface of the union of the bodies.

    Within about ``blend_mm`` of a crease the normals of both sides are mixed, so that a face made
    of ellipsoids is shaded as one skin. Distances are first-order: (q - 1) / |grad q|.
    """
    rows = np.ascontiguousarray(points.T)  # (3, n): twice as fast as three numbers a row
    total = np.zeros_like(rows)
    for body in bodies:
        offset = rows - body.centre[:, None]
        outward = body.quadric @ offset
        steepness = _length(outward)
        outward /= steepness
        if len(bodies) > 1:
            offset *= outward
            above_mm = (offset.sum(axis=0) - 1 / steepness) / 2
            outward *= np.exp(np.minimum(above_mm, 50 * blend_mm) / np.float32(-blend_mm))
        total += outward
    unit: Floats = (total / _length(total)).T
    return unit


def _length(rows: Floats) -> Floats:
    """(3, n) to (n,)."""
    length: Floats = np.sqrt(rows[0] * rows[0] + rows[1] * rows[1] + rows[2] * rows[2])
    return length


def outermost(bodies: Sequence[Ellipsoid], origins: Floats, directions: Floats) -> Floats:
    """How far (n,) each ray goes until it leaves the last of the bodies; -inf where it meets none.

    Lengths are in units of the ray's own direction. ``keep`` is not consulted.
    """
    farthest = np.full(len(origins), -np.inf, dtype=np.float32)
    for body in bodies:
        m = body.quadric
        start = origins - body.centre
        a = np.einsum("ni,ij,nj->n", directions, m, directions)
        half_b = np.einsum("ni,ij,nj->n", start, m, directions)
        c = np.einsum("ni,ij,nj->n", start, m, start) - 1
        discriminant = half_b * half_b - a * c
        exit_at = (np.sqrt(np.maximum(discriminant, 0)) - half_b) / a
        farthest = np.where(discriminant > 0, np.maximum(farthest, exit_at), farthest)
    return farthest
