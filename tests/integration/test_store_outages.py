"""Checkpoints and a real S3 server that freezes, dies, or lost a part of an object."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch

from cluster.local import credentials as secret_files
from cluster.local import ports, processes, seaweed
from cluster.local.server import ensure_running, stop
from cluster.local.state import StateDir
from cluster.settings import Settings
from headpose.tensor_file import TensorFile
from tuning.checkpoints import CheckpointStore
from tuning.manifest import read_manifest
from tuning.objects import Objects, StorageAwayError
from tuning.places import checkpoints, spool
from tuning.spool import Spool

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

KEYS = [f"trunk/{epoch}" for epoch in range(1, 4)]
LARGE = 2_000_000


@dataclass(frozen=True)
class OwnS3:
    """A SeaweedFS that no other test uses."""

    settings: Settings
    objects: Objects
    impatient: Objects
    start: Callable[[], None]
    end: Callable[[], None]
    """Kills it, without a warning."""
    pid: Callable[[], int]

    def signal(self, number: int) -> None:
        os.kill(self.pid(), number)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnS3]:
    state = StateDir(tmp_path_factory.mktemp("own s3") / "state")
    state.create()
    secrets = secret_files.load_or_create(state.secrets)
    chosen = ports.choose({}, [])[seaweed.NAME]
    server = seaweed.server(state, chosen, secrets, "hopetune", state.short_folder())
    with state.lock(print) as lock_fd:

        def start() -> None:
            ensure_running(
                server, state, lock_fd=lock_fd, progress=print, cancelled=threading.Event()
            )

        def pid() -> int:
            record = processes.read_record(state.record(seaweed.NAME))
            assert record is not None
            return record.pid

        def end() -> None:
            process = psutil.Process(pid())
            process.kill()
            process.wait(20)

        settings = Settings.model_construct(
            state_dir=state.root,
            s3_endpoint=seaweed.endpoint(chosen),
            s3_bucket="hopetune",
            s3_credentials_file=secrets.s3_credentials_file,
            spool_bytes=10**9,
        )
        start()
        try:
            impatient = Objects(settings, timeout_s=1.0, attempts=1)
            yield OwnS3(settings, Objects(settings), impatient, start, end, pid)
        finally:
            stop(server, state)
            seaweed.remove_sockets(chosen)
            state.remove_short_folder()


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuning.checkpoints.AWAY_S", 0.5)
    monkeypatch.setattr("tuning.checkpoints.LOOK_AGAIN_S", 0.5)


@pytest.fixture
def notes() -> list[str]:
    return []


StoreOf = Callable[[str], CheckpointStore]


@pytest.fixture
def store_of(s3: OwnS3, notes: list[str], tmp_path: Path) -> Iterator[StoreOf]:
    """A store's client on a node; each test has checkpoints of its own. The one on the other node
    tells what is stored, and has patience with a server that is only slow."""
    opened: list[CheckpointStore] = []

    def make(node: str) -> CheckpointStore:
        root = checkpoints(s3.settings) / tmp_path.name
        where = Spool(tmp_path / node, 10**9)
        objects = s3.objects if node == "other node" else s3.impatient
        found = CheckpointStore(objects, root, where, notes.append)
        opened.append(found)
        return found

    yield make
    for found in opened:
        found.close()


def history(epochs: int) -> list[dict[str, float]]:
    return [{"val_mae": 10.0 - e, "epoch_seconds": 0.0} for e in range(epochs)]


def files(value: int) -> tuple[TensorFile, TensorFile]:
    large = torch.full((LARGE,), value, dtype=torch.uint8)
    return TensorFile({"w": large}), TensorFile({"exp_avg/a": torch.full((1000,), float(value))})


def wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def save(node: CheckpointStore, epoch: int) -> None:
    saving = node.saving(lambda: files(epoch))
    with saving:
        pass
    saving.finish(KEYS[epoch - 1], history(epoch))


def test_a_frozen_store_holds_nobody_up_and_gets_everything_when_it_thaws(
    s3: OwnS3, store_of: StoreOf, notes: list[str]
) -> None:
    node = store_of("node")
    s3.signal(signal.SIGSTOP)
    try:
        for epoch in (1, 2, 3):
            save(node, epoch)
        assert node.beginning(KEYS, trained_epochs=3).history == history(3)
        assert node.beginning(["new/1"]).history == [], "a new trial begins"
        assert not node.flush(0.5)
        wait_for(lambda: any("checkpoints wait on this node's disk" in note for note in notes))
    finally:
        s3.signal(signal.SIGCONT)
    assert node.flush(100)
    found = store_of("other node").beginning(KEYS)
    assert found.history == history(3)
    loaded = found.load()
    assert loaded is not None
    assert (loaded[0], loaded[1].weights_file) == (3, b"".join(files(3)[0]))


def test_a_store_that_dies_and_comes_back_is_no_failure(
    s3: OwnS3, store_of: StoreOf, tmp_path: Path
) -> None:
    node = store_of("node")
    save(node, 1)
    assert node.flush(60)
    s3.end()
    try:
        with pytest.raises(StorageAwayError):
            s3.impatient.get(checkpoints(s3.settings) / "x")
        save(node, 2)
    finally:
        s3.start()
    assert node.flush(100)
    assert store_of("other node").beginning(KEYS).load()[0] == 2  # type: ignore[index]


def test_what_a_killed_worker_could_not_upload_the_next_one_does(s3: OwnS3, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import test_store_outages as t\n"
        "from cluster.settings import load_settings\n"
        "s = load_settings()\n"
        "root = t.checkpoints(s) / 'killed'\n"
        "where = t.Spool(t.spool(s), s.spool_bytes)\n"
        "node = t.CheckpointStore(t.Objects(s), root, where)\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    t.save(node, 1)\n"
        "    print('reported', flush=True)\n"
    )
    environment = {
        "HOPETUNE_STATE_DIR": str(tmp_path / "node"),
        "HOPETUNE_S3_ENDPOINT": str(s3.settings.s3_endpoint),
        "HOPETUNE_S3_CREDENTIALS_FILE": str(s3.settings.s3_credentials_file),
    }
    worker = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, str(Path(__file__).parent)],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        s3.signal(signal.SIGSTOP)
        try:
            worker.stdin.write("go\n")
            worker.stdin.flush()
            assert worker.stdout.readline() == "reported\n"
            worker.kill()
            worker.wait(20)
        finally:
            s3.signal(signal.SIGCONT)
    objects, root = s3.objects, checkpoints(s3.settings) / "killed"
    assert read_manifest(objects, root, KEYS[0]) is None
    folder = spool(s3.settings.model_copy(update={"state_dir": tmp_path / "node"}))
    successor = CheckpointStore(objects, root, Spool(folder, 10**9))
    assert successor.beginning(KEYS, trained_epochs=1).history == history(1)
    waited = threading.Event()
    for _ in range(300):
        if read_manifest(objects, root, KEYS[0]) is not None:
            break
        waited.wait(0.2)
    assert successor.flush(60)
    successor.close()
    loaded = CheckpointStore(objects, root, Spool(tmp_path / "far", 10**9)).beginning(KEYS).load()
    assert loaded is not None
    assert loaded[1].weights_file == b"".join(files(1)[0])


def test_of_many_writers_at_once_one_stores(s3: OwnS3, tmp_path: Path) -> None:
    place = checkpoints(s3.settings) / tmp_path.name / "manifest.json"
    begin = threading.Barrier(8)
    stored: list[int] = []

    def write(number: int) -> None:
        begin.wait()
        if s3.objects.put_new(place, bytes([number])):
            stored.append(number)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(stored) == 1
    assert s3.objects.get(place) == bytes(stored)


@pytest.mark.parametrize("how", ["truncated", "changed", "absent"])
def test_a_damaged_object_costs_its_epoch_only(
    s3: OwnS3, store_of: StoreOf, notes: list[str], tmp_path: Path, how: str
) -> None:
    node = store_of("node")
    for epoch in (1, 2):
        save(node, epoch)
    assert node.flush(60)
    objects, root = s3.objects, checkpoints(s3.settings) / tmp_path.name
    manifest = read_manifest(objects, root, KEYS[1])
    assert manifest is not None
    place = root / KEYS[1] / manifest.parts["weights"].name
    if how == "absent":
        objects.delete(place)
    else:
        good = objects.get(place)
        objects.put(place, good[:-7] if how == "truncated" else b"?" + good[1:])
    found = store_of("other node").beginning(KEYS)
    assert found.history == history(2)
    assert found.load()[0] == 1  # type: ignore[index]
    is_damage = how != "absent"
    assert any("damaged and set aside" in note for note in notes) == is_damage
    assert (read_manifest(objects, root, KEYS[1]) is None) == is_damage
