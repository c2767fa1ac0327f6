"""A gate before a server: relays TCP, can be shut, and keeps a log of what is stored and removed.

Every client gets a door (a port) of its own, so the log says who stored what. Bytes are passed on
as they are; the reader beside them only looks (HTTP/1.1 with lengths, as boto3 speaks it).
"""

import contextlib
import json
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Literal

Shut = Literal["refuse", "hang"]
"""A gate that resets every connection, or one behind which nobody answers."""

_CHUNK = 1 << 16
_PARTS = ("weights", "optimiser")
_KEPT = "manifest.json"
"""Bodies of objects of this name are kept in the log: they are small, and say what was trained."""


@dataclass(frozen=True)
class Change:
    """A PUT, a DELETE or the GET of a checkpoint's part that was answered; ``at_s`` seconds since
    the epoch."""

    at_s: float
    client: str
    method: str
    key: str
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Gate:
    """Doors to one server on loopback."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream = upstream_port
        self._open = threading.Event()
        self._open.set()
        self._refuses = False
        self._listeners: list[socket.socket] = []
        self._living: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.log: list[Change] = []

    def door(self, client: str) -> int:
        """A port through which ``client`` reaches the server."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener, client), daemon=True).start()
        return int(listener.getsockname()[1])

    def shut(self, how: Shut) -> None:
        self._refuses = how == "refuse"
        self._open.clear()
        if self._refuses:
            with self._lock:
                living = list(self._living)
            for connection in living:
                _reset(connection)

    def reopen(self) -> None:
        self._refuses = False
        self._open.set()

    def strand(self) -> None:
        """Connections that are open now fall silent for good, as one that a router has forgotten;
        new ones pass."""
        self._open.clear()
        self._open = threading.Event()
        self._open.set()

    def close(self) -> None:
        self.reopen()
        with self._lock:
            open_ones = [*self._listeners, *self._living]
        for one in open_ones:
            _reset(one)

    def _accept(self, listener: socket.socket, client: str) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection, client), daemon=True).start()

    def _serve(self, connection: socket.socket, client: str) -> None:
        if self._refuses:
            _reset(connection)
            return
        is_open = self._open
        is_open.wait()
        try:
            upstream = socket.create_connection(("127.0.0.1", self._upstream), timeout=5)
        except OSError:  # the server is dead: so is the connection
            _reset(connection)
            return
        upstream.settimeout(None)
        pair = {connection, upstream}
        with self._lock:
            self._living |= pair
        exchange = _Exchange(client, self.log)
        there = threading.Thread(
            target=self._relay, args=(connection, upstream, is_open, exchange.sent), daemon=True
        )
        there.start()
        self._relay(upstream, connection, is_open, exchange.answered)
        there.join()
        with self._lock:
            self._living -= pair
        for one in pair:
            one.close()

    def _relay(
        self, source: socket.socket, target: socket.socket, is_open: threading.Event, look: Any
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK):
                is_open.wait()
                look(chunk)
                target.sendall(chunk)
        for one in (source, target):  # one side has ended: so does the other
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _reset(connection: socket.socket) -> None:
    """Ends a connection as a dead machine's successor would: with a reset."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        connection.close()


@dataclass
class _Exchange:
    """Requests and answers of one connection, one after the other."""

    client: str
    log: list[Change]
    head: bytes = b""
    missing: int = 0
    """Bytes of the present request's body that are still to come."""
    method: str = ""
    key: str = ""
    body: bytearray = field(default_factory=bytearray)
    is_blind: bool = False
    """Met something that it cannot read; the relay goes on."""

    def sent(self, chunk: bytes) -> None:
        """What the client says."""
        while chunk and not self.is_blind:
            if self.missing:
                part, chunk = chunk[: self.missing], chunk[self.missing :]
                self.missing -= len(part)
                if self.key.endswith(_KEPT):
                    self.body += part
                continue
            self.head += chunk
            chunk = b""
            if b"\r\n\r\n" in self.head:
                head, chunk = self.head.split(b"\r\n\r\n", 1)
                self.head = b""
                self._begin(head.decode("latin-1"))

    def _begin(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        self.method, path, *_ = first.split(" ")
        headers = {k.strip().lower(): v.strip() for k, _, v in (s.partition(":") for s in lines)}
        self.is_blind = "transfer-encoding" in headers
        self.key, self.body = path.partition("?")[0], bytearray()
        self.missing = int(headers.get("content-length", 0))

    def answered(self, chunk: bytes) -> None:
        """What the server says; only the status lines of some answers are of interest."""
        is_part = self.method == "GET" and self.key.rpartition("/")[2].startswith(_PARTS)
        if not is_part and self.method not in ("PUT", "DELETE"):
            return
        if self.is_blind or not chunk.startswith(b"HTTP/1."):
            return
        if chunk.startswith(b"HTTP/1.1 100"):
            chunk = chunk.split(b"\r\n\r\n", 1)[-1]
            if not chunk.startswith(b"HTTP/1."):
                return
        status = int(chunk.split(b" ", 2)[1])
        body = bytes(self.body)
        self.log.append(Change(time.time(), self.client, self.method, self.key, status, body))
        self.method = ""
