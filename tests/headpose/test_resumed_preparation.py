"""A preparation that was broken off goes on where it was, and gives the very same set."""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from faces import write_300w_lp, write_sample

from headpose.data import cutting, journal, preparation
from headpose.data.destination import _locked
from headpose.data.manifest import PrepareSettings
from headpose.data.prepared import PreparedSet, prepare
from usererror import UserError

SMALL = PrepareSettings(stored_px=40, max_left_out_fraction=0.5)


class BrokenOffError(BaseException):
    """As a signal: nothing that the code under test catches."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "BLOCK", 2)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "300W LP"
    write_300w_lp(root, faces=4)
    (root / "AFW" / "AFW_1001_1_0.mat").unlink()  # one is left out, in the second block
    return root


def break_off(source: Path, place: Path, after: int, settings: PrepareSettings = SMALL) -> None:
    def progress(done: int, _total: int) -> None:
        if done >= after:
            raise BrokenOffError

    with pytest.raises(BrokenOffError):
        prepare("300w-lp", source, place, settings, progress)


def run_killed(code: str, source: Path, place: Path) -> None:
    """Runs code that kills its own process; its arguments are the two folders."""
    killed = subprocess.run(
        [sys.executable, "-c", code, str(source), str(place)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL


def cut_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures that are decoded from now on."""
    seen: list[str] = []
    whole = cutting._picture

    def noted(source: cutting.Source, name: str) -> object:
        seen.append(name.rsplit("/", 1)[-1])
        return whole(source, name)

    monkeypatch.setattr(cutting, "_picture", noted)
    return seen


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("after", [1, 3, 5, 8])
def test_it_goes_on_and_the_set_is_the_same_to_the_byte(
    source: Path, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare("300w-lp", source, tmp_path / "whole", SMALL)
    break_off(source, tmp_path / "set", after)
    assert not (tmp_path / "set").exists()
    decoded, seen = cut_names(monkeypatch), []
    prepare(
        "300w-lp", source, tmp_path / "set", SMALL, lambda done, total: seen.append((done, total))
    )
    kept = after // 2 * 2 if after < 8 else 6  # whole blocks; the last was not closed yet
    assert len(decoded) == 8 - kept
    assert seen == [(done, 8) for done in range(max(1, kept), 9)]
    assert files(tmp_path / "set") == files(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"300W LP", "whole", "set"}


def test_after_a_real_kill(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from headpose.data import preparation\n"
        "from headpose.data.manifest import PrepareSettings\n"
        "preparation.BLOCK = 2\n"
        "def progress(done, total):\n"
        "    if done == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "preparation.prepare('300w-lp', Path(sys.argv[1]), Path(sys.argv[2]),\n"
        "    PrepareSettings(stored_px=40, max_left_out_fraction=0.5), progress)\n"
    )
    run_killed(code, source, place)
    seen = []
    prepare("300w-lp", source, place, SMALL, lambda done, _total: seen.append(done))
    assert seen[0] == 4
    assert PreparedSet.open(place, verify_images=True).manifest.count == 7


# What a replacement does at last, in its order: the call that is killed, what lies at the place
# then, and whether the pictures of the new set need not be decoded again.
LAST_STEPS = [
    ("pathlib.Path.rename", "old", True),
    ("headpose.data.journal.Journal.remove", None, True),
    ("pathlib.Path.replace", None, False),
    ("headpose.data.preparation.sync_folder", "new", False),
    ("shutil.rmtree", "new", False),
]


@pytest.mark.parametrize(("killed_call", "there", "is_kept"), LAST_STEPS)
def test_a_kill_while_a_set_is_replaced_loses_neither(
    source: Path, tmp_path: Path, killed_call: str, there: str | None, is_kept: bool
) -> None:
    place = tmp_path / "set"
    finer = PrepareSettings(stored_px=48, max_left_out_fraction=0.5)
    of = {
        "old": prepare("300w-lp", source, place, SMALL).fingerprint,
        "new": prepare("300w-lp", source, tmp_path / "new", finer).fingerprint,
    }
    shutil.rmtree(tmp_path / "new")
    code = (
        "import os, pathlib, shutil, signal, sys\n"
        "import headpose.data.preparation\n"
        "from headpose.data.manifest import PrepareSettings\n"
        "def killed(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{killed_call} = killed\n"
        "headpose.data.preparation.prepare('300w-lp', pathlib.Path(sys.argv[1]),\n"
        "    pathlib.Path(sys.argv[2]), PrepareSettings(stored_px=48, max_left_out_fraction=0.5),\n"
        "    replace=True)\n"
    )
    run_killed(code, source, place)
    assert place.exists() == (there is not None)
    # Whoever calls next finds a set there: the new one, or else the old one again.
    with pytest.raises(UserError, match="is taken by another prepared set"):
        prepare("300w-lp", source, place, finer)
    found = PreparedSet.open(place, verify_images=True).fingerprint
    assert found == of[there or "old"]
    assert not (tmp_path / ".set.replaced").exists()
    seen = []
    prepare("300w-lp", source, place, finer, lambda done, _total: seen.append(done), replace=True)
    assert (seen == [8]) == is_kept
    assert PreparedSet.open(place, verify_images=True).fingerprint == of["new"]
    assert {path.name for path in tmp_path.iterdir()} == {"300W LP", "set"}


def test_a_source_that_changed_is_read_again_from_there(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(source, tmp_path / "set", after=7)
    write_sample(source, "AFW/AFW_1001_1_1", angles_deg=(42.0, 0.0, 0.0), seed=5)  # second block
    decoded = cut_names(monkeypatch)
    prepare("300w-lp", source, tmp_path / "set", SMALL)
    assert len(decoded) == 6
    assert "AFW_1000_1_1" not in decoded
    opened = PreparedSet.open(tmp_path / "set")
    assert opened.angles_deg[2].tolist() == pytest.approx([42.0, 0.0, 0.0], abs=1e-4)


def test_other_settings_begin_anew(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(source, tmp_path / "set", after=7)
    decoded = cut_names(monkeypatch)
    finer = PrepareSettings(stored_px=48, max_left_out_fraction=0.5)
    manifest = prepare("300w-lp", source, tmp_path / "set", finer)
    assert len(decoded) == 8
    assert manifest.settings.stored_px == 48
    PreparedSet.open(tmp_path / "set", verify_images=True)


@pytest.mark.parametrize("damage", ["half a line", "no images", "other text"])
def test_a_spoilt_journal_costs_work_but_no_correctness(
    source: Path, tmp_path: Path, damage: str
) -> None:
    prepare("300w-lp", source, tmp_path / "whole", SMALL)
    break_off(source, tmp_path / "set", after=7)
    partial = tmp_path / ".set.partial"
    lines = (partial / journal.JOURNAL_FILE).read_text().splitlines(keepends=True)
    assert len(lines) == 4
    if damage == "half a line":
        (partial / journal.JOURNAL_FILE).write_text("".join(lines)[:-20])
    elif damage == "no images":
        (partial / "images.npy").unlink()
    else:
        lines[2] = json.dumps({"names": 2}) + "\n"
        (partial / journal.JOURNAL_FILE).write_text("".join(lines))
    prepare("300w-lp", source, tmp_path / "set", SMALL)
    assert files(tmp_path / "set") == files(tmp_path / "whole")


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("found", ["at once", "on the way"])
def test_a_disk_without_room_costs_nothing_of_what_an_earlier_call_has_done(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    break_off(source, tmp_path / "set", after=5)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as disk:
        if found == "at once":
            disk.setattr(shutil, "disk_usage", lambda _: usage(100, 90, 10))
        else:
            disk.setattr(preparation, "sync", full)
        with pytest.raises(UserError, match=r"no room on the disk.* kept in .*\.set\.partial;"):
            prepare("300w-lp", source, tmp_path / "set", SMALL)
    decoded = cut_names(monkeypatch)
    assert prepare("300w-lp", source, tmp_path / "set", SMALL).count == 7
    assert len(decoded) == 4


@pytest.mark.parametrize("suffix", [".jpg", ".mat"])
def test_a_disk_that_fails_for_a_while_costs_no_picture(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    prepare("300w-lp", source, tmp_path / "whole", SMALL)
    file = source / "AFW" / f"AFW_1002_1_1{suffix}"
    content = file.read_bytes()
    file.unlink()
    file.symlink_to("/proc/self/mem")  # nothing lies at address 0: an I/O error
    with pytest.raises(UserError, match=rf"_1\{suffix}: cannot be read now; got 'Input/output"):
        prepare("300w-lp", source, tmp_path / "set", SMALL)
    file.unlink()
    file.write_bytes(content)
    decoded = cut_names(monkeypatch)
    prepare("300w-lp", source, tmp_path / "set", SMALL)
    assert len(decoded) == 4  # from the block of the file
    assert files(tmp_path / "set") == files(tmp_path / "whole")


def test_data_that_are_refused_leave_nothing_behind(source: Path, tmp_path: Path) -> None:
    strict = PrepareSettings(stored_px=40)
    break_off(source, tmp_path / "set", 5, strict)
    with pytest.raises(UserError, match="1 of 8 samples are damaged"):
        prepare("300w-lp", source, tmp_path / "set", strict)
    assert {path.name for path in tmp_path.iterdir()} == {"300W LP"}


def test_two_at_a_time_do_not_meet(source: Path, tmp_path: Path) -> None:
    def meanwhile(done: int, _total: int) -> None:
        if done == 3:
            with pytest.raises(UserError, match="another preparation is at work"):
                prepare("300w-lp", source, tmp_path / "set", SMALL)

    assert prepare("300w-lp", source, tmp_path / "set", SMALL, meanwhile).count == 7


def test_the_lock_is_of_a_file_that_is_written_which_network_disks_carry(
    source: Path, tmp_path: Path
) -> None:
    with (tmp_path / ".set.lock").open("ab") as on_another_machine:
        fcntl.flock(on_another_machine, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"\.set\.partial: another preparation is at work"):
            prepare("300w-lp", source, tmp_path / "set", SMALL)
    assert prepare("300w-lp", source, tmp_path / "set", SMALL).count == 7


@pytest.mark.parametrize("ends_by", ["rename", "unlink"])
def test_a_lock_whose_holder_ends_just_then_is_not_taken_for_that_of_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_by: str
) -> None:
    path, flock = tmp_path / "partial" / "lock", fcntl.flock

    def ends_first(file: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        path.parent.rename(tmp_path / "set") if ends_by == "rename" else path.unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", ends_first)
    with _locked(path, "place") as held:
        assert os.path.samestat(path.stat(), os.fstat(held.fileno()))


def test_a_windows_share_tells_of_a_lock_in_its_own_way(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(fcntl, "flock", held)
    with pytest.raises(UserError, match="another preparation is at work here; wait"):
        prepare("300w-lp", source, tmp_path / "set", SMALL)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_that_knows_no_locks_is_prepared_on_all_the_same(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def none(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    assert prepare("300w-lp", source, tmp_path / "set", SMALL).count == 7


@pytest.mark.parametrize("at", [3, 8])
@pytest.mark.parametrize("by", [40 * 40 * 3, -10])
def test_images_that_somebody_else_writes_to_become_no_set(
    source: Path, tmp_path: Path, at: int, by: int
) -> None:
    def meanwhile(done: int, _total: int) -> None:
        if done == at:
            images = tmp_path / ".set.partial" / "images.npy"
            os.truncate(images, images.stat().st_size + by)

    prepare("300w-lp", source, tmp_path / "whole", SMALL)
    with pytest.raises(UserError, match=r"images\.npy: somebody else writes here; got '.* bytes'"):
        prepare("300w-lp", source, tmp_path / "set", SMALL, meanwhile)
    assert not (tmp_path / "set").exists()
    prepare("300w-lp", source, tmp_path / "set", SMALL)
    assert files(tmp_path / "set") == files(tmp_path / "whole")
