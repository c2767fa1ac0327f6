"""Where things lie, where nodes share a state folder."""

import socket
from pathlib import Path

import pytest
from whole import Whole

from cluster.settings import Settings
from tuning import spool as spool_module
from tuning.manifest import Part
from tuning.places import spool
from tuning.spool import Entry, Spool


def put_checkpoint(there: Spool) -> Entry:
    """Leaves a checkpoint of ``trunk/1`` in a spool."""
    contents: dict[Part, Whole] = {"weights": Whole(b"w"), "optimiser": Whole(b"o")}
    return there.finish(there.draft(contents), "trunk/1", [{"val_mae": 4.0}])


def test_a_node_leaves_alone_what_waits_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path)
    monkeypatch.setattr(socket, "gethostname", lambda: "one")
    dead = Spool(spool(settings), 10**9)
    entry = put_checkpoint(dead)
    dead.close()

    monkeypatch.setattr(socket, "gethostname", lambda: "other")
    with monkeypatch.context() as there:
        there.setattr(spool_module, "_boot", lambda: "the other's boot")
        other = Spool(spool(settings), 10**9)
        assert other.adopt() == []
        other.close()
    assert entry.path.exists()

    monkeypatch.setattr(socket, "gethostname", lambda: "one")
    again = Spool(spool(settings), 10**9)
    assert [found.key for found in again.adopt()] == ["trunk/1"]
    again.close()


def test_a_container_finds_what_the_one_before_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path)
    monkeypatch.setattr(socket, "gethostname", lambda: "container-1")
    before = Spool(spool(settings), 10**9)
    left = put_checkpoint(before)

    monkeypatch.setattr(socket, "gethostname", lambda: "container-2")
    after = Spool(spool(settings), 10**9)
    assert after.adopt() == [], "the other one lives"
    before.close()
    (entry,) = after.adopt()
    assert (entry.key, entry.read("weights")) == ("trunk/1", b"w")
    assert not left.path.parent.exists()
    after.close()
