"""Ports reserved from their choice to the moment when they are listened on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.local import ports
from cluster.local.reservations import reservations
from usererror import UserError

_HOLD = """
import sys
from pathlib import Path
from cluster.local.reservations import reservations
with reservations(Path(sys.argv[1])) as reserve:
    print(reserve(5000), flush=True)
    sys.stdin.read()
"""


def test_two_at_a_time_choose_different_ports(tmp_path: Path) -> None:
    with reservations(tmp_path) as one, reservations(tmp_path) as other:
        first = ports.choose({}, (), one)
        second = ports.choose({}, (), other)
    assert first == ports.PREFERRED
    used = [
        {port for roles in chosen.values() for port in roles.values()} for chosen in (first, second)
    ]
    assert not used[0] & used[1]


def test_what_does_not_suit_is_left_to_others(tmp_path: Path) -> None:
    with reservations(tmp_path) as one, reservations(tmp_path) as other:
        assert not one(5000, lambda _port: False)
        assert other(5000, lambda port: port == 5000)
        assert not one(5000, lambda _port: True)
        assert not other(5000, lambda _port: False)
        assert not one(5000)


def test_free_again_afterwards(tmp_path: Path) -> None:
    with reservations(tmp_path) as reserve:
        assert reserve(5000)
        assert reserve(5000)
    with reservations(tmp_path) as reserve:
        assert reserve(5000)


def test_a_killed_holder_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        with reservations(tmp_path) as reserve:
            assert not reserve(5000)
            holder.kill()
            holder.wait()
            assert reserve(5000)


def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(UserError, match="a link"), reservations(link):
        pass
    if os.getuid() == 0:
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        os.chown(theirs, 12345, -1)
        with pytest.raises(UserError, match="of user 12345"), reservations(theirs):
            pass


def test_a_file_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    (tmp_path / "5000").symlink_to("/dev/null")
    with reservations(tmp_path) as reserve, pytest.raises(UserError, match="5000: cannot hold"):
        reserve(5000)
