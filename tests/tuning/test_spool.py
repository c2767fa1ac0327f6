"""What a worker has reported survives its death on the node's disk, within bounds."""

import errno
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from whole import Whole

from tuning import spool as spool_module
from tuning.manifest import DamagedCheckpointError, Part
from tuning.spool import DiskFullError, Entry, Spool, superseded
from usererror import NotHereError

CONTENTS: dict[Part, Whole] = {"weights": Whole(b"w" * 1000), "optimiser": Whole(b"o" * 2000)}
PLENTY = 10**9


def history(*values: float) -> list[dict[str, float]]:
    return [{"val_mae": value} for value in values]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    found = Spool(tmp_path / "spool", PLENTY)
    yield found
    found.close()


def test_a_checkpoint_comes_back_as_it_was_written(spool: Spool) -> None:
    spool.finish(spool.draft(CONTENTS), "trunk/state", history(4.0, 0.1 + 0.2))
    found = spool.find(["trunk/other", "trunk/state"])
    assert list(found) == ["trunk/state"]
    entry = found["trunk/state"]
    assert entry.history == history(4.0, 0.1 + 0.2)
    assert {part: Whole(entry.read(part)) for part in CONTENTS} == CONTENTS
    assert spool.used_bytes() >= 3000


def test_a_killed_process_loses_nothing_and_a_living_one_keeps_its_own(
    spool: Spool, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_spool import CONTENTS\n"
        "from tuning.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), 10**9)\n"
        "for n in (2, 1):\n"
        "    spool.finish(spool.draft(CONTENTS), f't/{n}', [{'val_mae': 1.0}] * n)\n"
        "print('written', flush=True)\n"
        "sys.stdin.read()\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "spool"), str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        assert spool.adopt() == [], "its writer lives"
        assert set(spool.find(["t/1", "t/2"])) == {"t/1", "t/2"}, "but everybody may read it"
        os.kill(writer.pid, signal.SIGSTOP)
        assert spool.adopt() == [], "frozen is not dead"
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait(10)
    adopted = spool.adopt()
    assert [entry.key for entry in adopted] == ["t/1", "t/2"], "the oldest first"
    assert adopted[1].read("optimiser") == CONTENTS["optimiser"].content
    assert spool.adopt() == []


def test_what_cannot_be_moved_keeps_nothing_else_back(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = sorted((Spool(tmp_path / "spool", PLENTY) for _ in range(3)), key=lambda s: s._mine)
    for number, one in enumerate(dead):
        for epoch in (1, 2):
            one.finish(one.draft(CONTENTS), f"{number}/{epoch}", history(*[1.0] * epoch))
        one.close()
    opened, moved = os.open, Path.replace
    left: list[str] = []

    def open_own(path: Path, *arguments: Any, **more: Any) -> int:
        if path == dead[1]._mine / "lock":
            raise PermissionError(errno.EACCES, "another user's")
        return opened(path, *arguments, **more)

    def move_some(path: Path, target: Path) -> Path:
        if path.parent == dead[2]._mine and not left:
            left.append(path.name.replace("-", "/"))
            raise PermissionError(errno.EPERM, "another user's")
        return moved(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_own)
        patch.setattr(Path, "replace", move_some)
        adopted = {entry.key for entry in spool.adopt()}
    assert adopted == {"0/1", "0/2", "2/1", "2/2"} - {*left}
    assert {entry.key for entry in spool.adopt()} == {"1/1", "1/2", *left}, "nothing is lost"


def test_what_a_power_cut_may_have_torn_is_not_trusted(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Spool(tmp_path / "spool", PLENTY)
    entry = dead.finish(dead.draft(CONTENTS), "t/1", history(1.0))
    dead.close()
    monkeypatch.setattr(spool_module, "_boot", lambda: "the next boot")
    assert spool.find(["t/1"]) == {}
    assert spool.adopt() == []
    assert not entry.path.exists()


@pytest.mark.parametrize("kept_bytes", [0, 10, 500, 2000])
def test_a_truncated_file_is_passed_over(spool: Spool, kept_bytes: int) -> None:
    entry = spool.finish(spool.draft(CONTENTS), "t/1", history(1.0))
    with entry.path.open("r+b") as file:
        file.truncate(kept_bytes)
    assert spool.find(["t/1"]) == {}
    with pytest.raises(DamagedCheckpointError):
        entry.read("optimiser")


def test_nobody_finds_a_draft_and_it_goes_with_its_process(spool: Spool, tmp_path: Path) -> None:
    dying = Spool(tmp_path / "spool", PLENTY)
    draft = dying.draft(CONTENTS)
    assert draft.path.stat().st_size == 3000
    assert spool.find(["t/1"]) == {}
    assert spool.used_bytes() == 0
    dying.close()
    assert spool.adopt() == []
    assert not draft.path.exists()


def test_a_discarded_draft_leaves_nothing(spool: Spool, tmp_path: Path) -> None:
    spool.draft(CONTENTS).discard()
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"lock"}


def entry_of(key: str, *values: float) -> Entry:
    return Entry(Path(key), key, history(*values), {"weights": 1, "optimiser": 1}, 1)


def test_superseded_is_what_a_later_epoch_follows_and_was_not_the_best() -> None:
    one, two, three = (
        entry_of("a/1", 5.0),
        entry_of("a/2", 5.0, 3.0),
        entry_of("a/3", 5.0, 3.0, 4.0),
    )
    other = entry_of("b/1", 6.0)
    assert superseded([one, two, three, other]) == [one]
    assert superseded([one, other]) == []
    assert superseded([two, entry_of("c/3", 5.0, 3.1, 2.0)]) == [], "another training"
    assert superseded([]) == []


def test_a_node_whose_folder_cannot_be_written_to_is_unfit(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    spool = Spool(tmp_path / "file" / "spool", PLENTY)
    assert (spool.find(["t/1"]), spool.used_bytes()) == ({}, 0)
    with pytest.raises(NotHereError, match=r"cannot be written; got 'Not a directory'.*STATE_DIR"):
        spool.draft(CONTENTS)
    spool.close()


def test_a_full_disk_is_said_with_path_and_bytes(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool", PLENTY)
    small = spool.finish(spool.draft(CONTENTS), "t/1", history(1.0))
    large: dict[Part, Whole] = {part: Whole(b"l" * 900_000) for part in CONTENTS}
    with pytest.raises(DiskFullError) as error:
        spool.finish(spool.draft(large), "t/2", history(1.0, 1.0))
    assert error.value.path.parent == small.path.parent
    assert error.value.needed_bytes == 1_800_000
    again = pickle.loads(pickle.dumps(error.value))  # noqa: S301 - as Ray does
    assert (str(again), again.path) == (str(error.value), error.value.path)
    assert spool.used_bytes() == small.size, "nothing of it is left"
    assert set(spool.find(["t/1", "t/2"])) == {"t/1"}
    spool.close()
