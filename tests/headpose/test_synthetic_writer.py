"""Synthetic faces on disk: names, labels, distributions, and what the writer refuses."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from headpose.data.readers import scan
from headpose.data.synthetic import synthesize
from headpose.data.synthetic.plan import plan_test, plan_training
from headpose.labels import from_pose_para, to_pose_para
from usererror import UserError

TRAIN, TEST, SIZE_PX = 40, 8, 64


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a place") / "with a space"
    synthesize(root, train_images=TRAIN, test_images=TEST, size_px=SIZE_PX, seed=5)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_readers_find_every_picture(faces: Path) -> None:
    train = scan("300w-lp", faces / "300W_LP")
    test = scan("aflw2000", faces / "AFLW2000")
    assert len(train.samples) + len(train.left_out) == TRAIN
    assert len(test.samples) + len(test.left_out) == TEST
    assert not [entry for entry in (*train.left_out, *test.left_out) if entry.is_damage]
    photos = {sample.photo for sample in train.samples}
    assert len(photos) < len(train.samples) / 2
    assert not list(faces.rglob("*.tmp"))


def test_names_are_those_of_300w_lp(faces: Path) -> None:
    folders = {path.name for path in (faces / "300W_LP").iterdir()}
    assert {"AFW", "HELEN", "IBUG", "LFPW", "IBUG_Flip"} <= folders
    assert (faces / "300W_LP" / "IBUG" / "IBUG_image_092 _01_0.jpg").is_file()
    stems = {path.stem for path in (faces / "AFLW2000").glob("*.jpg")}
    assert stems == {f"image{index:05d}" for index in range(1, TEST + 1)}


def test_label_fields_are_those_of_the_originals(faces: Path) -> None:
    for path in sorted(faces.glob("300W_LP/*/*.mat")):
        fields = scipy.io.loadmat(path)
        assert fields["Pose_Para"].shape == (1, 7)
        assert fields["Pose_Para"].dtype == np.float32
        assert fields["pt2d"].shape == (2, 68)
        x, y = fields["pt2d"]
        # tx, ty: the head's own origin, measured from the lower left edge.
        tx, ty = fields["Pose_Para"][0, 3:5]
        assert abs(tx - x.mean()) < 0.35 * SIZE_PX
        assert abs(SIZE_PX - ty - y.mean()) < 0.35 * SIZE_PX
        with Image.open(path.with_name(f"{path.stem}.jpg")) as picture:
            assert (picture.size, picture.mode) == ((SIZE_PX, SIZE_PX), "RGB")


def test_test_labels_have_aflws_21_points_with_its_sign_for_the_hidden(tmp_path: Path) -> None:
    synthesize(tmp_path, train_images=0, test_images=40, size_px=32, seed=2)
    shapes, hidden = set(), 0
    for path in (tmp_path / "AFLW2000").glob("*.mat"):
        fields = scipy.io.loadmat(path)
        assert fields["pt3d_68"].shape == (3, 68)
        shapes.add(fields["pt2d"].shape)
        missing = fields["pt2d"][:, fields["pt2d"][0] == -1]
        hidden += missing.shape[1]
        np.testing.assert_allclose(missing[1], 452 * 32 / 450)
    assert shapes == {(2, 21), (2, 68)}
    assert hidden > 0


def test_yaw_grows_within_a_photo_and_the_twin_mirrors_it(faces: Path) -> None:
    folder = faces / "300W_LP"
    yaws = []
    for k in range(3):
        name = f"IBUG_image_092 _01_{k}"
        one = scipy.io.loadmat(folder / "IBUG" / f"{name}.mat")
        twin = scipy.io.loadmat(folder / "IBUG_Flip" / f"{name}.mat")
        yaw, pitch, roll = from_pose_para(one["Pose_Para"])
        np.testing.assert_allclose(from_pose_para(twin["Pose_Para"]), [-yaw, pitch, -roll])
        assert twin["pt2d"][0, 0] == pytest.approx(SIZE_PX - one["pt2d"][0, 16])
        yaws.append(abs(yaw))
        with (
            Image.open(folder / "IBUG" / f"{name}.jpg") as picture,
            Image.open(folder / "IBUG_Flip" / f"{name}.jpg") as mirrored,
        ):
            straight, flipped = np.asarray(picture, float), np.asarray(mirrored, float)
        assert np.abs(straight - flipped[:, ::-1]).mean() < 6  # both went through JPEG
        assert np.abs(straight - flipped).mean() > 6
    assert yaws[0] < yaws[1] < yaws[2]


def test_poses_are_spread_as_in_the_originals() -> None:
    train = np.concatenate([job.angles_deg for job in plan_training(12_000, 0)])
    test = np.concatenate([job.angles_deg for job in plan_test(4_000, 0)])
    # Published 5th and 95th percentiles of yaw, pitch, roll.
    published_train = [[-81.8, -27.0, -18.9], [81.8, 11.0, 15.7]]
    published_test = [[-68.1, -31.0, -33.5], [68.4, 26.3, 33.7]]
    np.testing.assert_allclose(np.percentile(train, [5, 95], axis=0), published_train, atol=3)
    np.testing.assert_allclose(np.percentile(test, [5, 95], axis=0), published_test, atol=4)
    assert 0.01 < (np.abs(test) > 99).any(axis=1).mean() < 0.025
    assert (np.abs(train) > 99).any(axis=1).mean() < 0.002


def test_the_plan_holds_just_as_many_pictures_as_asked_and_no_name_twice() -> None:
    for count in (0, 1, 2, 7, 500):
        jobs = list(plan_training(count, 1))
        names = [stem for job in jobs for stem in (*job.stems, *job.twin_stems)]
        assert len(names) == len(set(names)) == count == sum(job.count for job in jobs)


def test_some_photos_show_two_people_before_the_same_background() -> None:
    jobs = [job for job in plan_training(2_000, 0) if job.stems[0].rsplit("_", 2)[1] == "2"]
    assert jobs
    every = {job.stems[0]: job for job in plan_training(2_000, 0)}
    for job in jobs:
        first = every.get(job.stems[0].rsplit("_", 2)[0] + "_1_0")
        assert first is not None
        assert first.scene_seed == job.scene_seed
        assert first.face_seed != job.face_seed


def test_the_same_seed_gives_the_same_bytes_by_any_number_of_processes(
    faces: Path, tmp_path: Path
) -> None:
    synthesize(tmp_path, train_images=TRAIN, test_images=TEST, size_px=SIZE_PX, seed=5, processes=2)
    assert contents(tmp_path) == contents(faces)


def test_another_seed_gives_other_faces(faces: Path, tmp_path: Path) -> None:
    synthesize(tmp_path, train_images=1, test_images=1, size_px=SIZE_PX, seed=6)
    name = "AFLW2000/image00001.jpg"
    assert (tmp_path / name).read_bytes() != (faces / name).read_bytes()


def test_progress_rises_to_the_total(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    synthesize(
        tmp_path,
        train_images=6,
        test_images=3,
        size_px=32,
        progress=lambda done, total: calls.append((done, total)),
    )
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert calls[-1] == (9, 9)


def test_a_finished_folder_is_left_alone_and_an_unfinished_one_completed(tmp_path: Path) -> None:
    def write() -> None:
        synthesize(tmp_path, train_images=3, test_images=1, size_px=32)

    write()
    complete = contents(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")}
    write()
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")}
    marker = tmp_path / "synthetic.json"
    marker.write_text(marker.read_text().replace("true", "false"))
    (tmp_path / "AFLW2000" / "image00001.mat").unlink()
    write()
    assert contents(tmp_path) == complete


def test_a_foreign_folder_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"not empty.*thesis\.tex.*new or empty") as refusal:
        synthesize(tmp_path, train_images=1, test_images=1, size_px=32)
    assert refusal.value.where == str(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "faces"
    path.write_text("")
    with pytest.raises(UserError, match="is a file"):
        synthesize(path, train_images=1, test_images=1, size_px=32)


def test_other_synthetic_faces_are_not_mixed_in(tmp_path: Path) -> None:
    synthesize(tmp_path, train_images=1, test_images=1, size_px=32, seed=1)
    with pytest.raises(UserError, match="other synthetic faces"):
        synthesize(tmp_path, train_images=1, test_images=1, size_px=32, seed=2)


@pytest.mark.parametrize(
    ("field", "value"), [("train_images", -1), ("size_px", 8), ("seed", -1), ("processes", 0)]
)
def test_impossible_numbers_are_refused(tmp_path: Path, field: str, value: int) -> None:
    arguments = {"train_images": 1, "test_images": 1, "size_px": 32} | {field: value}
    with pytest.raises(UserError, match=f"{field}: out of range; got {value}"):
        synthesize(tmp_path / "faces", **arguments)
    assert not (tmp_path / "faces").exists()


def test_labels_in_radians_come_back_in_degrees() -> None:
    row = to_pose_para(np.array([60.0, -20.0, 10.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert row.shape == (1, 7)
    np.testing.assert_allclose(row[0, :3], [-0.34906585, 1.04719755, 0.17453293], rtol=1e-6)
    np.testing.assert_allclose(row[0, 3:], [1, 2, 3, 4])
    np.testing.assert_allclose(from_pose_para(row), [60, -20, 10], atol=1e-5)
