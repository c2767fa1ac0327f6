"""What a SeaweedFS leaves in the temporary folder, and who can use its ports then."""

import os
from pathlib import Path

import pytest

from cluster.local import seaweed, servers
from cluster.local.ports import GRPC_OFFSET
from cluster.local.reservations import reservations
from cluster.local.state import StateDir


def test_ports_of_which_another_user_left_a_socket_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, sockets, own = StateDir(tmp_path / "state"), tmp_path / "sockets", os.getuid()
    state.create()
    sockets.mkdir()
    monkeypatch.setattr(seaweed, "_SOCKETS", sockets)
    with reservations(tmp_path / "reserved") as reserve:
        first = servers._choose_ports(state, [], reserve)
        grpc = first["s3"]["master"] + GRPC_OFFSET
        (sockets / f"seaweedfs-master-grpc-{grpc}.sock").touch()
        assert servers._choose_ports(state, [], reserve) == first, "one's own is no hindrance"
        monkeypatch.setattr(os, "getuid", lambda: own + 1)
        then = servers._choose_ports(state, [], reserve)
    assert [role for role, port in then["s3"].items() if port != first["s3"][role]] == ["master"]
