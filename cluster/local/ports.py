"""Ports on loopback: the preferred one, or the next free one where that is taken."""

import contextlib
import errno
import json
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from cluster.local.files import write_private
from usererror import UserError

LOOPBACK = "127.0.0.1"

PREFERRED = {
    "postgresql": {"sql": 5432},
    "s3": {"s3": 8333, "master": 9333, "volume": 9340, "filer": 8888, "admin": 23646},
    "mlflow": {"http": 5000},
    # Ray's own defaults, but for the agent's (52365): systems hand out ports from 32768 on to
    # whoever asks for any, so it may be gone before the agent comes to it. `client` is an older
    # door that `ray start` opens whether wanted or not.
    "ray": {"gcs": 6379, "dashboard": 8265, "agent": 8266, "client": 10001},
}
"""The ports that these programs are known by, per server."""

GRPC_OFFSET = 10_000
"""SeaweedFS serves gRPC at the HTTP port plus this, and its parts look for each other there."""

_WITH_GRPC = {"s3"}
_TRIES = 500

Ports = dict[str, dict[str, int]]


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without this a port of a server stopped a moment ago would look taken (TIME_WAIT).
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen()
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def choose(remembered: Ports, keep: Iterable[str], free: Callable[[int], bool] = is_free) -> Ports:
    """A port for everything that listens.

    Args:
        remembered: last time's ports, taken again where they are free.
        keep: servers that are alive, whose ports stay as they are.
        free: tells whether a port can be had.

    Raises:
        UserError: nothing free near a preferred port.
    """
    kept = {name: remembered[name] for name in keep if name in remembered}
    taken = {used for name, ports in kept.items() for used in listened(name, ports.values())}
    chosen: Ports = {}
    for name, preferred in PREFERRED.items():
        chosen[name] = kept.get(name) or {}
        for role, port in preferred.items():
            if name not in kept:
                first = remembered.get(name, {}).get(role, port)
                chosen[name][role] = _next_free(name, role, (first, port), taken, free)
                taken.update(listened(name, [chosen[name][role]]))
    return chosen


def load(path: Path) -> Ports:
    """Last time's ports; empty where there is no file or it is damaged (they are only a wish)."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and all(
            set(found.get(name, {})) == set(roles)
            and all(isinstance(port, int) and 0 < port < 65536 for port in found[name].values())
            for name, roles in PREFERRED.items()
        ):
            return {name: dict(found[name]) for name in PREFERRED}
    return {}


def save(path: Path, ports: Ports) -> None:
    """Remember the ports for the next start."""
    write_private(path, json.dumps(ports, indent=1))


def listened(name: str, ports: Iterable[int]) -> list[int]:
    """All that a server listens on where it is given these ports."""
    offsets = (0, GRPC_OFFSET) if name in _WITH_GRPC else (0,)
    return [port + offset for port in ports for offset in offsets]


def _next_free(
    name: str, role: str, wishes: tuple[int, int], taken: set[int], free: Callable[[int], bool]
) -> int:
    remembered, preferred = wishes
    candidates: list[int] = [remembered, *range(preferred, preferred + _TRIES)]
    for port in candidates:
        if all(used not in taken and free(used) for used in listened(name, [port])):
            return port
    raise UserError(
        f"local server {name}",
        f"no free port for {role}",
        rule=f"one of {preferred} … {preferred + _TRIES - 1} on {LOOPBACK}",
        remedy="end what listens there",
    )
