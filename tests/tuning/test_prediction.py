"""Pictures as people have them: as a camera was held, with landmarks or without, of any format."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from typer.testing import CliRunner

from cluster.settings import Settings
from headpose.bins import Binning
from headpose.data.synthetic import synthesize
from headpose.networks.network import build_network
from headpose.networks.snapshots import LoadedNetwork, weights_to_bytes
from tuning.cli.main import app
from tuning.prediction import Prediction, predict_files
from usererror import UserError

ORIENTATION, TURNED_BY_A_QUARTER = 0x0112, 6


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faces")
    synthesize(root, train_images=4, test_images=2, size_px=96)
    return root / "AFLW2000"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    network = LoadedNetwork(build_network("squeezenet1_1", 66, seed=1), Binning(), 32)
    path.write_bytes(weights_to_bytes(network))
    return path


def predicted(weights: Path, *paths: Path, out: Path | None = None) -> list[Prediction]:
    return predict_files(paths, Settings(), model="none", weights=weights, out=out)


def degrees(found: Prediction) -> list[float]:
    return [found.yaw_deg, found.pitch_deg, found.roll_deg]


def a_face(faces: Path) -> Path:
    return sorted(faces.glob("*.jpg"))[0]


def test_a_picture_is_seen_as_its_camera_was_held(
    faces: Path, weights: Path, tmp_path: Path
) -> None:
    with Image.open(a_face(faces)) as picture:
        upright = picture.convert("RGB").crop((0, 0, 90, 60))
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED_BY_A_QUARTER
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.png", exif=exif)
    one, other = predicted(
        weights, tmp_path / "upright.png", tmp_path / "phone.png", out=tmp_path / "out"
    )
    assert degrees(other) == degrees(one)
    with Image.open(other.drawing) as drawing:
        assert drawing.size == upright.size


def test_landmarks_serve_beside_any_picture_and_whatever_its_label(
    faces: Path, weights: Path, tmp_path: Path
) -> None:
    jpg = a_face(faces)
    with Image.open(jpg) as picture:
        picture.save(tmp_path / "face.png")
    shutil.copyfile(jpg.with_suffix(".mat"), tmp_path / "face.mat")
    one, other = predicted(weights, jpg, tmp_path / "face.png")
    np.testing.assert_allclose(degrees(other), degrees(one), rtol=1e-5)
    landmarks = scipy.io.loadmat(jpg.with_suffix(".mat"))["pt2d"]
    scipy.io.savemat(tmp_path / "face.mat", {"pt2d": landmarks})  # no pose at all
    (again,) = predicted(weights, tmp_path / "face.png")
    np.testing.assert_allclose(degrees(again), degrees(other), rtol=1e-5)


def test_landmarks_that_span_nothing_are_a_clear_error(
    faces: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = tmp_path / "face.jpg"
    shutil.copyfile(a_face(faces), face)
    face.with_suffix(".mat").write_bytes(b"no labels")
    with pytest.raises(UserError, match=r"face\.mat: the mat file is damaged.*--box"):
        predicted(weights, face)
    monkeypatch.setattr("tuning.prediction.read_landmarks", lambda _: np.full((2, 68), -1.0))
    with pytest.raises(UserError, match=r"face\.mat: fewer than two visible landmarks.*--box"):
        predicted(weights, face)
    with pytest.raises(UserError, match="not a picture that can be read"):
        predicted(weights, tmp_path)


def test_damaged_pictures_of_any_format_are_a_clear_error(
    faces: Path, weights: Path, tmp_path: Path
) -> None:
    with Image.open(a_face(faces)) as face:
        face.save(tmp_path / "broken.png")
        face.save(tmp_path / "bomb.bmp")
        face.convert("F").save(tmp_path / "float.tif")
    chunk, width = 37, 18  # the length of a chunk that is none; a width beyond any picture
    for name, at in (("broken.png", chunk), ("bomb.bmp", width)):
        content = bytearray((tmp_path / name).read_bytes())
        content[at : at + 4] = b"\xff\xff\xff\x00"
        (tmp_path / name).write_bytes(content)
    for name in ("broken.png", "bomb.bmp", "float.tif"):
        with pytest.raises(UserError, match=rf"{name}: not a picture that can be read; got"):
            predicted(weights, tmp_path / name)


def test_grey_of_sixteen_bits_is_seen_as_grey(faces: Path, weights: Path, tmp_path: Path) -> None:
    with Image.open(a_face(faces)) as face:
        grey = face.convert("L")
    grey.save(tmp_path / "grey.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(tmp_path / "deep.png")
    one, other = predicted(weights, tmp_path / "grey.png", tmp_path / "deep.png")
    assert degrees(other) == degrees(one)


def test_options_may_name_a_place_at_home(
    faces: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copyfile(weights, tmp_path / "w.safetensors")
    given = ["predict", str(a_face(faces)), "--weights=~/w.safetensors", "--out=~/drawn"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    assert list((tmp_path / "drawn").glob("*-axes.png"))


def test_pictures_of_one_name_have_a_drawing_each(
    faces: Path, weights: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / name for name in ("AFW/face.jpg", "AFW_Flip/face.jpg", "face-2.jpg")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(a_face(faces), path)
    found = predicted(weights, *paths, out=tmp_path / "out")
    drawings = [Path(row.drawing).name for row in found]
    assert drawings == ["face-axes.png", "face-2-axes.png", "face-2-2-axes.png"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*drawings}
