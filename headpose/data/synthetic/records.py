"""The labels of a picture, in the fields of 300W-LP's and AFLW2000's .mat files."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.io

from headpose.data.synthetic.geometry import View
from headpose.data.synthetic.head import MIRRORED_68
from headpose.data.synthetic.poses import Degrees
from headpose.data.synthetic.render import Figure
from headpose.labels import to_pose_para

_CANVAS_PX = 450  # side of the originals
_MICROMETRES_PER_MM = 1000  # the originals' scale is in pixels per micrometre
_HEADER_BYTES = 116  # free text at the head of a .mat file
_SHARE_OF_21 = 0.85  # "most of AFLW2000" has AFLW's 21 points instead of 68

# AFLW's 21 points among [the 68, then the 5 of head.extra_points]; left is the image's side.
_AFLW_21 = [17, 19, 21, 22, 24, 26, 36, 68, 39, 42, 69, 45, 70, 31, 30, 35, 71, 48, 72, 54, 8]


@dataclass(frozen=True)
class Label:
    """Fields of one .mat file. Points are pixels, x right and y down from the top left edge."""

    pose_para: npt.NDArray[np.float32]  # (1, 7)
    pt2d: npt.NDArray[np.float64]  # (2, 68), or (2, 21) with (-1, 452) for what cannot be seen
    pt3d_68: npt.NDArray[np.float32]  # (3, 68)
    size_px: int
    is_test: bool

    def as_mat(self) -> bytes:
        """A MATLAB 5 file whose bytes follow from the fields alone (SciPy writes the time)."""
        fields = {"pt2d": self.pt2d, "Pose_Para": self.pose_para}
        fields["roi"] = np.array([[1, 1, self.size_px, self.size_px]], dtype=np.int16)
        if self.is_test:
            fields["pt3d_68"] = self.pt3d_68
        buffer = io.BytesIO()
        scipy.io.savemat(buffer, fields)
        text = b"MATLAB 5.0 MAT-file, synthetic faces"
        return text.ljust(_HEADER_BYTES) + buffer.getvalue()[_HEADER_BYTES:]


def label_of(
    figure: Figure, angles_deg: Degrees, view: View, rng: np.random.Generator, *, is_test: bool
) -> Label:
    """The label of a rendered figure.

    Args:
        figure: the person.
        angles_deg: (3,) yaw, pitch, roll of the head.
        view: where it stands in the picture.
        rng: draws whether a test label has 21 or 68 points.
        is_test: AFLW2000's fields; training labels hold all 68 points, hidden ones too.
    """
    pixels = view.project(figure.landmarks).astype(np.float64)
    depth = figure.landmarks[:, 2] * view.px_per_mm
    x, y = view.origin_px
    scale = view.px_per_mm / _MICROMETRES_PER_MM
    pt2d = pixels
    if is_test and rng.random() < _SHARE_OF_21:
        pt2d = _aflw_points(figure, view)
    return Label(
        # The originals measure ty upward from the bottom of the picture.
        to_pose_para(angles_deg, np.array([x, view.size_px - y, 0, scale])),
        pt2d,
        np.concatenate([pixels, depth[None]]).astype(np.float32),
        view.size_px,
        is_test,
    )


def mirrored_label(label: Label, angles_deg: Degrees) -> Label:
    """The label of the picture flipped left to right, whose angles are given (3,)."""
    side = label.size_px
    placement = label.pose_para[0, 3:].astype(np.float64)
    placement[0] = side - placement[0]
    points, solid = label.pt2d[:, MIRRORED_68].copy(), label.pt3d_68[:, MIRRORED_68].copy()
    points[0], solid[0] = side - points[0], side - solid[0]
    return Label(to_pose_para(angles_deg, placement), points, solid, side, label.is_test)


def _aflw_points(figure: Figure, view: View) -> npt.NDArray[np.float64]:
    points = np.concatenate([figure.landmarks, figure.extras])[_AFLW_21]
    pixels = view.project(points).astype(np.float64)
    hidden_y = view.size_px * 452 / _CANVAS_PX
    pixels[:, ~figure.visible(points)] = [[-1.0], [hidden_y]]
    return pixels
