"""What lies on a node's disk reaches the store when no worker is left there."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.settings import Settings
from tuning.leftovers import bring_leftovers
from tuning.manifest import Part
from tuning.places import checkpoints, spool
from tuning.spool import Spool

sys.path.insert(0, str(Path(__file__).parent))
from memory_objects import MemoryObjects
from whole import Whole

CONTENTS: dict[Part, Whole] = {"weights": Whole(b"w" * 1000), "optimiser": Whole(b"o" * 2000)}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HOPETUNE_STATE_DIR", str(tmp_path))
    return Settings(state_dir=tmp_path)


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> MemoryObjects:
    found = MemoryObjects()
    monkeypatch.setattr("tuning.leftovers.Objects", lambda _settings: found)
    return found


@pytest.fixture
def node(settings: Settings) -> Iterator[Spool]:
    """A process of the node that still lives."""
    found = Spool(spool(settings), 10**9)
    yield found
    found.close()


def history(epochs: int) -> list[dict[str, float]]:
    return [{"val_mae": 10.0 - epoch} for epoch in range(epochs)]


def stored(objects: MemoryObjects, settings: Settings) -> set[str]:
    root = f"{checkpoints(settings).key}/"
    manifests = (key for key in objects.contents if key.endswith("/manifest.json"))
    return {key.removeprefix(root).removesuffix("/manifest.json") for key in manifests}


def test_what_dead_processes_left_is_brought_whatever_was_asked_for(
    objects: MemoryObjects, settings: Settings, node: Spool
) -> None:
    for epoch in (1, 2, 3):
        node.finish(node.draft(CONTENTS), f"t/{epoch}", history(epoch))
    node.close()  # as its process would end
    bring_leftovers(["t/1"])
    assert stored(objects, settings) == {"t/1", "t/2", "t/3"}
    assert node.used_bytes() == 0


def test_a_node_that_has_nothing_says_so_at_once(
    objects: MemoryObjects, settings: Settings, node: Spool
) -> None:
    node.finish(node.draft(CONTENTS), "t/1", history(1))
    objects.away = True
    bring_leftovers(["another/1"])
    assert objects.contents == {}
    assert set(node.find(["t/1"])) == {"t/1"}, "it is its own process's to upload"


def bringing(keys: list[str]) -> threading.Thread:
    thread = threading.Thread(target=bring_leftovers, args=(keys,), daemon=True)
    thread.start()
    return thread


def test_a_store_that_is_away_is_waited_for(
    objects: MemoryObjects, settings: Settings, node: Spool
) -> None:
    node.finish(node.draft(CONTENTS), "t/1", history(1))
    node.close()
    objects.away = True
    thread = bringing(["t/1"])
    thread.join(2.0)
    assert thread.is_alive()
    objects.away = False
    thread.join(20)
    assert not thread.is_alive()
    assert stored(objects, settings) == {"t/1"}


def test_what_a_living_process_uploads_is_waited_for(
    objects: MemoryObjects, settings: Settings, node: Spool
) -> None:
    entry = node.finish(node.draft(CONTENTS), "t/1", history(1))
    thread = bringing(["t/1"])
    thread.join(2.0)
    assert thread.is_alive()
    entry.path.unlink()  # it has
    thread.join(20)
    assert not thread.is_alive()
    assert objects.contents == {}


@pytest.mark.parametrize("module", ["tuning.leftovers", "tuning.driver"])
def test_it_needs_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
