"""Readers: names, photos, labels, and every kind of file that is left out."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from faces import write_sample

from headpose.bins import Binning
from headpose.data.readers import LeftOut, Sample, find_names, photo_of, read_sample, scan
from usererror import NotHereError, UserError

NAME = "AFW/AFW_1051618982_1_0"


def left_out_reason(root: Path, name: str = NAME) -> str:
    entry = read_sample("300w-lp", root, name)
    assert isinstance(entry, LeftOut), entry
    return entry.reason


@pytest.mark.parametrize(
    ("name", "photo"),
    [
        ("AFW/AFW_1051618982_1_0", "AFW_1051618982"),
        ("AFW_Flip/AFW_1051618982_2_17", "AFW_1051618982"),
        ("HELEN/HELEN_100032540_1_5", "HELEN_100032540"),
        ("LFPW/LFPW_image_train_0001_3", "LFPW_image_train_0001"),
        ("LFPW_Flip/LFPW_image_train_0001_3_Flip", "LFPW_image_train_0001"),
        ("LFPW/LFPW_image_test_0001_3", "LFPW_image_test_0001"),
        ("IBUG/IBUG_image_008_1_0", "IBUG_image_008"),
        ("IBUG/IBUG_image_008_2_11", "IBUG_image_008"),
        ("IBUG/IBUG_image_010_4", "IBUG_image_010"),
        ("IBUG/IBUG_image_092 _01_3", "IBUG_image_092"),
        ("AFW/holiday", None),
    ],
)
def test_photo_of_300w_lp(name: str, photo: str | None) -> None:
    assert photo_of("300w-lp", name) == photo


def test_genuine_degrees_and_bins_are_the_golden_ones(realdata: Path) -> None:
    golden = {
        Path(row["file"]).stem: row
        for row in json.loads((realdata / "loader_golden.json").read_text())
    }
    samples = (
        *scan("300w-lp", realdata / "300W_LP").samples,
        *scan("aflw2000", realdata / "AFLW2000").samples,
    )
    assert {sample.name.rsplit("/", 1)[-1] for sample in samples} == set(golden)
    for sample in samples:
        row = golden[sample.name.rsplit("/", 1)[-1]]
        # The golden degrees were computed in float32, which near 54° counts in steps of 4e-6,
        # and then rounded to five digits.
        assert sample.angles_deg.tolist() == pytest.approx(
            row["yaw_pitch_roll"], rel=0, abs=5e-6 + 4e-6
        )
        labels = Binning(3.0, "hopenet").nearest_labels(torch.from_numpy(sample.angles_deg))
        assert labels.tolist() == row["bins66"]
        assert sample.image_path.is_file()


def test_samples_come_in_the_order_of_their_names_with_flips(tmp_path: Path) -> None:
    for name in ("HELEN/HELEN_1_1_0", NAME, "AFW_Flip/AFW_1051618982_1_0"):
        write_sample(tmp_path, name)
    (tmp_path / "landmarks").mkdir()
    (tmp_path / "landmarks" / "x.mat").write_bytes(b"not a sample")
    found = scan("300w-lp", tmp_path)
    assert [sample.name for sample in found.samples] == [
        NAME,
        "AFW_Flip/AFW_1051618982_1_0",
        "HELEN/HELEN_1_1_0",
    ]
    assert found.left_out == ()
    np.testing.assert_allclose(found.samples[0].angles_deg, [10, -5, 3], atol=1e-5)


def test_a_name_with_a_space_or_a_dot_is_a_name_like_any_other(tmp_path: Path) -> None:
    names = ("IBUG/IBUG_image_092 _01_3", "AFW/AFW_10.5_1_0")
    for name in names:
        write_sample(tmp_path / "a folder", name)
    found = scan("300w-lp", tmp_path / "a folder")
    assert {sample.name for sample in found.samples} == set(names)


def test_a_missing_folder_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such data set folder") as caught:
        scan("300w-lp", tmp_path / "nowhere")
    assert caught.value.where == str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no sample"):
        scan("300w-lp", tmp_path)
    with pytest.raises(UserError, match="unknown data set layout; got 'biwi'"):
        scan("biwi", tmp_path)  # type: ignore[arg-type]


def test_a_missing_twin_is_named(tmp_path: Path) -> None:
    write_sample(tmp_path, NAME)
    write_sample(tmp_path, "AFW/AFW_2_1_0")
    (tmp_path / f"{NAME}.mat").unlink()
    (tmp_path / "AFW/AFW_2_1_0.jpg").unlink()
    found = scan("300w-lp", tmp_path)
    assert found.samples == ()
    assert found.left_out == (
        LeftOut(NAME, "no mat file beside its twin"),
        LeftOut("AFW/AFW_2_1_0", "no jpg file beside its twin"),
    )


def test_a_stray_name_is_left_out_not_guessed_at(tmp_path: Path) -> None:
    write_sample(tmp_path, "AFW/holiday")
    assert (
        left_out_reason(tmp_path, "AFW/holiday") == "the name does not follow the rule of 300w-lp"
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"Pose_Para": None}, "the mat file has no Pose_Para"),
        ({"pt2d": None}, "the mat file has no pt2d"),
        ({"Pose_Para": None, "pt2d": None}, "no Pose_Para and no pt2d"),
        ({"Pose_Para": np.array([[0.1, np.nan, 0, 0, 0, 0, 0]])}, "an angle is not a number"),
        ({"Pose_Para": np.array([[0.1, np.inf, 0, 0, 0, 0, 0]])}, "an angle is not a number"),
        ({"Pose_Para": np.zeros((1, 2))}, "not a row of numbers"),
        ({"pt2d": np.zeros((3, 68))}, r"pt2d is not \(2, P\)"),
        ({"pt2d": np.full((2, 68), np.nan)}, "a landmark is not a number"),
    ],
)
def test_unusable_fields_are_left_out_with_the_reason(
    tmp_path: Path, fields: dict[str, object], reason: str
) -> None:
    write_sample(tmp_path, NAME, fields=fields)
    entry = read_sample("300w-lp", tmp_path, NAME)
    assert isinstance(entry, LeftOut)
    assert entry.is_damage
    with pytest.raises(ValueError, match=reason):
        raise ValueError(entry.reason)


def test_a_truncated_mat_is_left_out(tmp_path: Path) -> None:
    write_sample(tmp_path, NAME)
    path = tmp_path / f"{NAME}.mat"
    path.write_bytes(path.read_bytes()[:400])
    assert left_out_reason(tmp_path) == "the mat file is damaged: it is cut off"


@pytest.mark.parametrize("sign", [-1, 1])
def test_an_angle_of_exactly_99_is_kept_in_the_outermost_bin(tmp_path: Path, sign: int) -> None:
    limit = np.float32(np.deg2rad(99.0))
    for radians in (limit, np.nextafter(limit, np.float32(2))):
        pose = np.array([[0, sign * radians, 0, 0, 0, 0, 0]], np.float32)
        write_sample(tmp_path, NAME, fields={"Pose_Para": pose})
        sample = read_sample("300w-lp", tmp_path, NAME)
        assert isinstance(sample, Sample)
        assert sample.angles_deg[0] == sign * 99.0
        label = Binning(3.0).nearest_labels(torch.from_numpy(sample.angles_deg))[0]
        assert label == (65 if sign > 0 else 0)


def test_an_angle_beyond_the_limit_is_left_out_but_is_no_damage(tmp_path: Path) -> None:
    write_sample(tmp_path, NAME, angles_deg=(99.01, 0.0, 0.0))
    entry = read_sample("300w-lp", tmp_path, NAME)
    assert entry == LeftOut(
        NAME, "an angle lies beyond ±99°: yaw 99.01, pitch 0.00, roll 0.00", is_damage=False
    )


def failing(monkeypatch: pytest.MonkeyPatch, method: str, at: Path, number: int) -> None:
    """Has the disk fail at one path."""
    whole = getattr(Path, method)

    def fails(path: Path, *arguments: object, **named: object) -> object:
        if path == at:
            raise OSError(number, os.strerror(number), str(at))
        return whole(path, *arguments, **named)

    monkeypatch.setattr(Path, method, fails)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
@pytest.mark.parametrize("suffix", [".jpg", ".mat"])
def test_a_disk_that_fails_for_a_while_costs_no_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, suffix: str
) -> None:
    write_sample(tmp_path, NAME)
    failing(monkeypatch, "stat", tmp_path / f"{NAME}{suffix}", number)
    with pytest.raises(NotHereError, match=rf"_0\{suffix}: cannot be read now"):
        read_sample("300w-lp", tmp_path, NAME)


def test_a_file_that_may_not_be_looked_at_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sample(tmp_path, NAME)
    failing(monkeypatch, "stat", tmp_path / f"{NAME}.jpg", errno.EACCES)
    assert left_out_reason(tmp_path) == "the jpg file cannot be read: Permission denied"


def test_a_link_to_itself_is_no_file(tmp_path: Path) -> None:
    write_sample(tmp_path, NAME)
    (tmp_path / f"{NAME}.jpg").unlink()
    (tmp_path / f"{NAME}.jpg").symlink_to(tmp_path / f"{NAME}.jpg")
    assert left_out_reason(tmp_path) == "no jpg file beside its twin"


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ESTALE, NotHereError, "AFW: cannot be read now; got 'Stale file handle'"),
        (errno.EACCES, UserError, "AFW: cannot be listed; got 'Permission denied'"),
    ],
)
@pytest.mark.parametrize("method", ["iterdir", "stat"])
def test_a_folder_that_cannot_be_listed_is_no_traceback(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    number: int,
    kind: type[UserError],
    said: str,
) -> None:
    write_sample(tmp_path, NAME)
    failing(monkeypatch, method, tmp_path / "AFW", number)
    with pytest.raises(kind, match=said):
        find_names("300w-lp", tmp_path)
