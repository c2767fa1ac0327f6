"""Choosing ports: preferred, remembered, or the next that is free."""

import socket
from pathlib import Path

import pytest

from cluster.local import ports
from usererror import UserError


def everything_free(_port: int) -> bool:
    return True


def test_preferred_ports_when_all_are_free() -> None:
    assert ports.choose({}, (), everything_free) == ports.PREFERRED


def test_next_one_when_taken() -> None:
    chosen = ports.choose({}, (), lambda port: port not in (5000, 5001, 8265))
    assert chosen["mlflow"]["http"] == 5002
    assert chosen["ray"]["dashboard"] == 8266


def test_seaweed_needs_the_grpc_port_as_well() -> None:
    chosen = ports.choose({}, (), lambda port: port != 8333 + ports.GRPC_OFFSET)
    assert chosen["s3"]["s3"] == 8334


def test_no_two_servers_get_one_port() -> None:
    # The wishes 9333 and 9340 run up into each other.
    chosen = ports.choose({}, (), lambda port: not 9333 <= port < 9345)
    assert (chosen["s3"]["master"], chosen["s3"]["volume"]) == (9345, 9346)
    used = [port for roles in chosen.values() for port in roles.values()]
    assert len(used) == len(set(used))


def test_remembered_ports_come_first_and_live_servers_keep_theirs() -> None:
    remembered = {name: dict(roles) for name, roles in ports.PREFERRED.items()}
    remembered["mlflow"]["http"] = 5050
    remembered["ray"]["gcs"] = 6400
    taken = {6400, *remembered["postgresql"].values()}
    chosen = ports.choose(remembered, ["postgresql"], lambda port: port not in taken)
    assert chosen["postgresql"] == remembered["postgresql"]
    assert chosen["mlflow"]["http"] == 5050
    assert chosen["ray"]["gcs"] == 6379


def test_nothing_free() -> None:
    with pytest.raises(UserError, match="no free port for sql"):
        ports.choose({}, (), lambda _port: False)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104
def test_taken_port_is_seen(host: str) -> None:
    with socket.socket() as other:
        other.bind((host, 0))
        other.listen()
        assert not ports.is_free(other.getsockname()[1])
    assert ports.is_free(other_port := _unused()), other_port


def _unused() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mlflow": {"http": 5000}}', '{"mlflow": 3}'])
def test_damaged_memory_is_forgotten(tmp_path: Path, text: str) -> None:
    file = tmp_path / "ports.json"
    file.write_text(text)
    assert ports.load(file) == {}


def test_memory_round_trip(tmp_path: Path) -> None:
    ports.save(tmp_path / "ports.json", ports.PREFERRED)
    assert ports.load(tmp_path / "ports.json") == ports.PREFERRED
