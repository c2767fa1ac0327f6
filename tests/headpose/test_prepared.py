"""Preparing a set, opening it, and refusing what is damaged or missing."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from faces import write_300w_lp, write_sample
from PIL import Image

from headpose.data import preparation
from headpose.data.crops import face_box, square_view
from headpose.data.manifest import PrepareSettings
from headpose.data.prepared import PreparedSet, is_prepared, prepare
from headpose.data.readers import scan
from usererror import UserError

SMALL = PrepareSettings(stored_px=40, max_left_out_fraction=0.5)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "300W LP"
    write_300w_lp(root, faces=4)
    return root


@pytest.fixture
def prepared(source: Path, tmp_path: Path) -> Path:
    prepare("300w-lp", source, tmp_path / "prepared", SMALL)
    return tmp_path / "prepared"


def test_a_prepared_set_holds_the_crops_and_labels_of_its_source(
    source: Path, tmp_path: Path
) -> None:
    seen = []
    manifest = prepare(
        "300w-lp", source, tmp_path / "set", SMALL, lambda done, total: seen.append((done, total))
    )
    assert seen == [(done, 8) for done in range(1, 9)]
    opened = PreparedSet.open(tmp_path / "set", verify_images=True)
    samples = scan("300w-lp", source).samples
    assert opened.manifest == manifest
    assert len(opened) == manifest.count == 8
    assert opened.names == tuple(sample.name for sample in samples)
    assert opened.photos == tuple(sample.photo for sample in samples)
    np.testing.assert_allclose(opened.angles_deg, [s.angles_deg for s in samples], rtol=1e-6)
    sample = samples[5]
    box = face_box("300w-lp", sample.landmarks_px, looseness=0.3)
    expected = square_view(Image.open(sample.image_path), box, 40, scale=1 / 0.8)
    np.testing.assert_array_equal(opened.images_u8[5], np.asarray(expected))
    middle = np.median(opened.angles_deg[:, 0])
    assert manifest.percentiles_deg["yaw"][1] == pytest.approx(middle, abs=0.01)


def test_nothing_but_the_four_files_is_left(prepared: Path) -> None:
    names = {path.name for path in prepared.iterdir()}
    assert names == {"images.npy", "angles.npy", "names.json", "manifest.json"}
    assert {path.name for path in prepared.parent.iterdir()} == {"300W LP", "prepared"}


def test_the_fingerprint_follows_content_and_view_and_nothing_else(
    source: Path, tmp_path: Path
) -> None:
    def fingerprint(place: str, settings: PrepareSettings, workers: int | None = None) -> str:
        return prepare("300w-lp", source, tmp_path / place, settings, workers=workers).fingerprint

    first = fingerprint("a", SMALL)
    same = PrepareSettings(stored_px=40, max_left_out_fraction=0.1, looseness=0.3)
    assert fingerprint("b", same, workers=3) == first
    assert fingerprint("c", PrepareSettings(stored_px=40, view_fraction=0.7)) != first
    write_sample(source, "AFW/AFW_1000_1_0", angles_deg=(1.0, 2.0, 3.0))
    assert fingerprint("d", SMALL) != first


def test_damaged_files_are_counted_named_and_left_out(source: Path, tmp_path: Path) -> None:
    folder = source / "AFW"
    truncated = folder / "AFW_1000_1_0.jpg"
    truncated.write_bytes(truncated.read_bytes()[:2000])
    (folder / "AFW_1001_1_0.jpg").write_bytes(b"no picture at all")
    (folder / "AFW_1002_1_0.mat").unlink()
    write_sample(source, "AFW/AFW_1003_1_0", fields={"pt2d": np.full((2, 68), 7.0)})
    write_sample(source, "AFW/AFW_1003_1_1", angles_deg=(120.0, 0.0, 0.0))
    manifest = prepare("300w-lp", source, tmp_path / "set", SMALL)
    reasons = {entry.name.rsplit("/", 1)[-1]: entry.reason for entry in manifest.left_out}
    assert set(reasons) == {
        "AFW_1000_1_0",
        "AFW_1001_1_0",
        "AFW_1002_1_0",
        "AFW_1003_1_0",
        "AFW_1003_1_1",
    }
    assert "the jpg file is damaged: image file is truncated" in reasons["AFW_1000_1_0"]
    assert reasons["AFW_1001_1_0"] == "the jpg file is damaged: not a JPEG picture"
    assert reasons["AFW_1002_1_0"] == "no mat file beside its twin"
    assert "span no area" in reasons["AFW_1003_1_0"]
    assert "beyond ±99°" in reasons["AFW_1003_1_1"]
    opened = PreparedSet.open(tmp_path / "set", verify_images=True)
    assert opened.images_u8.shape == (3, 40, 40, 3)
    assert opened.manifest.left_out == manifest.left_out


def test_landmarks_of_any_size_cost_their_own_sample_alone(source: Path, tmp_path: Path) -> None:
    for variant, far in enumerate((1.7e308, 1e300)):
        landmarks = np.array([[20.0, far], [20.0, 30.0]])
        write_sample(source, f"AFW/AFW_1000_1_{variant}", fields={"pt2d": landmarks})
    wide = source / "AFW" / "AFW_1001_1_0.jpg"
    Image.new("RGB", (1_000, 1_000)).save(wide)
    scipy.io.savemat(
        wide.with_suffix(".mat"),
        {
            "Pose_Para": np.zeros((1, 7), np.float32),
            "pt2d": np.array([[-5_000.0, 5_000.0], [-3_000.0, 3_000.0]]),
        },
    )
    manifest = prepare("300w-lp", source, tmp_path / "set", SMALL)
    reasons = [entry.reason for entry in manifest.left_out]
    assert reasons[:2] == ["the landmarks lie beyond any picture"] * 2
    assert "larger than a face can be" in reasons[2]
    assert manifest.count == 5


def test_too_many_damaged_files_fail_with_their_names(source: Path, tmp_path: Path) -> None:
    (source / "AFW" / "AFW_1000_1_0.mat").unlink()
    settings = PrepareSettings(stored_px=40, max_left_out_fraction=0.05)
    with pytest.raises(UserError, match="1 of 8 samples are damaged") as caught:
        prepare("300w-lp", source, tmp_path / "set", settings)
    assert "'AFW/AFW_1000_1_0': no mat file beside its twin" in str(caught.value)
    assert caught.value.remedy == "repair the source, or delete from it what is damaged"
    assert {path.name for path in tmp_path.iterdir()} == {"300W LP"}  # and nothing is left behind


def test_poses_beyond_the_limit_do_not_count_as_damage(tmp_path: Path) -> None:
    for number, yaw in enumerate((5.0, 120.0, 130.0)):
        write_sample(tmp_path / "src", f"image0000{number}", angles_deg=(yaw, 0.0, 0.0))
    settings = PrepareSettings(stored_px=40, max_left_out_fraction=0.0)
    manifest = prepare("aflw2000", tmp_path / "src", tmp_path / "set", settings)
    assert (manifest.count, len(manifest.left_out)) == (1, 2)
    (tmp_path / "src" / "image00000.jpg").unlink()
    (tmp_path / "src" / "image00000.mat").unlink()
    with pytest.raises(UserError, match="no sample can be used"):
        prepare("aflw2000", tmp_path / "src", tmp_path / "set2", settings)


def test_a_taken_destination_is_left_alone(source: Path, prepared: Path) -> None:
    before = (prepared / "manifest.json").read_text()
    with pytest.raises(UserError, match="is taken"):
        prepare("300w-lp", source, prepared, SMALL)
    assert (prepared / "manifest.json").read_text() == before


def test_another_set_is_replaced_on_demand_and_nothing_else(source: Path, tmp_path: Path) -> None:
    first = prepare("300w-lp", source, tmp_path / "set", SMALL)
    other = PrepareSettings(stored_px=48)
    second = prepare("300w-lp", source, tmp_path / "set", other, replace=True)
    assert PreparedSet.open(tmp_path / "set", verify_images=True).fingerprint == second.fingerprint
    assert first.fingerprint != second.fingerprint
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="is taken"):
        prepare("300w-lp", source, tmp_path / "mine", SMALL, replace=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert {path.name for path in tmp_path.iterdir()} == {"300W LP", "set", "mine"}


@pytest.mark.parametrize("beside", ["a project", "a set with notes", "a set with a folder"])
def test_work_beside_a_manifest_is_not_replaced(source: Path, tmp_path: Path, beside: str) -> None:
    place = tmp_path / "set"
    if beside == "a project":
        place.mkdir()
        (place / "manifest.json").write_text('{"name": "a web page"}')
    else:
        prepare("300w-lp", source, place, SMALL)
        notes = place / ("notes.txt" if beside == "a set with notes" else "plots/first.png")
        notes.parent.mkdir(exist_ok=True)
        notes.write_text("years of work")
    before = {path: path.is_dir() or path.read_bytes() for path in place.rglob("*")}
    with pytest.raises(UserError, match=r"is taken; a prepared set needs .* delete what is there"):
        prepare("300w-lp", source, place, PrepareSettings(stored_px=48), replace=True)
    assert {path: path.is_dir() or path.read_bytes() for path in place.rglob("*")} == before
    assert {path.name for path in tmp_path.iterdir()} == {"300W LP", "set"}


def test_a_place_where_no_folder_can_be_is_the_users_error(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(UserError, match="cannot be used; got 'Not a directory'"):
        prepare("300w-lp", source, tmp_path / "file" / "set", SMALL)


def test_what_comes_to_lie_there_meanwhile_is_left_alone(source: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "set" / "thesis.txt"

    def meanwhile(done: int, total: int) -> None:
        if done == total:
            thesis.parent.mkdir()
            thesis.write_text("years of work")

    with pytest.raises(UserError, match="is taken"):
        prepare("300w-lp", source, tmp_path / "set", SMALL, meanwhile, replace=True)
    assert thesis.read_text() == "years of work"
    thesis.unlink()
    seen = []
    prepare("300w-lp", source, tmp_path / "set", SMALL, lambda done, _total: seen.append(done))
    assert is_prepared(tmp_path / "set")
    assert seen == [8], "all of it had been done"


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_followed_to_the_disk_that_it_names(
    source: Path, tmp_path: Path, exists: bool
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if exists:
        (disk / "set").mkdir()
    (tmp_path / "link").symlink_to(disk / "set")
    grown_in: set[str] = set()

    def look(_done: int, _total: int) -> None:
        grown_in.update(path.name for path in disk.iterdir() if path.name != "set")

    prepare("300w-lp", source, tmp_path / "link", SMALL, look)
    assert grown_in == {".set.lock", ".set.partial"}
    assert (tmp_path / "link").is_symlink()
    assert len(PreparedSet.open(disk / "set")) == 8
    assert {path.name for path in tmp_path.iterdir()} == {"300W LP", "disk", "link"}


@pytest.mark.parametrize("name", [".", "../set", "../elsewhere/../set"])
@pytest.mark.parametrize("is_set", [True, False])
def test_the_current_folder_is_not_pulled_from_under_its_user(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_set: bool
) -> None:
    place = tmp_path / "set"
    (tmp_path / "elsewhere").mkdir()
    if is_set:
        prepare("300w-lp", source, place, SMALL)
    else:
        place.mkdir()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(place)
    with pytest.raises(
        UserError, match="is the current folder; a prepared set appears by a rename"
    ):
        prepare("300w-lp", source, Path(name), PrepareSettings(stored_px=48), replace=is_set)
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.chdir(tmp_path / "elsewhere")
    prepare("300w-lp", source, place, SMALL, replace=is_set)
    assert len(PreparedSet.open(place, verify_images=True)) == 8


def test_a_mount_point_is_refused_before_the_work_begins(source: Path) -> None:
    with pytest.raises(UserError, match=r"^/: is a mount point; .* appears by a rename"):
        prepare("300w-lp", source, Path("/"), SMALL, replace=True)


def test_a_full_disk_is_told_before_the_work_begins(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 90, 10))
    with pytest.raises(UserError, match="no room on the disk; got '10 bytes of up to 38,400"):
        prepare("300w-lp", source, tmp_path / "set", SMALL)
    assert not (tmp_path / "set").exists()


def test_a_disk_that_fills_up_on_the_way_leaves_nothing_behind(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preparation, "sync", full)
    with pytest.raises(UserError, match="no room on the disk"):
        prepare("300w-lp", source, tmp_path / "set", SMALL)
    assert {path.name for path in tmp_path.iterdir()} == {"300W LP"}


def test_a_missing_set_is_the_users_error(tmp_path: Path) -> None:
    assert not is_prepared(tmp_path)
    with pytest.raises(UserError, match="no prepared data set here"):
        PreparedSet.open(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["images.npy", "angles.npy", "names.json"])
def test_a_shortened_or_absent_file_is_named(prepared: Path, name: str) -> None:
    path = prepared / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="the prepared data set is damaged") as caught:
        PreparedSet.open(prepared)
    assert caught.value.where == str(path)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        PreparedSet.open(prepared)


@pytest.mark.parametrize("name", ["images.npy", "angles.npy", "names.json"])
def test_a_changed_byte_is_found_by_its_sum(prepared: Path, name: str) -> None:
    path = prepared / name
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(UserError, match="sha256"):
        PreparedSet.open(prepared, verify_images=True)
    if name != "images.npy":
        with pytest.raises(UserError, match="sha256"):
            PreparedSet.open(prepared)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.update(count=7), "damaged"),
        (lambda raw: raw["settings"].update(view_fraction=0.5), "does not fit its own fingerprint"),
        (lambda raw: raw.update(format_version=0), "another format version"),
        (lambda raw: raw.pop("files"), "not a readable manifest"),
        (lambda raw: raw["settings"].update(stored_px=64), "damaged"),
    ],
)
def test_a_changed_manifest_is_refused(prepared: Path, change: object, message: str) -> None:
    path = prepared / "manifest.json"
    raw = json.loads(path.read_text())
    change(raw)  # type: ignore[operator]
    path.write_text(json.dumps(raw))
    with pytest.raises(UserError, match=message):
        PreparedSet.open(prepared)


def test_a_manifest_of_garbage_is_refused(prepared: Path) -> None:
    (prepared / "manifest.json").write_bytes(b"\xff\x00{")
    with pytest.raises(UserError, match="damaged"):
        PreparedSet.open(prepared)
    (prepared / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match="not a readable manifest"):
        PreparedSet.open(prepared)


def test_a_view_finer_than_what_is_stored_is_refused(prepared: Path) -> None:
    opened = PreparedSet.open(prepared)
    opened.require_view_px(32)
    with pytest.raises(UserError, match=r"stored_px >= 80 \(.* --pixels 80`\)"):
        opened.require_view_px(64)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stored_px", 31),
        ("view_fraction", 1.2),
        ("policy", "loose"),
        ("looseness", -0.1),
        ("max_left_out_fraction", 2.0),
    ],
)
def test_illegal_settings_are_refused_by_field_name(field: str, value: object) -> None:
    with pytest.raises(UserError) as caught:
        PrepareSettings(**{field: value})  # type: ignore[arg-type]
    assert caught.value.where == f"PrepareSettings.{field}"


def test_genuine_files_are_prepared_whole(realdata: Path, tmp_path: Path) -> None:
    manifest = prepare(
        "aflw2000", realdata / "AFLW2000", tmp_path / "set", PrepareSettings(stored_px=64)
    )
    assert (manifest.count, manifest.left_out) == (8, ())
