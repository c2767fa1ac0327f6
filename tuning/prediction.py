"""Degrees for pictures on disk, and copies of them with the head's three axes drawn."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cluster.settings import Settings
from headpose.data.crops import LOOSENESS, Box, face_box
from headpose.data.readers import Layout, LeftOut, read_sample
from headpose.draw import draw_axes
from headpose.networks.snapshots import LoadedNetwork, load_weights
from headpose.predict import predict_images
from tuning.mlflow_client import MlflowRuns, Registry
from tuning.objects import Objects
from usererror import UserError

LAYOUT: Layout = "aflw2000"
"""Boxes are drawn as for the test set, whose error is the one that a champion is known by."""


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
    images = [_read(path) for path in paths]
    boxes = [box or _box_beside(path) for path in paths]
    network = load_weights(weights) if weights else _champion(model, settings)
    angles_deg = predict_images(network, images, boxes)
    found = []
    for path, image, face, row in zip(paths, images, boxes, angles_deg, strict=True):
        yaw, pitch, roll = (float(angle) for angle in row)
        drawing = _draw(image, (yaw, pitch, roll), face, path, out) if out else ""
        found.append(Prediction(str(path), yaw, pitch, roll, drawing))
    return found


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise UserError(str(path), "no such picture") from None
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(str(path), "not a picture that can be read", got=str(error)) from error


def _box_beside(path: Path) -> Box | None:
    """The face's box from the landmarks in a .mat of the same name, as the data sets have it."""
    if not path.with_suffix(".mat").is_file():
        return None
    sample = read_sample(LAYOUT, path.parent, path.stem)
    if isinstance(sample, LeftOut):
        where = str(path.with_suffix(".mat"))
        raise UserError(where, sample.reason, remedy="give the face's box with --box")
    return face_box(
        LAYOUT, sample.landmarks_px, looseness=LOOSENESS[LAYOUT], policy="visible-landmarks"
    )


def _champion(model: str, settings: Settings) -> LoadedNetwork:
    registry = Registry(settings, MlflowRuns(settings, Objects(settings)))
    with tempfile.TemporaryDirectory(prefix="hopetune-champion-") as folder:
        return load_weights(registry.download_champion(model, Path(folder)))


def _draw(
    image: Image.Image,
    angles_deg: tuple[float, float, float],
    box: Box | None,
    path: Path,
    out: Path,
) -> str:
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{path.stem}-axes.png"
    draw_axes(image, angles_deg, box).save(target)
    return str(target)
