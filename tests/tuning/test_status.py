"""How local servers are, as people are told."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.local import servers
from cluster.local.servers import ServerStatus
from tuning.cli.main import app


def test_status_tells_people_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        ServerStatus("s3", "http://h:1", 7, True, ""),
        ServerStatus("ray", "http://h:2", 8, False, "no living\nnode yet"),
    ]
    monkeypatch.setenv("HOPETUNE_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(servers, "status", lambda _: found)
    told = CliRunner().invoke(app, ["status"])
    assert told.exit_code == 1
    assert [line.split() for line in told.stdout.splitlines()[1:]] == [
        ["s3", "up", "http://h:1", "7"],
        ["ray", "down", "http://h:2", "8", "no", "living", "node", "yet"],
    ]
