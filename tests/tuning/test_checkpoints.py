"""Checkpoints in a store that fails in all the ways that stores do."""

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch
from memory_objects import MemoryObjects
from whole import Whole

from headpose.tensor_file import TensorFile
from tuning.checkpoints import CheckpointStore
from tuning.manifest import PARTS, Part, manifest_of, read_manifest
from tuning.objects import AbsentObjectError, Place
from tuning.spec import Resources
from tuning.spool import Content, DiskFullError, Draft, Entry, Spool, SpoolFullError
from tuning.uploads import ROOM_PATIENCE_S, Uploads, store

ROOT = Place("bucket", "checkpoints")
KEYS = [f"trunk/{epoch}" for epoch in range(1, 5)]

StoreOf = Callable[..., CheckpointStore]


def history(epochs: int) -> list[dict[str, float]]:
    return [{"val_mae": 10.0 - epoch, "epoch_seconds": 0.0} for epoch in range(epochs)]


Files = tuple[TensorFile, TensorFile]


def files(value: float) -> Files:
    strided = torch.full((2, 3, 4, 4), value).to(memory_format=torch.channels_last)
    optimiser = {"step/a": torch.tensor(value), "exp_avg/a": strided}
    return TensorFile({"weights": torch.tensor(value)}), TensorFile(optimiser)


def contents(value: float) -> dict[Part, bytes]:
    return {part: b"".join(file) for part, file in zip(PARTS, files(value), strict=True)}


def written(spool: Spool, epochs: int, made: Files) -> Entry:
    draft = spool.draft(dict(zip(PARTS, made, strict=True)))
    return spool.finish(draft, KEYS[epochs - 1], history(epochs))


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def store_of(objects: MemoryObjects, tmp_path: Path, notes: list[str]) -> Iterator[StoreOf]:
    opened = []

    def make(node: str = "node", limit_bytes: int = 10**9) -> CheckpointStore:
        spool = Spool(tmp_path / node, limit_bytes)
        opened.append(CheckpointStore(objects, ROOT, spool, notes.append))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    objects.gate.set()
    for one in opened:
        one.close()


def save(found: CheckpointStore, key: str, history: list[dict[str, float]], made: Files) -> None:
    saving = found.saving(lambda: made)
    with saving:
        pass
    saving.finish(key, history)


def fill(found: CheckpointStore, epochs: int) -> None:
    for epoch in range(1, epochs + 1):
        save(found, KEYS[epoch - 1], history(epoch), files(epoch))
    assert found.flush(60)


def wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def stored(objects: MemoryObjects, key: str) -> list[str]:
    return [k for k in objects.contents if k.startswith(f"checkpoints/{key}/")]


class Slow:
    """Files that are there when they may be."""

    def __init__(self) -> None:
        self.is_asked, self.goes_on = threading.Event(), threading.Event()

    def __call__(self) -> Files:
        self.is_asked.set()
        assert self.goes_on.wait(20)
        return files(1.0)


def drafts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.draft") if path.is_file()]


def test_a_checkpoint_is_written_meanwhile_and_there_when_it_is_finished(
    store_of: StoreOf, objects: MemoryObjects, tmp_path: Path
) -> None:
    objects.gate.clear()
    found, slow = store_of(), Slow()
    saving = found.saving(slow)
    with saving:
        assert slow.is_asked.wait(20), "in another thread"
        assert found.beginning(KEYS).history == []
        slow.goes_on.set()
    saving.finish(KEYS[0], history(1))
    assert found.beginning(KEYS).history == history(1)
    assert drafts(tmp_path) == []


@pytest.mark.parametrize("is_written", [True, False])
@pytest.mark.parametrize("how", ["not wanted", "interrupted"])
def test_what_is_dropped_leaves_nothing_and_is_not_waited_for(
    store_of: StoreOf, tmp_path: Path, how: str, *, is_written: bool
) -> None:
    found, slow = store_of(), Slow()
    saving = found.saving(slow)
    with contextlib.suppress(KeyboardInterrupt), saving:
        assert slow.is_asked.wait(20)
        if is_written:
            slow.goes_on.set()
            saving._draft.result(20)
            assert len(drafts(tmp_path)) == 1
        if how == "interrupted":
            raise KeyboardInterrupt
    if how == "not wanted":
        saving.discard()
    slow.goes_on.set()
    saving._draft.result(20)
    for _ in range(100):
        if not drafts(tmp_path):
            break
        threading.Event().wait(0.1)
    assert drafts(tmp_path) == []
    assert found.beginning(KEYS).history == []


