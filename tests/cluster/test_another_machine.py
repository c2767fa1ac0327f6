"""Machines that share a state directory: the servers of one are not taken for dead by another."""

import dataclasses
import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from cluster.local import servers
from cluster.local.identity import start_mark
from cluster.local.processes import Record, read_record
from cluster.local.state import StateDir
from usererror import UserError

DEAD_HERE = Record(
    pid=1, start_mark="another boot:1", fingerprint="", started_at_s=0.0, host="elsewhere"
)


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    directory = StateDir(tmp_path / "a state")
    directory.create()
    return directory


def write(state: StateDir, record: Record) -> Path:
    file = state.record("postgresql")
    file.write_text(json.dumps(dataclasses.asdict(record)))
    return file


def test_servers_of_another_machine_are_neither_started_twice_nor_ended(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(state, DEAD_HERE)
    monkeypatch.setattr(servers, "_start_where_there_is_room", lambda *_: pytest.fail("started"))
    for ask in (servers.up, servers.down):
        with pytest.raises(UserError, match="its servers run on elsewhere") as refused:
            ask(state.root)
        assert str(refused.value).endswith(f"is gone, delete {file.parent}")
    assert read_record(file) == DEAD_HERE
    # What the error says to do, say for a container that has another name at each start.
    shutil.rmtree(file.parent)
    servers.down(state.root)


class StartsError(Exception):
    """``up`` has come to where it starts what does not run."""


def starts(*_: object) -> None:
    raise StartsError


def test_those_of_this_machine_are_found_dead(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(state, dataclasses.replace(DEAD_HERE, host=socket.gethostname()))
    monkeypatch.setattr(servers, "_start_where_there_is_room", starts)
    with pytest.raises(StartsError):
        servers.up(state.root)


def test_a_machine_that_was_renamed_knows_its_own(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_start_where_there_is_room", starts)
    with subprocess.Popen(["sleep", "99"]) as server:
        mark = start_mark(server.pid)
        assert mark is not None
        write(state, dataclasses.replace(DEAD_HERE, pid=server.pid, start_mark=mark))
        with pytest.raises(StartsError):
            servers.up(state.root)
        server.kill()
