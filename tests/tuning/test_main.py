"""The command itself."""

import errno
import importlib.metadata
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.local import processes
from headpose.data.manifest import MAX_STORED_PX
from headpose.data.synthetic import synthesize
from tuning.cli import main
from tuning.cli.main import app


def test_it_says_its_version() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (
        0,
        f"hopetune {importlib.metadata.version('hopetune')}\n",
    )


def test_its_help_says_what_it_is_for_and_names_all_commands() -> None:
    said = CliRunner().invoke(app, ["--help"]).stdout
    assert "Finds the best head-pose network" in said
    for name in ("up", "submit", "run", "show", "resume", "extend", "promote", "predict", "gc"):
        assert f" {name} " in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("data", "synthesize", "{file}/faces", "--train", "4", "--test", "1", "--size", "48"),
        ("data", "prepare", "300w-lp", "{faces}/300W_LP", "--to", "{file}/set"),
        ("data", "augment", "{faces}/300W_LP", "{file}/turned"),
    ],
)
def test_a_place_that_cannot_be_used_is_a_line_and_no_traceback(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "a file"
    file.write_text("in the way")
    faces = tmp_path / "faces"
    synthesize(faces, train_images=4, test_images=1, size_px=48)
    told = [text.format(file=file, faces=faces) for text in arguments]
    monkeypatch.setattr(sys, "argv", ["hopetune", *told])
    with pytest.raises(SystemExit) as exit_:
        main.main()
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith(f"error: {file}")
    assert "cannot be used; got " in line
    assert file.read_text() == "in the way"


@pytest.mark.parametrize(("pixels", "bound"), [(31, 32), (MAX_STORED_PX + 1, MAX_STORED_PX)])
def test_pixels_outside_their_bounds_are_told_by_their_option(
    pixels: int, bound: int, tmp_path: Path
) -> None:
    given = ["data", "prepare", "300w-lp", str(tmp_path), "--to", str(tmp_path / "set")]
    done = CliRunner().invoke(app, [*given, "--pixels", str(pixels)])
    assert done.exit_code == 2
    assert "Invalid value for '--pixels': " in done.stderr
    assert f" {bound} " in done.stderr


@pytest.mark.parametrize("content", [None, "not TOML"])
def test_down_ends_servers_whatever_became_of_the_settings(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "etc" / "settings.toml"
    settings.parent.mkdir()
    if content:
        settings.write_text(content)
    state = tmp_path / "state"
    monkeypatch.setenv("HOPETUNE_SETTINGS", str(settings))
    monkeypatch.setenv("HOPETUNE_STATE_DIR", str(state))
    bears = {processes.STARTED_BY: processes.mark(state, "ray")}
    with subprocess.Popen(["sleep", "99"], env=os.environ | bears) as left:
        assert CliRunner().invoke(app, ["down"]).exit_code == 0
        assert left.wait(5) == -signal.SIGKILL
    assert list(settings.parent.iterdir()) == ([settings] if content else [])


def test_a_full_disk_is_told_and_a_defect_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(error: OSError) -> None:
        def app() -> None:
            raise error

        monkeypatch.setattr(main, "app", app)
        main.main()

    with pytest.raises(SystemExit):
        failing(OSError(errno.ENOSPC, "as a write says it: without the file"))
    assert "error: the disk: cannot be used; got 'No space left on device'" in (
        capsys.readouterr().err
    )
    with pytest.raises(FileNotFoundError):
        failing(FileNotFoundError(errno.ENOENT, "a file of the program", "x"))
