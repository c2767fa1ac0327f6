"""A world for the short form: the servers of the other tests, whose head has the GPUs."""

from pathlib import Path

import psutil

from cluster.settings import Settings
from tests.chaos.driving import Driver
from tests.chaos.gate import Change
from tests.chaos.nodes import Node, is_worker
from tests.chaos.searches import Size, publish_faces, write_file
from tests.chaos.stores import Runs, Store
from tests.chaos.watching import Watcher
from tests.chaos.world import World
from tuning.objects import Objects


class LentWorld(World):
    """Servers that somebody else has started and will end: no gates, no nodes beside the head."""

    is_alone = False

    def __init__(self, root: Path, settings: Settings, size: Size) -> None:
        super().__init__(root, 0, size)
        self.settings, self.state = settings, settings.state_dir
        self.watcher = Watcher(settings.require("study_url"))
        self.store, self.runs = Store(settings), Runs(settings)
        self.nodes = [_Head(self)]

    def start(self) -> None:
        """The data, and the file of the search."""
        publish_faces(self.root, self.size, Objects(self.settings))
        self.file = write_file(self.root / "search.yaml", self.size)

    def close(self) -> None:
        """Ends the drivers that were started here, and the connection."""
        for driver in self._drivers:
            driver.kill()
        self.watcher.close()

    def driver(self, search: str) -> Driver:
        """Forgets what the searches before have stored, and touches nobody else's."""
        for earlier in self.searches:
            for trial in self.watcher.trials(earlier):
                for trunk in {epoch.key.split("/")[0] for epoch in trial.epochs.values()}:
                    self.store.delete_below(f"checkpoints/{trunk}/")
        self.searches.append(search)
        self._drivers.append(Driver(self.file, search, self.operator_environment()))
        return self._drivers[-1]

    def changes(self) -> list[Change]:
        """No gate has seen them; the manifests that were left tell when they were written."""
        found = []
        for key, at_s in self.store.written("checkpoints/"):
            if key.endswith("/manifest.json") and (content := self.store.get(key)):
                path = f"/{self.store.bucket}/{key}"
                found.append(Change(at_s, "?", "PUT", path, 200, content))
        return found

    def have_nodes(self) -> None:
        """The head is there."""


class _Head(Node):
    """The head as the only node."""

    def __init__(self, world: World) -> None:
        super().__init__("127.0.0.1", "", world.root, {})
        self._world = world

    @property
    def is_started(self) -> bool:
        return True

    def workers(self) -> list[psutil.Process]:
        return [p for p in self._world.server("ray") if is_worker(p)]
