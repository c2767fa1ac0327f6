"""300W_AUG: pictures, landmarks and labels turn together, and the copy is read as 300W-LP is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from faces import SIDE_PX, write_sample
from PIL import Image

from headpose.angles import rotation_matrices
from headpose.data.matfile import read_arrays
from headpose.data.readers import Scan, scan
from headpose.data.synthetic import synthesize
from headpose.data.synthetic.geometry import View
from headpose.data.synthetic.identity import draw_identity
from headpose.data.synthetic.plan import plan_training
from headpose.data.synthetic.render import Figure, Pose
from headpose.data.turned import TURNS_DEG, turn_set, turned_points
from usererror import UserError

FACES, SIZE_PX, SEED = 60, 96, 5


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a place") / "with a space"
    synthesize(root, train_images=FACES, test_images=1, size_px=SIZE_PX, seed=SEED, processes=1)
    return root / "300W_LP"


@pytest.fixture(scope="module")
def all_turned(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("turned") / "every picture"
    found = turn_set(source, target, share=1.0)
    assert found.copied == FACES
    assert found.turned + found.beyond_limit == len(TURNS_DEG) * (FACES - found.unusable)
    return target


def turned_of(target: Path, source: Scan) -> dict[str, tuple[str, float]]:
    """Name of each turned picture to the name that it was made from, and the turn."""
    names = {sample.name for sample in scan("300w-lp", target).samples}
    found = {}
    for sample in source.samples:
        is_flip = sample.name.endswith("_Flip")
        face, k = sample.name.removesuffix("_Flip").rsplit("_", 1)
        for index, turn_deg in enumerate(TURNS_DEG, start=1):
            name = f"{face}_{100 * index + int(k)}{'_Flip' if is_flip else ''}"
            if name in names:
                found[name] = (sample.name, turn_deg)
    return found


def test_the_copy_holds_everything_of_the_source_and_the_turned_ones(
    source: Path, all_turned: Path
) -> None:
    before, after = scan("300w-lp", source), scan("300w-lp", all_turned)
    turned = turned_of(all_turned, before)
    assert len(after.samples) == len(before.samples) + len(turned)
    assert len(turned) > 3 * FACES
    for sample in before.samples:
        copy = all_turned / f"{sample.name}.jpg"
        assert copy.read_bytes() == sample.image_path.read_bytes()
    # A turned picture of a photo must not be on the other side of a split.
    photos = {sample.name: sample.photo for sample in after.samples}
    assert all(photos[name] == photos[origin] for name, (origin, _) in turned.items())
    assert not list(all_turned.rglob("*.tmp"))


def test_labels_are_the_composed_rotations(source: Path, all_turned: Path) -> None:
    before = {sample.name: sample for sample in scan("300w-lp", source).samples}
    after = {sample.name: sample for sample in scan("300w-lp", all_turned).samples}
    for name, (origin, turn_deg) in turned_of(all_turned, scan("300w-lp", source)).items():
        a = np.deg2rad(turn_deg)
        in_plane = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        old, new = (
            rotation_matrices(torch.from_numpy(sample.angles_deg)).numpy()
            for sample in (before[origin], after[name])
        )
        np.testing.assert_allclose(new, in_plane @ old, atol=1e-6)
        assert np.abs(after[name].angles_deg).max() <= 99


def test_landmarks_are_those_of_the_head_in_its_new_pose(all_turned: Path, source: Path) -> None:
    """The same person, posed as the new label says and seen where it says."""
    people = {
        stem.removeprefix("300W_LP/"): draw_identity(np.random.default_rng(job.face_seed))
        for job in plan_training(FACES, SEED)
        for stem in job.stems
    }
    after = {sample.name: sample for sample in scan("300w-lp", all_turned).samples}
    compared = 0
    for name, (origin, _) in turned_of(all_turned, scan("300w-lp", source)).items():
        if origin not in people:
            continue
        sample = after[name]
        tx, ty, _, scale = read_arrays(all_turned / f"{name}.mat", ["Pose_Para"])["Pose_Para"][
            0, 3:
        ]
        pose = rotation_matrices(torch.from_numpy(sample.angles_deg)).numpy().astype(np.float32)
        seen = View(SIZE_PX, (float(tx), float(SIZE_PX - ty)), float(scale) * 1000)
        expected = seen.project(Figure(people[origin], Pose(pose, pose)).landmarks)
        np.testing.assert_allclose(sample.landmarks_px, expected, atol=0.02)
        compared += 1
    assert compared > 2 * FACES


@pytest.mark.parametrize("turn_deg", TURNS_DEG)
def test_what_the_picture_shows_turns_to_where_its_points_turn(
    tmp_path: Path, turn_deg: float
) -> None:
    """The bright blob of a picture is found at the turned place of its own."""
    write_sample(tmp_path / "set", "AFW/AFW_7_1_3", angles_deg=(60.0, -20.0, 5.0))
    turn_set(tmp_path / "set", tmp_path / "turned", share=1.0)
    index = 1 + TURNS_DEG.index(turn_deg)
    places = []
    for path in ("set/AFW/AFW_7_1_3.jpg", f"turned/AFW/AFW_7_1_{100 * index + 3}.jpg"):
        with Image.open(tmp_path / path) as picture:
            assert picture.size == (SIDE_PX, SIDE_PX)
            red = np.asarray(picture, np.float64)[..., 0]
        red[red < 60] = 0
        rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX] + 0.5
        weight = red.sum()
        places.append(np.array([[(red * columns).sum()], [(red * rows).sum()]]) / weight)
    expected = turned_points(places[0], turn_deg, (SIDE_PX, SIDE_PX))
    np.testing.assert_allclose(places[1], expected, atol=0.5)


def test_hidden_points_stay_hidden() -> None:
    points = np.array([[-1.0, 10.0], [452.0, 20.0]])
    turned = turned_points(points, 90.0, (40, 40))
    np.testing.assert_allclose(turned, [[-1.0, 20.0], [452.0, 10.0]])


def test_a_tenth_by_each_angle_and_the_same_ones_again(source: Path, tmp_path: Path) -> None:
    found = [turn_set(source, tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1))]
    assert found[0] == found[1]
    assert 0 < found[0].turned < FACES
    names = [sorted(p.name for p in (tmp_path / n).rglob("*.jpg")) for n in ("a", "b")]
    assert names[0] == names[1]
    turn_set(source, tmp_path / "c", seed=2)
    assert names[0] != sorted(p.name for p in (tmp_path / "c").rglob("*.jpg"))


def test_a_call_that_was_broken_off_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "set"
    turn_set(source, target, share=0.5)
    whole = {p.relative_to(target): p.read_bytes() for p in target.rglob("*.jpg")}
    lost = sorted(target.rglob("*.jpg"))[::3]
    for path in lost:
        path.unlink()
    monkeypatch.chdir(source.parent)
    turn_set(Path(source.name), target, share=0.5)
    assert {p.relative_to(target): p.read_bytes() for p in target.rglob("*.jpg")} == whole


def test_other_folders_and_shares_are_refused(source: Path, tmp_path: Path) -> None:
    turn_set(source, tmp_path / "set", share=0.5)
    with pytest.raises(UserError, match="holds something else"):
        turn_set(source, tmp_path / "set", share=0.25)
    write_sample(tmp_path / "other source", "AFW/AFW_1_1_0")
    before = sorted((tmp_path / "set").rglob("*"))
    with pytest.raises(UserError, match=r"holds something else.*'source': '/.*other source'"):
        turn_set(tmp_path / "other source", tmp_path / "set", share=0.5)
    assert sorted((tmp_path / "set").rglob("*")) == before
    with pytest.raises(UserError, match="not a share"):
        turn_set(source, tmp_path / "other", share=0.0)


def test_a_set_that_has_turned_pictures_is_refused(source: Path, tmp_path: Path) -> None:
    turn_set(source, tmp_path / "once")
    before = sorted((tmp_path / "once").rglob("*"))
    with pytest.raises(UserError, match=r"has turned pictures already.*; turn the original set"):
        turn_set(tmp_path / "once", tmp_path / "twice")
    assert not (tmp_path / "twice").exists()
    assert sorted((tmp_path / "once").rglob("*")) == before
    turn_set(source, tmp_path / "once")  # the same call goes on


def test_what_has_no_usable_label_is_copied_and_never_turned(tmp_path: Path) -> None:
    write_sample(tmp_path / "set", "AFW/AFW_1_1_0")
    write_sample(tmp_path / "set", "AFW/AFW_2_1_0", fields={"pt2d": None})
    write_sample(tmp_path / "set", "AFW/AFW_3_1_0", angles_deg=(98.0, 0.0, 60.0))
    found = turn_set(tmp_path / "set", tmp_path / "turned", share=1.0)
    assert (found.copied, found.unusable) == (3, 1)
    assert found.turned + found.beyond_limit == 8
    assert (tmp_path / "turned/AFW/AFW_2_1_0.mat").is_file()
    assert not list((tmp_path / "turned").rglob("AFW_2_1_*0?.jpg"))


@pytest.mark.parametrize("damage", ["truncated", "no picture", "of another format"])
def test_a_damaged_picture_is_copied_and_never_turned(tmp_path: Path, damage: str) -> None:
    write_sample(tmp_path / "set", "AFW/AFW_1_1_0")
    spoilt = write_sample(tmp_path / "set", "AFW/AFW_2_1_0")
    if damage == "truncated":
        spoilt.write_bytes(spoilt.read_bytes()[:2000])
    elif damage == "no picture":
        spoilt.write_bytes(b"no picture at all")
    else:
        with Image.open(spoilt) as picture:
            picture.save(spoilt, "PNG")
    assert_second_is_copied_only(tmp_path)
    assert (tmp_path / "turned/AFW/AFW_2_1_0.jpg").read_bytes() == spoilt.read_bytes()


@pytest.mark.parametrize("values", [3, 4, 6])
def test_a_label_without_a_placement_is_copied_and_never_turned(
    tmp_path: Path, values: int
) -> None:
    write_sample(tmp_path / "set", "AFW/AFW_1_1_0")
    short = np.full((1, values), 0.1, np.float32)
    write_sample(tmp_path / "set", "AFW/AFW_2_1_0", fields={"Pose_Para": short})
    assert_second_is_copied_only(tmp_path)


def assert_second_is_copied_only(tmp_path: Path) -> None:
    for _ in range(2):  # and so again when the call goes on
        found = turn_set(tmp_path / "set", tmp_path / "turned", share=1.0)
        assert (found.copied, found.turned, found.unusable) == (2, 4, 1)
    names = {path.name for path in (tmp_path / "turned").rglob("AFW_2_*")}
    assert names == {"AFW_2_1_0.jpg", "AFW_2_1_0.mat"}


def test_genuine_samples_turn_with_their_landmarks(realdata: Path, tmp_path: Path) -> None:
    source = scan("300w-lp", realdata / "300W_LP")
    turn_set(realdata / "300W_LP", tmp_path / "turned", share=1.0)
    turned = turned_of(tmp_path / "turned", source)
    assert len(turned) == len(TURNS_DEG) * len(source.samples)
    after = {sample.name: sample for sample in scan("300w-lp", tmp_path / "turned").samples}
    before = {sample.name: sample for sample in source.samples}
    for name, (origin, turn_deg) in turned.items():
        # The best in-plane turn between the two sets of landmarks is the one that was asked for.
        old, new = (
            s.landmarks_px - s.landmarks_px.mean(axis=1, keepdims=True)
            for s in (before[origin], after[name])
        )
        cross = (old[0] * new[1] - old[1] * new[0]).sum()
        found_deg = np.rad2deg(np.arctan2(cross, (old * new).sum()))
        assert found_deg == pytest.approx(turn_deg, abs=1e-6)
        assert after[name].angles_deg[2] != pytest.approx(before[origin].angles_deg[2], abs=5)
