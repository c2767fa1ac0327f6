"""A small cluster of real processes to be disturbed: servers, gates before two of them, nodes."""

import itertools
import json
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from cluster.local import http, ports, processes
from cluster.local.servers import down, up
from cluster.local.state import StateDir
from cluster.settings import RAY_ON_LOOPBACK, load_settings, to_toml
from tests.chaos.driving import Driver
from tests.chaos.gate import Change, Gate
from tests.chaos.nodes import Node, wait_until
from tests.chaos.searches import Size, publish_faces, write_file
from tests.chaos.stores import Runs, Store
from tests.chaos.watching import Watcher
from tuning.objects import Objects

# A frozen node is noticed in 8.3 s instead of 63 s (FACTS §4), a dead GCS in 20 s instead of 60 s.
QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
    # Ray's workers stand behind everything else on a machine with two cores otherwise.
    "RAY_worker_niceness": "0",
    "OMP_NUM_THREADS": "1",
    # The suite's own client must not wait for minutes while MLflow is away.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}

START_PATIENCE_S = 300.0
"""Ten times what a quiet machine takes: the suite may share it with much else."""


class World:
    """Servers, nodes and what a search needs to run on them.

    Every node has settings of its own: its state directory (spool, data cache) and its door to S3.
    """

    is_alone = True
    """Whether nobody else uses these servers."""

    def __init__(self, root: Path, nodes: int, size: Size) -> None:
        self.root = root
        self.size = size
        self._count = nodes
        self._drivers: list[Driver] = []
        self.nodes: list[Node] = []
        self.state = root / "state"
        self.searches: list[str] = []
        """Those that were begun here."""

    def start(self) -> None:
        """Servers, gates, nodes, data."""
        os.environ.update(QUICK)
        _wish_for_quiet_ports(self.state)
        self.restore()
        self.settings = load_settings(self.state)
        self.watcher = Watcher(self.settings.require("study_url"))
        self.store = Store(self.settings)
        self.runs = Runs(self.settings)
        self.s3 = Gate(_port(self.settings.require("s3_endpoint")))
        self.mlflow = Gate(_port(self.settings.require("mlflow_uri")))
        addresses = [_address(i) for i in range(1, self._count + 1)]
        self._doors = {address: self.s3.door(address) for address in addresses}
        self._driver_doors = (self.s3.door("driver"), self.mlflow.door("driver"))
        self.nodes = [self._node(i) for i in range(1, self._count + 1)]
        (self.root / "faces").mkdir()
        publish_faces(self.root / "faces", self.size, Objects(self.settings))
        self.file = write_file(self.root / "search.yaml", self.size)

    def close(self) -> None:
        """Ends all that was started here, and nothing else."""
        for driver in self._drivers:
            driver.kill()
        for node in self.nodes:
            node.end()
            node.give_disk_back()
        for gate in ("s3", "mlflow"):
            if hasattr(self, gate):
                getattr(self, gate).close()
        if hasattr(self, "watcher"):
            self.watcher.close()
        down(self.state, progress=lambda _: None)

    # -- searches ----------------------------------------------------------------------------------

    def driver(self, search: str) -> Driver:
        """A driver with a fresh world around it: no checkpoint, no spool, no cache of before."""
        for prefix in ("checkpoints/", "damaged/"):
            self.store.delete_below(prefix)
        self.s3.log.clear()
        self.searches.append(search)
        for node in self.nodes:
            self._write_settings(node, search)
        self._drivers.append(Driver(self.file, search, self.driver_environment()))
        return self._drivers[-1]

    def operator_environment(self) -> dict[str, str]:
        """Of a command that needs no gate."""
        return {"HOPETUNE_STATE_DIR": str(self.state)}

    def driver_environment(self) -> dict[str, str]:
        s3, mlflow = self._driver_doors
        changed = {
            "s3_endpoint": f"http://127.0.0.1:{s3}",
            "mlflow_uri": f"http://127.0.0.1:{mlflow}",
        }
        path = self._write(self.root / "driver.toml", changed)
        return {"HOPETUNE_SETTINGS": str(path)}

    def changes(self) -> list[Change]:
        """What has been stored and removed since the search began."""
        return list(self.s3.log)

    # -- servers and nodes -------------------------------------------------------------------------

    def server(self, name: str) -> list[psutil.Process]:
        """The processes of a local server, the first one first; see ``cluster.local``."""
        record = processes.read_record(StateDir(self.state).record(name))
        return processes.family(record)

    def restore(self) -> None:
        """What an operator does: ``hopetune up``."""
        up(self.state, logical_gpus=0, progress=lambda _: None)

    def nodes_have_small_disks(self) -> bool:
        """Whether each node's state directory is a disk of its own; see ``Node.fresh_state``."""
        for node in self.nodes:
            node.fresh_state("try")
        return all(node.has_small_disk for node in self.nodes)

    def start_nodes(self) -> None:
        """Starts those that are not up, and waits for nothing."""
        for node in self.nodes:
            if not node.is_started:
                node.start()

    def have_nodes(self) -> None:
        """Starts those that are not up, and waits until the cluster counts all of them."""
        self.join(*self.nodes)

    def join(self, *nodes: Node) -> None:
        """Starts those of these nodes that are not up, again where Ray gave a start up, and waits
        until the cluster counts them."""

        def are_counted() -> bool:
            for node in nodes:
                if not node.is_started:
                    node.start()
            up = all(node.is_up for node in nodes)
            return up and {node.address for node in nodes} <= self.counted()

        names = " and ".join(node.address for node in nodes)
        wait_until(are_counted, START_PATIENCE_S, f"the cluster counts {names}", 0.5)

    def counted(self) -> set[str]:
        """Addresses of the nodes that the cluster takes for alive, the head's among them."""
        token = self.settings.ray_token_file
        assert token is not None
        headers = {"Authorization": f"Bearer {token.read_text('utf-8').strip()}"}
        url = f"{self.settings.require('ray_jobs_address')}/nodes?view=summary"
        summary = json.loads(http.get(url, headers))["data"]["summary"]
        return {str(n["raylet"]["nodeManagerAddress"]) for n in summary if _is_alive(n)}

    def _node(self, index: int) -> Node:
        address = _address(index)
        folder = self.root / f"n{index}"
        folder.mkdir(exist_ok=True)
        environment = {
            "HOPETUNE_SETTINGS": str(folder / "settings.toml"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.settings.ray_token_file),
            "RAY_USAGE_STATS_ENABLED": "0",
            "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
            **RAY_ON_LOOPBACK,
        }
        return Node(address, self.settings.require("ray_address"), folder, environment)

    def _write_settings(self, node: Node, search: str) -> None:
        state = node.fresh_state(search)
        door = self._doors[node.address]
        changed = {"state_dir": state, "s3_endpoint": f"http://127.0.0.1:{door}"}
        self._write(node.folder / "settings.toml", changed)

    def _write(self, path: Path, changed: Mapping[str, object]) -> Path:
        new = path.with_suffix(".new")
        new.write_text(to_toml(self.settings.model_copy(update=dict(changed))), "utf-8")
        new.chmod(0o600)
        new.replace(path)
        return path


def _address(index: int) -> str:
    """Of the node of this index; the head has the first one."""
    return f"127.0.0.{index + 1}"


@contextmanager
def world(root: Path, nodes: int, size: Size) -> Iterator[World]:
    """A world that is taken down whatever happens."""
    found = World(root, nodes, size)
    before = {name: os.environ.get(name) for name in QUICK}
    try:
        found.start()
        yield found
    finally:
        found.close()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _wish_for_quiet_ports(state: Path) -> None:
    """Ports far from everybody's favourites: who starts servers beside us picks no fight."""
    state.mkdir(parents=True, exist_ok=True)
    port = itertools.count(random.SystemRandom().randrange(20_000, 29_000, 50))
    wish = {name: {role: next(port) for role in roles} for name, roles in ports.PREFERRED.items()}
    ports.save(state / "ports.json", wish)


def _port(url: str) -> int:
    return int(url.rsplit(":", 1)[1].rstrip("/"))


def _is_alive(node: Mapping[str, Mapping[str, object]]) -> bool:
    return node["raylet"].get("state") == "ALIVE"
