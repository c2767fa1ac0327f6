"""What a worker has reported survives its death on the node's disk, within bounds."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuning import spool as spool_module
from tuning.manifest import DamagedCheckpointError
from tuning.spool import DiskFullError, Entry, Spool, superseded

CONTENTS = {"weights": b"w" * 1000, "optimiser": b"o" * 2000}
PLENTY = 10**9


def history(*values: float) -> list[dict[str, float]]:
    return [{"val_mae": value} for value in values]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    found = Spool(tmp_path / "spool", PLENTY)
    yield found
    found.close()


def test_a_checkpoint_comes_back_as_it_was_written(spool: Spool) -> None:
    spool.write("trunk/state", history(4.0, 0.1 + 0.2), CONTENTS)
    found = spool.find(["trunk/other", "trunk/state"])
    assert list(found) == ["trunk/state"]
    entry = found["trunk/state"]
    assert entry.history == history(4.0, 0.1 + 0.2)
    assert {part: entry.read(part) for part in CONTENTS} == CONTENTS
    assert spool.used_bytes() >= 3000


def test_a_killed_process_loses_nothing_and_a_living_one_keeps_its_own(
    spool: Spool, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tuning.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), 10**9)\n"
        "for n in (2, 1):\n"
        "    contents = {'weights': b'w' * 1000, 'optimiser': b'o' * 2000}\n"
        "    spool.write(f't/{n}', [{'val_mae': 1.0}] * n, contents)\n"
        "print('written', flush=True)\n"
        "sys.stdin.read()\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "spool")],
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
    assert adopted[1].read("optimiser") == CONTENTS["optimiser"]
    assert spool.adopt() == []


def test_what_a_power_cut_may_have_torn_is_not_trusted(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Spool(tmp_path / "spool", PLENTY)
    entry = dead.write("t/1", history(1.0), CONTENTS)
    dead.close()
    monkeypatch.setattr(spool_module, "_boot", lambda: "the next boot")
    assert spool.find(["t/1"]) == {}
    assert spool.adopt() == []
    assert not entry.path.exists()


@pytest.mark.parametrize("kept_bytes", [0, 10, 500, 2000])
def test_a_truncated_file_is_passed_over(spool: Spool, kept_bytes: int) -> None:
    entry = spool.write("t/1", history(1.0), CONTENTS)
    with entry.path.open("r+b") as file:
        file.truncate(kept_bytes)
    assert spool.find(["t/1"]) == {}
    with pytest.raises(DamagedCheckpointError):
        entry.read("optimiser")


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_with_path_and_bytes(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool", PLENTY)
    small = spool.write("t/1", history(1.0), CONTENTS)
    large = {"weights": b"w" * 900_000, "optimiser": b"o" * 900_000}
    with pytest.raises(DiskFullError) as error:
        spool.write("t/2", history(1.0, 1.0), large)
    assert error.value.path.parent == small.path.parent
    assert error.value.needed_bytes > 1_800_000
    again = pickle.loads(pickle.dumps(error.value))  # noqa: S301 - as Ray does
    assert (str(again), again.path) == (str(error.value), error.value.path)
    assert spool.used_bytes() == small.size, "nothing of it is left"
    assert set(spool.find(["t/1", "t/2"])) == {"t/1"}
    spool.close()
