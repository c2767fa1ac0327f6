"""The Python by which Ray has a shell start its workers."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.local import ray_head
from cluster.local.state import StateDir


@pytest.mark.parametrize("folder", ["a folder", "a&b", "a$b", "a(1)", "it's"])
def test_where_a_shell_would_misread_its_path_it_has_another(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = tmp_path / folder
    environment.symlink_to(sys.prefix)
    state = StateDir(tmp_path / "a state")
    state.create()
    short = state.short_folder()
    monkeypatch.setattr(sys, "executable", str(environment / "bin" / Path(sys.executable).name))
    for _ in range(2):  # each start of the head
        ray_head._prepare(state)
    path = str(ray_head.python(short))
    assert shlex.quote(path) == path
    asked = "import ray, sys; print(sys.executable)"
    found = subprocess.run([path, "-c", asked], capture_output=True, text=True, check=True)
    state.remove_short_folder()
    assert found.stdout.strip() == path, "and Ray will start workers by it"


@pytest.mark.parametrize("folder", ["/opt/python-3.11_1", "/home/jürgen/.venv"])
def test_others_are_used_as_they_are(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", f"{folder}/bin/python")
    assert ray_head.python(Path("/short")) == Path(f"{folder}/bin/python")
