"""The environment of `make`: taken as it is where it is whole, else made anew."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")

ROOT = Path(__file__).resolve().parents[2]
# Stands in for a Python: makes environments of itself, and installs nothing into them.
PYTHON = """#!/bin/sh
for last; do :; done
case "$1 $2" in
"-c "*) exit {status} ;;
"-m venv") rm -rf "$last/bin"; mkdir -p "$last/bin"; cp "$0" "$last/bin"; touch "$last/pyvenv.cfg";;
esac
echo "$@" >> {log}
"""

Make = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Has the environment `venv` of a Python that is new enough, or is not."""

    def call(*, is_new_enough: bool = True) -> subprocess.CompletedProcess[str]:
        python(tmp_path / "python", tmp_path / "log", is_new_enough)
        venv = tmp_path / "venv"
        outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")  # of a `make test` that runs this
        return subprocess.run(
            ["make", f"VENV={venv}", f"PYTHON={tmp_path / 'python'}", str(venv / "installed")],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name not in outer},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def python(path: Path, log: Path, is_new_enough: bool) -> None:
    path.write_text(PYTHON.format(status=0 if is_new_enough else 1, log=log))
    path.chmod(0o755)


def said(tmp_path: Path) -> list[str]:
    """What the Pythons were asked to do."""
    lines = (tmp_path / "log").read_text().splitlines()
    return [line.removesuffix(f" {tmp_path}/venv") for line in lines]


INSTALL = "-m pip install --quiet --constraint constraints.txt --editable ."


def test_made_once(tmp_path: Path, make: Make) -> None:
    assert make().returncode == 0
    assert said(tmp_path) == ["-m venv", INSTALL]
    assert (tmp_path / "venv" / "installed").exists()
    (tmp_path / "venv" / "installed").unlink()
    assert make(is_new_enough=False).returncode == 0, "only the environment's own Python counts"
    assert said(tmp_path) == ["-m venv", INSTALL, INSTALL]


def test_one_without_pip_is_made_anew(tmp_path: Path, make: Make) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    assert make().returncode == 0
    assert said(tmp_path) == ["-m venv --clear", INSTALL]


def test_one_of_an_older_python_is_made_anew(tmp_path: Path, make: Make) -> None:
    assert make().returncode == 0
    (tmp_path / "venv" / "installed").unlink()
    python(tmp_path / "venv" / "bin" / "python", tmp_path / "log", is_new_enough=False)
    assert make().returncode == 0
    assert said(tmp_path)[-2:] == ["-m venv --clear", INSTALL]


def test_a_folder_that_is_no_environment_is_not_emptied(tmp_path: Path, make: Make) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "precious").touch()
    assert make().returncode == 0
    assert said(tmp_path) == ["-m venv", INSTALL]


def test_too_old_a_python_is_told_before_anything_is_made(tmp_path: Path, make: Make) -> None:
    done = make(is_new_enough=False)
    assert done.returncode != 0
    assert f"{tmp_path}/python is not Python 3.11 or newer" in done.stderr
    assert not (tmp_path / "venv").exists()
