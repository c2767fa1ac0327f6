"""Ray worker nodes on one machine, apart from each other: address, settings, spool, data cache."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

_DISK_BYTES = 64 * 2**20
"""Of a node's state directory: the data set and a few checkpoints of 9 MB."""
_OBJECT_STORE_BYTES = 100 * 2**20

_RAY = """
from ray._private import ray_constants, services
# The one switch (see cluster.settings.RAY_ON_LOOPBACK) by which Ray leaves a loopback address as it
# is also makes it refuse further nodes. Its children inherit the switch as it is.
ray_constants.ENABLE_RAY_CLUSTER = True
services.get_node_ip_address = lambda address=None: "127.0.0.1"
from ray.scripts.scripts import main
main()
"""


class Node:
    """One worker node: a ``ray start --block`` with one logical GPU, and all that it starts."""

    def __init__(self, address: str, head: str, folder: Path, environment: Mapping[str, str]):
        self.address = address
        self.folder = folder
        self.state = folder
        """Its state directory: spool and data cache."""
        self.has_small_disk = False
        self._head = head
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Joins the cluster anew; what an earlier start left is ended first."""
        self.kill()
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            *(sys.executable, "-c", _RAY, "start", "--block"),
            *(f"--address={self._head}", f"--node-ip-address={self.address}"),
            "--dashboard-agent-listen-port=0",  # any that is free
            *("--num-gpus=1", "--num-cpus=1", "--min-worker-port=0", "--max-worker-port=0"),
            *(f"--object-store-memory={_OBJECT_STORE_BYTES}", "--disable-usage-stats"),
            # Of its own: nodes that start at the same time would take each other's sockets.
            f"--temp-dir={self.folder / 'ray'}",
        ]
        with (self.folder / "node.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=os.environ | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def fresh_state(self, name: str) -> Path:
        """A new state directory, on a small disk of its own where one may be mounted."""
        self.give_disk_back()
        self.state = self.folder / "state" / name
        self.state.mkdir(parents=True)
        options = f"size={_DISK_BYTES}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.state)],
            capture_output=True,
            check=False,
        )
        self.has_small_disk = done.returncode == 0
        return self.state

    def give_disk_back(self) -> None:
        if self.has_small_disk:
            # Lazily: a frozen worker may still have the data set mapped.
            subprocess.run(["umount", "--lazy", str(self.state)], check=True)
            self.has_small_disk = False

    @property
    def is_started(self) -> bool:
        """Whether it is up or on its way; Ray gives up a start that takes more than 30 s."""
        return self._process is not None and self._process.poll() is None

    @property
    def is_up(self) -> bool:
        return self.raylet() is not None

    def family(self) -> list[psutil.Process]:
        """The node's processes, the first one first."""
        if self._process is None or self._process.poll() is not None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def raylet(self) -> psutil.Process | None:
        return next((p for p in self.family() if _name(p) == "raylet"), None)

    def workers(self) -> list[psutil.Process]:
        """Processes that hold a trial, or held one and are warm."""
        return [p for p in self.family() if is_worker(p)]

    def kill(self) -> None:
        """As when the power goes: every process at once."""
        victims = self.family()
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        psutil.wait_procs(victims, timeout=5)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)

    def end(self) -> None:
        """In order."""
        victims = self.family()
        for victim in victims:
            signal_to(victim, signal.SIGCONT)
        if victims:
            signal_to(victims[0], signal.SIGTERM)
            psutil.wait_procs(victims, timeout=5)
        self.kill()

    def signal_all(self, number: int) -> None:
        """SIGSTOP or SIGCONT to the whole node."""
        for process in self.family():
            signal_to(process, number)


def is_worker(process: psutil.Process) -> bool:
    """Whether a process is the actor in which trials run; Ray names it by its class, which Ray
    Tune has wrapped."""
    return _name(process).startswith(("ray::ResourceTrainable", "ray::HeadposeTrainable"))


def signal_to(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def wait_until(
    condition: Callable[[], bool], seconds: float, what: str, every_s: float = 0.2
) -> None:
    """Waits for something that must come.

    Raises:
        TimeoutError: it did not.
    """
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(every_s)


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error, IndexError):
        if process.status() != psutil.STATUS_ZOMBIE:
            return Path(process.cmdline()[0].split(" ")[0]).name
    return ""
