"""What the Ray head asks of this machine before it is started."""

import sys
from pathlib import Path

import pytest

from cluster.local import ray_head, servers
from usererror import UserError


@pytest.mark.parametrize("folder", ["/a folder", "/a&b", "/a$b", "/a(1)", "/it's"])
def test_a_python_that_ray_would_misread_is_refused_before_anything_is_made(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", f"{folder}/bin/python")
    monkeypatch.setattr(servers, "_start_where_there_is_room", lambda *_: pytest.fail("started"))
    with pytest.raises(UserError, match=r"start workers.*VENV=/path/without/spaces") as refused:
        servers.up(tmp_path / "state")
    assert refused.value.where == f"{folder}/bin/python"
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("folder", ["/opt/python-3.11_1", "/home/jürgen/.venv"])
def test_others_are_not(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", f"{folder}/bin/python")
    ray_head.check_python()
