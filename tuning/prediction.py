"""Degrees for pictures on disk, and copies of them with the head's three axes drawn."""

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cluster.settings import Settings
from headpose.data.crops import LOOSENESS, Box, NoBoxError, face_box
from headpose.data.decoding import DamagedPictureError, decode
from headpose.data.readers import Layout, LeftOut, read_landmarks
from headpose.draw import draw_axes
from headpose.networks.snapshots import LoadedNetwork, load_weights
from headpose.predict import predict_images
from tuning.mlflow_client import MlflowRuns, Registry
from tuning.objects import Objects
from usererror import UserError

_WITHOUT_LANDMARKS = "give the face's box with --box"

LAYOUT: Layout = "aflw2000"
"""Boxes are as loose as the test set's. Hidden landmarks are left out, as `data prepare` does with
`--crop visible-landmarks`, which is not its default."""


@dataclass(frozen=True)
class Prediction:
    """Where the head of one picture is looking."""

    image: str
    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    drawing: str


def predict_files(
    paths: Sequence[Path],
    settings: Settings,
    *,
    model: str,
    weights: Path | None = None,
    box: Box | None = None,
    out: Path | None = None,
) -> list[Prediction]:
    """Predicts each picture with the champion of ``model``, or with a file of weights.

    Raises:
        UserError: a file that is no picture, or no champion.
    """
    marks = [path.parent / f"{path.stem}.mat" for path in paths]
    # Landmarks are in pixels as they are stored; without them a picture is as people see it.
    images = [_read(p, upright=not m.is_file()) for p, m in zip(paths, marks, strict=True)]
    boxes = [box or (_box_of(mark) if mark.is_file() else None) for mark in marks]
    network = load_weights(weights) if weights else _champion(model, settings)
    angles_deg = predict_images(network, images, boxes)
    drawings = _drawings(paths, out) if out else [None] * len(paths)
    found = []
    for path, image, face, row, drawing in zip(
        paths, images, boxes, angles_deg, drawings, strict=True
    ):
        yaw, pitch, roll = (float(angle) for angle in row)
        if drawing is not None:
            drawing.parent.mkdir(parents=True, exist_ok=True)
            draw_axes(image, (yaw, pitch, roll), face).save(drawing)
        found.append(Prediction(str(path), yaw, pitch, roll, str(drawing or "")))
    return found


def _read(path: Path, *, upright: bool) -> Image.Image:
    try:
        return decode(path, formats=None, upright=upright)
    except FileNotFoundError:
        raise UserError(str(path), "no such picture") from None
    except (DamagedPictureError, OSError) as error:
        raise UserError(str(path), "not a picture that can be read", got=str(error)) from error


def _box_of(mark: Path) -> Box:
    """The face's box from the landmarks in a .mat file, as the data sets have it."""
    landmarks_px = read_landmarks(mark)
    if isinstance(landmarks_px, LeftOut):
        raise UserError(str(mark), landmarks_px.reason, remedy=_WITHOUT_LANDMARKS)
    loose = LOOSENESS[LAYOUT]
    try:
        return face_box(LAYOUT, landmarks_px, looseness=loose, policy="visible-landmarks")
    except NoBoxError as error:
        raise UserError(str(mark), str(error), remedy=_WITHOUT_LANDMARKS) from error


def _champion(model: str, settings: Settings) -> LoadedNetwork:
    registry = Registry(settings, MlflowRuns(settings, Objects(settings)))
    with tempfile.TemporaryDirectory(prefix="hopetune-champion-") as folder:
        return load_weights(registry.download_champion(model, Path(folder)))


def _drawings(paths: Sequence[Path], out: Path) -> list[Path]:
    """Where copies of pictures go: one for each, though pictures of several folders may share a
    name, as those of 300W-LP do."""
    found: list[Path] = []
    for path in paths:
        numbers = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
        names = (f"{path.stem}{number}-axes.png" for number in numbers)
        found.append(next(out / name for name in names if out / name not in found))
    return found
