"""The MATLAB reader agrees with SciPy on whole files and survives damaged ones."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from headpose.data.matfile import MatFileError, read_arrays

FIELDS = {
    "Pose_Para": np.arange(7, dtype=np.float32)[None] / 7,
    "pt2d": np.arange(136, dtype=np.float64).reshape(2, 68) * 1.5,
    "roi": np.array([[1, 2, 300, 4]], np.int16),
    "scalar": np.array([[7]], np.uint8),
}


def mat_bytes(*, compressed: bool) -> bytes:
    buffer = io.BytesIO()
    others = {"text": "a word", "complex": np.array([[1j]]), "cell": np.array([[1, "a"]], object)}
    scipy.io.savemat(buffer, {**FIELDS, **others}, do_compression=compressed)
    return buffer.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_all_number_arrays_are_read_as_scipy_wrote_them(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "x.mat"
    path.write_bytes(mat_bytes(compressed=compressed))
    found = read_arrays(path, [*FIELDS, "text", "complex", "cell", "absent"])
    assert set(found) == set(FIELDS)
    for name, values in FIELDS.items():
        np.testing.assert_array_equal(found[name], values)


def test_genuine_files_are_read_as_scipy_reads_them(realdata: Path) -> None:
    paths = sorted(realdata.glob("*/**/*.mat"))
    assert paths
    for path in paths:
        expected = scipy.io.loadmat(path)
        for name, values in read_arrays(path, expected.keys()).items():
            np.testing.assert_array_equal(values, expected[name])


def test_damage_gives_an_error_and_never_a_crash(tmp_path: Path) -> None:
    # Byte patterns of this kind crash SciPy's own reader with a segmentation fault.
    rng = random.Random(0)
    path = tmp_path / "x.mat"
    refused = 0
    for turn in range(600):
        raw = bytearray(mat_bytes(compressed=turn % 2 == 0))
        if turn % 3 == 0:
            del raw[rng.randrange(len(raw)) :]
        else:
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        path.write_bytes(raw)
        try:
            read_arrays(path, ["Pose_Para", "pt2d"])
        except MatFileError:
            refused += 1
    assert refused > 150


@pytest.mark.parametrize("raw", [b"", b"MATLAB 7.3 MAT-file" + bytes(200), b"\x89HDF" * 60])
def test_another_format_is_named_as_such(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "x.mat"
    path.write_bytes(raw)
    with pytest.raises(MatFileError, match="does not begin as a MATLAB 5 file"):
        read_arrays(path, ["pt2d"])


def test_a_compressed_bomb_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"pt2d": np.zeros((2, 3_000_000))}, do_compression=True)
    path = tmp_path / "x.mat"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(MatFileError, match="far too large"):
        read_arrays(path, ["pt2d"])
