"""Atomic writes: the old file or the new one, and nothing else."""

import os
import stat
from pathlib import Path

import pytest

from headpose.files import write_atomically


def test_it_replaces_the_content_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "a file.bin"
    write_atomically(target, b"old")
    write_atomically(target, b"new")
    assert target.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a file.bin"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "weights"
    write_atomically(target, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_others_may_read_it_as_the_umask_says(tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        write_atomically(tmp_path / "weights", b"")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "weights").stat().st_mode) == 0o644


def test_a_draft_left_by_a_kill_does_not_block(tmp_path: Path) -> None:
    (tmp_path / ".weights.dead.tmp").write_bytes(b"half")
    write_atomically(tmp_path / "weights", b"whole")
    assert (tmp_path / "weights").read_bytes() == b"whole"
