"""What a SeaweedFS leaves in the temporary folder, and who can use its ports then."""

import os
import socket
from pathlib import Path

import pytest

from cluster.local import seaweed, servers
from cluster.local.credentials import load_or_create
from cluster.local.ports import GRPC_OFFSET, LOOPBACK
from cluster.local.reservations import reservations
from cluster.local.server import UnhealthyError
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


def test_its_health_is_asked_for_with_its_own_keys_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "that of other servers")
    with socket.socket() as nobody:
        nobody.bind((LOOPBACK, 0))
        ports = dict.fromkeys(("s3", "master"), nobody.getsockname()[1])
        with pytest.raises(UnhealthyError, match="Could not connect"):
            seaweed._check(ports, load_or_create(tmp_path), "bucket")