def test_what_waits_for_room_keeps_no_training_alive(store_of: StoreOf, tmp_path: Path) -> None:
    class OfTraining:
        def files(self) -> Files:
            return files(1.0)

    found, training = store_of(), OfTraining()
    gone, goes_on = weakref.ref(training), threading.Event()
    whole = found._uploads.draft

    def draft(contents: Mapping[Part, Content]) -> Draft:
        assert goes_on.wait(20)
        return whole(contents)

    found._uploads.draft = draft  # type: ignore[method-assign]
    saving = found.saving(training.files)
    del training
    with saving:
        saving.discard()
    for _ in range(100):
        if gone() is None:
            break
        threading.Event().wait(0.1)
    assert gone() is None
    goes_on.set()
    saving._draft.result(20)


def test_what_goes_wrong_meanwhile_is_heard_at_the_end(store_of: StoreOf) -> None:
    def broken() -> Files:
        raise torch.OutOfMemoryError

    saving = store_of().saving(broken)
    with saving:
        pass
    with pytest.raises(torch.OutOfMemoryError):
        saving.finish(KEYS[0], history(1))


def test_another_node_finds_metrics_and_state_by_few_requests(
    store_of: StoreOf, objects: MemoryObjects, tmp_path: Path
) -> None:
    fill(store_of(), 3)
    assert not [f for f in (tmp_path / "node").rglob("*") if f.is_file() and f.name != "lock"]
    other = store_of("other node")
    objects.requests.clear()
    found = other.beginning(KEYS)
    assert objects.requests == ["list", "get"]
    assert found.history == history(3)
    loaded = found.load()
    assert loaded is not None
    assert loaded[0] == 3
    assert loaded[1].weights_file == contents(3)["weights"]
    for name, value in safetensors.torch.load(contents(3)["optimiser"]).items():
        assert torch.equal(loaded[1].optimiser[name], value)
    assert objects.requests == ["list", "get", "get", "get"]


def test_nothing_stored_is_one_request(store_of: StoreOf, objects: MemoryObjects) -> None:
    found = store_of().beginning(KEYS)
    assert (found.history, found.load(), objects.requests) == ([], None, ["list"])


@pytest.mark.parametrize("what", ["weights", "optimiser"])
@pytest.mark.parametrize("how", ["truncated", "changed"])
def test_a_damaged_checkpoint_is_set_aside_and_the_next_shorter_one_used(
    store_of: StoreOf, objects: MemoryObjects, notes: list[str], what: str, how: str
) -> None:
    fill(store_of(), 3)
    name = next(k for k in stored(objects, KEYS[2]) if what in k)
    good = objects.contents[name]
    objects.contents[name] = good[:-1] if how == "truncated" else b"x" + good[1:]
    found = store_of("other node").beginning(KEYS)
    assert found.history == history(3), "the manifest is whole: the metrics are known"
    loaded = found.load()
    assert loaded is not None
    assert loaded[0] == 2
    assert len([note for note in notes if "damaged and set aside" in note]) == 1
    assert stored(objects, KEYS[2]) == []
    assert len([k for k in objects.contents if k.startswith("damaged/checkpoints/trunk/3/")]) == 3
    assert found.lacks(3)
    again = store_of("third node")
    save(again, KEYS[2], history(3), files(3))
    assert again.flush(60)
    assert store_of("fourth node").beginning(KEYS).load()[0] == 3  # type: ignore[index]


@pytest.mark.parametrize("content", [b"", b'{"key": "trunk/3"', b'{"key": "trunk/9"}', b"[]"])
def test_a_damaged_manifest_is_set_aside(
    store_of: StoreOf, objects: MemoryObjects, notes: list[str], content: bytes
) -> None:
    fill(store_of(), 3)
    objects.contents["checkpoints/trunk/3/manifest.json"] = content
    found = store_of("other node").beginning(KEYS)
    assert found.history == history(2)
    assert len(notes) == 1


