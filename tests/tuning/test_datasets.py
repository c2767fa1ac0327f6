"""Publishing, describing and fetching prepared sets, on a store in a folder."""

import json
import os
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headpose.data.manifest import PrepareSettings
from headpose.data.prepared import prepare
from tuning import preparing
from tuning.causes import cause_of
from tuning.cli.main import app
from tuning.datasets import describe, fingerprint_of, open_set, publish
from tuning.exits import ExitReason
from tuning.objects import AbsentObjectError, Place, StorageAwayError
from tuning.preparing import prepare_and_publish
from usererror import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "headpose"))
from faces import write_300w_lp

URI = "s3://bucket/data/faces"
SMALL = PrepareSettings(stored_px=40)
OTHER = PrepareSettings(stored_px=48)


class FolderObjects:
    """Objects as files below a folder; notes what was asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[str] = []
        self.away = False

    def path(self, place: Place) -> Path:
        return self.root / place.bucket / place.key

    def get(self, place: Place) -> bytes:
        self.calls.append(f"get {place.key.rsplit('/', 1)[-1]}")
        if self.away:
            raise StorageAwayError(str(place), "the S3 server cannot be used")
        if not self.path(place).is_file():
            raise AbsentObjectError(str(place))
        return self.path(place).read_bytes()

    def upload(self, path: Path, place: Place) -> None:
        self.calls.append(f"upload {path.name}")
        self.path(place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self.path(place))

    def download(self, place: Place, path: Path) -> None:
        self.calls.append(f"download {path.name}")
        if not self.path(place).is_file():
            raise AbsentObjectError(str(place))
        shutil.copyfile(self.path(place), path)

    def delete(self, place: Place) -> None:
        self.calls.append(f"delete {place.key.rsplit('/', 1)[-1]}")
        self.path(place).unlink(missing_ok=True)


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "store")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faces") / "300W LP"
    write_300w_lp(root, faces=3)
    return root


@pytest.fixture
def published(source: Path, tmp_path: Path, objects: FolderObjects) -> Path:
    prepare("300w-lp", source, tmp_path / "set", SMALL)
    publish(tmp_path / "set", URI, objects)  # type: ignore[arg-type]
    return tmp_path / "set"


@pytest.fixture
def other(source: Path, tmp_path: Path) -> Path:
    """Another set, in a folder."""
    prepare("300w-lp", source, tmp_path / "other", OTHER)
    return tmp_path / "other"


def test_the_manifest_goes_last_and_the_same_set_is_not_sent_again(
    published: Path, objects: FolderObjects
) -> None:
    assert objects.calls[-1] == "upload manifest.json"
    assert len([call for call in objects.calls if call.startswith("upload")]) == 4
    objects.calls.clear()
    publish(published, URI, objects)  # type: ignore[arg-type]
    assert objects.calls == ["get manifest.json"]


def test_a_set_is_described_without_its_images(published: Path, objects: FolderObjects) -> None:
    objects.calls.clear()
    found = describe(URI, objects)  # type: ignore[arg-type]
    assert objects.calls == ["get manifest.json", "get angles.npy", "get names.json"]
    local = describe(str(published), objects)  # type: ignore[arg-type]
    assert found.manifest == local.manifest
    assert found.photos == local.photos
    assert found.angles_deg.tolist() == local.angles_deg.tolist()
    assert found.manifest.fingerprint == fingerprint_of(URI, objects)  # type: ignore[arg-type]
    path = objects.path(Place("bucket", "data/faces/angles.npy"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="does not fit the set's manifest"):
        describe(URI, objects)  # type: ignore[arg-type]


def test_a_node_fetches_a_set_once_whatever_a_killed_fetch_left(
    published: Path, objects: FolderObjects, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    fingerprint = fingerprint_of(URI, objects)  # type: ignore[arg-type]
    (cache / f"{fingerprint}.part").mkdir(parents=True)
    (cache / f"{fingerprint}.part" / "images.npy").write_bytes(b"half of it")
    first = open_set(URI, cache, objects)  # type: ignore[arg-type]
    objects.calls.clear()
    second = open_set(URI, cache, objects)  # type: ignore[arg-type]
    assert objects.calls == ["get manifest.json"]
    assert first.names == second.names
    lasting = {path.name for path in cache.iterdir()}
    assert lasting == {fingerprint, f"{fingerprint}.lock"}


def test_a_spoilt_transfer_is_refused_and_leaves_nothing(
    published: Path, objects: FolderObjects, tmp_path: Path
) -> None:
    path = objects.path(Place("bucket", "data/faces/images.npy"))
    spoilt = bytearray(path.read_bytes())
    spoilt[-1] ^= 1
    path.write_bytes(spoilt)
    with pytest.raises(UserError, match="sha256"):
        open_set(URI, tmp_path / "cache", objects)  # type: ignore[arg-type]
    assert [entry.suffix for entry in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_node_without_room_says_so(
    published: Path, objects: FolderObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 90, 10))
    with pytest.raises(UserError, match="no room on the disk") as error:
        open_set(URI, tmp_path / "cache", objects)  # type: ignore[arg-type]
    assert cause_of(error.value)[0] == ExitReason.DISK_FULL, "another node may have room"


@pytest.mark.parametrize("name", ["images.npy", "angles.npy", "names.json"])
def test_a_set_that_lacks_an_object_is_told_as_such(
    published: Path, objects: FolderObjects, tmp_path: Path, name: str
) -> None:
    objects.path(Place("bucket", f"data/faces/{name}")).unlink()
    said = rf"^{URI}: the prepared set is incomplete; got 'no object {URI}/{name}'"
    with pytest.raises(UserError, match=said):
        open_set(URI, tmp_path / "cache", objects)  # type: ignore[arg-type]
    assert [entry.suffix for entry in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_fetched_set_is_on_the_disk_before_it_has_its_name(
    published: Path, objects: FolderObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(str(path.relative_to(tmp_path)))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    part = f"cache/{open_set(URI, tmp_path / 'cache', objects).fingerprint}.part"  # type: ignore[arg-type]
    files = {f"{part}/{name}" for name in ("images.npy", "angles.npy", "names.json")}
    assert set(synced[:4]) == files | {f"{part}/manifest.json"}
    assert synced[4:] == [part, "cache"]


@pytest.mark.parametrize("name", ["images.npy", "angles.npy", "names.json", "manifest.json"])
def test_a_fetched_set_that_its_disk_damaged_is_fetched_once_more(
    published: Path, objects: FolderObjects, tmp_path: Path, name: str
) -> None:
    cache = tmp_path / "cache"
    fetched = open_set(URI, cache, objects)  # type: ignore[arg-type]
    (cache / fetched.fingerprint / name).write_bytes(b"")  # as a power cut leaves it
    objects.calls.clear()
    again = open_set(URI, cache, objects, None, fetched.fingerprint)  # type: ignore[arg-type]
    assert again.names == fetched.names
    assert len([call for call in objects.calls if call.startswith("download")]) == 4
    objects.calls.clear()
    open_set(URI, cache, objects, None, fetched.fingerprint)  # type: ignore[arg-type]
    assert objects.calls == []


class BrokenOffError(BaseException):
    """As a signal: nothing that the code under test catches."""


def test_a_broken_off_upload_needs_no_second_preparation(
    source: Path, objects: FolderObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(progress: list[int] | None = None) -> str:
        taken = progress if progress is not None else []
        return prepare_and_publish(
            "300w-lp",
            source,
            URI,
            SMALL,
            objects,  # type: ignore[arg-type]
            tmp_path / "work",
            lambda done, _total: taken.append(done),
        ).fingerprint

    def breaks(*_: object, **__: object) -> None:
        raise BrokenOffError

    with monkeypatch.context() as patched:
        patched.setattr(preparing, "publish", breaks)
        with pytest.raises(BrokenOffError):
            call()
    done: list[int] = []
    fingerprint = call(done)
    assert done == []
    assert fingerprint == fingerprint_of(URI, objects)  # type: ignore[arg-type]
    assert list((tmp_path / "work").iterdir()) == []
    call(done)  # from the beginning, for nothing is kept
    assert done == list(range(1, 7))


def test_a_source_that_changed_is_prepared_again(
    source: Path, objects: FolderObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing = tmp_path / "changing"
    shutil.copytree(source, changing)

    def breaks(*_: object, **__: object) -> None:
        raise BrokenOffError

    with monkeypatch.context() as patched:
        patched.setattr(preparing, "publish", breaks)
        with pytest.raises(BrokenOffError):
            prepare_and_publish("300w-lp", changing, URI, SMALL, objects, tmp_path / "work")  # type: ignore[arg-type]
    write_300w_lp(changing, faces=2, seed=9)
    prepare_and_publish("300w-lp", changing, URI, SMALL, objects, tmp_path / "work")  # type: ignore[arg-type]
    prepare("300w-lp", changing, tmp_path / "expected", SMALL)
    content = json.loads((tmp_path / "expected" / "manifest.json").read_text())
    assert content["fingerprint"] == fingerprint_of(URI, objects)  # type: ignore[arg-type]


def test_a_new_worker_of_a_node_needs_no_store_for_what_was_fetched(
    published: Path, objects: FolderObjects, tmp_path: Path
) -> None:
    objects.away = True
    with pytest.raises(StorageAwayError):
        open_set(URI, tmp_path / "cache", objects)  # type: ignore[arg-type]
    objects.away = False
    fetched = open_set(URI, tmp_path / "cache", objects)  # type: ignore[arg-type]
    objects.away = True
    objects.calls.clear()
    again = open_set(URI, tmp_path / "cache", objects, None, fetched.fingerprint)  # type: ignore[arg-type]
    assert again.fingerprint == fetched.fingerprint
    assert objects.calls == []


def test_a_place_keeps_its_set_unless_it_is_to_be_replaced(
    published: Path, other: Path, objects: FolderObjects
) -> None:
    before = fingerprint_of(URI, objects)  # type: ignore[arg-type]
    objects.calls.clear()
    with pytest.raises(UserError, match=r"is taken by another prepared set.*--replace"):
        publish(other, URI, objects)  # type: ignore[arg-type]
    assert objects.calls == ["get manifest.json"]
    publish(other, URI, objects, replace=True)  # type: ignore[arg-type]
    assert objects.calls[2] == "delete manifest.json", "before any file changes"
    assert objects.calls[-1] == "upload manifest.json"
    after = fingerprint_of(URI, objects)  # type: ignore[arg-type]
    assert before != after == describe(str(other), objects).manifest.fingerprint  # type: ignore[arg-type]


def test_what_is_no_set_is_replaced_on_demand_only(published: Path, objects: FolderObjects) -> None:
    manifest = objects.path(Place("bucket", "data/faces/manifest.json"))
    manifest.write_bytes(b"\xff{}")
    with pytest.raises(UserError, match="not a readable manifest"):
        fingerprint_of(URI, objects)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="is taken"):
        publish(published, URI, objects)  # type: ignore[arg-type]
    publish(published, URI, objects, replace=True)  # type: ignore[arg-type]
    assert describe(URI, objects).manifest == describe(str(published), objects).manifest  # type: ignore[arg-type]


def test_a_search_keeps_the_set_it_was_begun_with(
    published: Path, other: Path, objects: FolderObjects, tmp_path: Path
) -> None:
    begun_with = open_set(URI, tmp_path / "cache", objects).fingerprint  # type: ignore[arg-type]
    publish(other, URI, objects, replace=True)  # type: ignore[arg-type]
    again = open_set(URI, tmp_path / "cache", objects, None, begun_with)  # type: ignore[arg-type]
    assert again.fingerprint == begun_with, "this node has it"
    for ask in (
        lambda: open_set(URI, tmp_path / "new node", objects, None, begun_with),  # type: ignore[arg-type]
        lambda: open_set(str(other), tmp_path, objects, None, begun_with),  # type: ignore[arg-type]
        lambda: describe(URI, objects, begun_with),  # type: ignore[arg-type]
        lambda: describe(str(other), objects, begun_with),  # type: ignore[arg-type]
    ):
        with pytest.raises(UserError, match="another prepared set lies here"):
            ask()
    assert not list((tmp_path / "new node").glob("*")), "nothing was fetched"


def test_a_set_that_changes_between_look_and_fetch_is_not_taken_for_the_other(
    published: Path, other: Path, objects: FolderObjects, tmp_path: Path
) -> None:
    class Changing(FolderObjects):
        def download(self, place: Place, path: Path) -> None:
            if path.name == "manifest.json":
                publish(other, URI, objects, replace=True)  # type: ignore[arg-type]
            super().download(place, path)

    with pytest.raises(UserError, match="another prepared set lies here"):
        open_set(URI, tmp_path / "cache", Changing(objects.root))  # type: ignore[arg-type]
    assert [entry.suffix for entry in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_set_made_otherwise_is_refused_before_the_work_and_a_changed_one_keeps_it(
    published: Path, source: Path, objects: FolderObjects, tmp_path: Path
) -> None:
    done: list[int] = []

    def call(source: Path, settings: PrepareSettings, *, replace: bool = False) -> str:
        return prepare_and_publish(
            *("300w-lp", source, URI, settings, objects, tmp_path / "work"),  # type: ignore[arg-type]
            lambda count, _total: done.append(count),
            replace=replace,
        ).fingerprint

    with pytest.raises(UserError, match="is taken"):
        call(source, OTHER)
    assert done == []
    changed = tmp_path / "changed"
    write_300w_lp(changed, faces=2, seed=9)
    with pytest.raises(UserError, match="is taken"):
        call(changed, SMALL)
    assert done == [1, 2, 3, 4]
    assert call(changed, SMALL, replace=True) == fingerprint_of(URI, objects)  # type: ignore[arg-type]
    assert done == [1, 2, 3, 4], "prepared once"


def test_two_calls_for_one_place_do_not_meet(
    source: Path, objects: FolderObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call() -> str:
        return prepare_and_publish(
            *("300w-lp", source, URI, SMALL, objects, tmp_path / "work")  # type: ignore[arg-type]
        ).fingerprint

    def meanwhile(folder: Path, *arguments: object, **named: object) -> None:
        with pytest.raises(UserError, match=rf"^{URI}: another preparation is at work here"):
            call()
        publish(folder, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(preparing, "publish", meanwhile)
    assert call() == fingerprint_of(URI, objects)  # type: ignore[arg-type]
    assert list((tmp_path / "work").iterdir()) == []


def test_a_folder_is_inspected_without_keys_of_s3(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOPETUNE_S3_CREDENTIALS_FILE", str(tmp_path / "absent"))
    place = str(published)
    shown = CliRunner().invoke(app, ["data", "inspect", place, "--beside", place, "--json"])
    assert shown.exception is None
    assert json.loads(shown.stdout)["images"] == 6