def test_a_writer_finds_a_damaged_manifest_in_its_way(
    store_of: StoreOf, objects: MemoryObjects, notes: list[str]
) -> None:
    objects.contents["checkpoints/trunk/1/manifest.json"] = b"{"
    fill(store_of(), 1)
    assert read_manifest(objects, ROOT, KEYS[0])  # type: ignore[arg-type]
    assert "damaged" in notes[0]


def test_states_that_were_collected_leave_their_metrics(
    store_of: StoreOf, objects: MemoryObjects
) -> None:
    fill(store_of(), 3)
    for key in KEYS[1:]:
        for name in stored(objects, key):
            if not name.endswith("manifest.json"):
                del objects.contents[name]
    found = store_of("other node").beginning(KEYS)
    assert found.history == history(3)
    objects.requests.clear()
    loaded = found.load()
    assert loaded is not None
    assert loaded[0] == 1
    assert objects.requests == ["get"] * 3, "no manifest is read of what the listing lacks"


@pytest.mark.parametrize("how", ["damaged", "absent", "of other weights", "whole"])
def test_weights_are_there_only_as_their_manifest_names_them(
    store_of: StoreOf, objects: MemoryObjects, notes: list[str], how: str
) -> None:
    """Those of the best epoch, whose manifest nobody else reads before the driver does."""
    fill(store_of(), 3)
    manifest = "checkpoints/trunk/2/manifest.json"
    if how == "damaged":
        objects.contents[manifest] = objects.contents[manifest][:40]
    elif how == "absent":
        del objects.contents[manifest]
    elif how == "of other weights":
        other = manifest_of(KEYS[1], history(2), contents(9.0))
        objects.contents[manifest] = other.to_bytes()
    found = store_of("other node").beginning(KEYS)
    objects.requests.clear()
    assert (found.has_weights(2), found.lacks(2)) == (
        (True, False) if how == "whole" else (False, True)
    )
    if how == "whole":
        assert objects.requests == ["get"]
    elif how == "damaged":
        assert "damaged and set aside" in notes[0]


def test_of_two_writers_the_first_complete_one_wins_whole(
    objects: MemoryObjects, tmp_path: Path, notes: list[str]
) -> None:
    """The stale one has uploaded its parts when the other one begins and ends."""
    stale = written(Spool(tmp_path / "stale", 10**9), 1, files(1.0))
    fresh = written(Spool(tmp_path / "fresh", 10**9), 1, files(2.0))
    door = objects.put_new

    def thaws_late(place: Place, content: bytes) -> bool:
        objects.put_new = door  # type: ignore[method-assign]
        assert store(objects, ROOT, fresh, notes.append)  # type: ignore[arg-type]
        return door(place, content)

    objects.put_new = thaws_late  # type: ignore[method-assign]
    assert not store(objects, ROOT, stale, notes.append)  # type: ignore[arg-type]
    expected = manifest_of(KEYS[0], history(1), contents(2.0))
    assert read_manifest(objects, ROOT, KEYS[0]) == expected  # type: ignore[arg-type]
    names = {f"checkpoints/trunk/1/{expected.parts[part].name}" for part in PARTS}
    assert set(objects.contents) == names | {"checkpoints/trunk/1/manifest.json"}


def test_the_same_content_twice_stays(
    objects: MemoryObjects, tmp_path: Path, notes: list[str]
) -> None:
    entry = written(Spool(tmp_path, 10**9), 1, files(1.0))
    assert store(objects, ROOT, entry, notes.append)  # type: ignore[arg-type]
    assert not store(objects, ROOT, entry, notes.append)  # type: ignore[arg-type]
    assert len(objects.contents) == 3


def test_a_collected_best_is_stored_again_when_it_is_trained_again(
    objects: MemoryObjects, tmp_path: Path, notes: list[str], store_of: StoreOf
) -> None:
    fill(store_of(), 2)  # the second is the better one
    for name in stored(objects, "trunk"):
        if not name.endswith("manifest.json"):
            del objects.contents[name]
    found = store_of("other node").beginning(KEYS)
    assert [found.lacks(epoch) for epoch in (1, 2)] == [True, True]
    for value in (9.0, 2.0):  # on a GPU it comes out a little different
        entry = written(Spool(tmp_path / f"{value}", 10**9), 2, files(value))
        store(objects, ROOT, entry, notes.append)  # type: ignore[arg-type]
    loaded = store_of("third node").beginning(KEYS).load()
    assert loaded is not None
    assert (loaded[0], loaded[1].weights_file) == (2, contents(9.0)["weights"]), "the first one"


def test_a_known_epoch_is_looked_for_again(
    store_of: StoreOf, objects: MemoryObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.checkpoints.LOOK_AGAIN_S", 60.0)
    uploading, other = store_of(), store_of("other node")
    objects.gate.clear()
    save(uploading, KEYS[0], history(1), files(1))
    assert other.beginning(KEYS).history == []
    threading.Timer(0.7, objects.gate.set).start()
    assert other.beginning(KEYS, trained_epochs=1).history == history(1)


def test_after_an_outage_the_uploads_of_another_node_have_their_turn(
    store_of: StoreOf, objects: MemoryObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.checkpoints.LOOK_AGAIN_S", 0.1)
    uploading, other = store_of(), store_of("other node")
    objects.away = True
    save(uploading, KEYS[0], history(1), files(1))  # tried at once, after 1 s and after 3

    def back() -> None:
        # The other node has asked in vain: the first look is over once there is a second one.
        wait_for(lambda: objects.requests.count("list") >= 2)
        objects.away = False

    threading.Timer(1.5, back).start()
    assert other.beginning(KEYS, trained_epochs=1).history == history(1)


def test_who_looks_is_impatient_and_who_loads_is_not(
    store_of: StoreOf, objects: MemoryObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.checkpoints.AWAY_S", 0.0)
    fill(store_of(), 2)
    looking = MemoryObjects()
    looking.contents = objects.contents
    other = CheckpointStore(
        objects,  # type: ignore[arg-type]
        ROOT,
        Spool(tmp_path / "other node", 10**9),
        looking=looking,  # type: ignore[arg-type]
    )
    objects.requests.clear()
    found = other.beginning(KEYS)
    assert (found.history, objects.requests) == (history(2), [])
    looking.away = True
    assert found.load()[0] == 2  # type: ignore[index]
    assert other.beginning(KEYS).history == [], "it begins at the beginning, at once"
    other.close()


def test_an_upload_to_a_place_that_is_not_there_yet_is_tried_again(
    store_of: StoreOf, objects: MemoryObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, failed = objects.put, threading.Event()

    def absent_once(place: Place, content: bytes) -> None:
        if not failed.is_set():
            failed.set()
            raise AbsentObjectError(str(place))
        put(place, content)

    monkeypatch.setattr(objects, "put", absent_once)
    fill(store_of(), 1)
    assert failed.is_set()
    assert stored(objects, KEYS[0])


@pytest.mark.parametrize(("trained_s", "waits"), [(0.0, False), (60.0, True), (1e9, False)])
def test_a_store_that_is_away_is_waited_for_as_long_as_training_again_would_take(
    store_of: StoreOf,
    objects: MemoryObjects,
    monkeypatch: pytest.MonkeyPatch,
    trained_s: float,
    waits: bool,
) -> None:
    monkeypatch.setattr("tuning.checkpoints.AWAY_KNOWN_S", 0.2)
    if trained_s == 1e9:
        monkeypatch.setattr("tuning.checkpoints.AWAY_LONGEST_S", 0.4)
    fill(store_of(), 2)
    objects.away = True

    def back() -> None:
        objects.away = False

    if waits:
        threading.Timer(1.5, back).start()
    found = store_of("other node").beginning(KEYS, trained_epochs=2, trained_s=trained_s)
    assert found.history == (history(2) if waits else [])
    assert waits or objects.requests.count("list") <= 2, "it looks every 0.5 s"


def test_the_bound_drops_what_is_superseded_and_then_makes_training_wait(
    store_of: StoreOf, objects: MemoryObjects, notes: list[str], tmp_path: Path
) -> None:
    large = TensorFile({"w": torch.zeros(25_000)}), TensorFile({"a": torch.zeros(10)})
    found = store_of(limit_bytes=450_000)
    objects.gate.clear()
    rising = [{"val_mae": float(epoch)} for epoch in range(1, 9)]
    for epoch in range(1, 8):  # the first is being uploaded, and its best one
        save(found, f"trunk/{epoch}", rising[:epoch], large)
    assert Spool(tmp_path / "node", 0).used_bytes() <= 450_000
    done = threading.Event()

    def another() -> None:
        for trunk in "bcdef":
            save(found, f"{trunk}/1", [{"val_mae": 1.0}], large)
        done.set()

    trainer = threading.Thread(target=another)
    trainer.start()
    wait_for(lambda: any("training waits" in note for note in notes))
    assert not done.wait(1.0), "five trials' only checkpoints do not fit"
    objects.gate.set()
    trainer.join(60)
    assert done.is_set()
    assert found.flush(60)
    kept = {key.split("/")[-2] for key in stored(objects, "trunk") if "manifest" in key}
    assert {"1", "7"} <= kept
    assert "3" not in kept


def test_a_worker_waits_no_longer_for_room_than_it_may_be_silent(
    store_of: StoreOf, objects: MemoryObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is away for hours, and every checkpoint in the spool matters."""
    assert 60 * Resources().stall_minutes > ROOM_PATIENCE_S
    monkeypatch.setattr("tuning.uploads.ROOM_PATIENCE_S", 0.5)
    large = TensorFile({"w": torch.zeros(25_000)}), TensorFile({"a": torch.zeros(10)})
    found = store_of(limit_bytes=250_000)
    objects.gate.clear()
    for trunk in "ab":
        save(found, f"{trunk}/1", [{"val_mae": 1.0}], large)
    with pytest.raises(SpoolFullError, match=r"full .* HOPETUNE_SPOOL_BYTES allows 250,000"):
        save(found, "c/1", [{"val_mae": 1.0}], large)
    objects.gate.set()
    assert found.flush(60)
    save(found, "c/1", [{"val_mae": 1.0}], large)
    assert found.flush(60)
    assert [len(stored(objects, trunk)) for trunk in "abc"] == [3, 3, 3]


def fill_up(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "other").open("wb", 0) as other:
        while True:
            other.write(bytes(4096))


@pytest.mark.parametrize("is_room_made", [True, False])
def test_a_disk_that_fills_up_at_the_very_end_makes_room_too(
    small_disk: Path, objects: MemoryObjects, *, is_room_made: bool
) -> None:
    objects.gate.clear()  # the first stays in hand
    spool = Spool(small_disk / "spool", 10**9)
    uploads = Uploads(objects, ROOT, spool, print)  # type: ignore[arg-type]
    page = Whole(b"p" * 4096)  # so that what comes behind the parts needs one of its own
    pages: dict[Part, Whole] = dict.fromkeys(PARTS, page)
    rising = [{"val_mae": float(epoch)} for epoch in range(1, 5)]
    for epoch in (1, 2, 3) if is_room_made else (1,):
        uploads.add(uploads.draft(pages), f"trunk/{epoch}", rising[:epoch])
    draft = uploads.draft(pages)
    fill_up(small_disk)
    keys = [f"trunk/{epoch}" for epoch in (1, 2, 3, 4)]
    if is_room_made:
        uploads.add(draft, "trunk/4", rising)
        found = spool.find(keys)
        assert sorted(found) == ["trunk/1", "trunk/3", "trunk/4"], "the second gave way"
        assert {part: found["trunk/4"].read(part) for part in PARTS} == dict.fromkeys(
            PARTS, page.content
        )
    else:
        with pytest.raises(DiskFullError):
            uploads.add(draft, "trunk/4", rising)
        assert list(spool.find(keys)) == ["trunk/1"]
        assert drafts(small_disk) == []
    objects.gate.set()
    uploads.close()
