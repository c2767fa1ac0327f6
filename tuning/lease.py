"""Who drives a search: one living driver at a time, by a row of the study's own database.

The holder of the row beats every few seconds, by the database's clock, so clocks of machines need
not agree. Each write of the holder asks in its own transaction whether the row is still its own
(:meth:`Lease.check`): a driver that was frozen, lost its row meanwhile and thaws writes nothing
more, not even what it had begun.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Column, Engine, Float, Integer, MetaData, Table, Text, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from cluster.local.identity import machine_mark, start_mark
from usererror import UserError

log = logging.getLogger(__name__)

BEAT_S = 5.0  # untuned
TTL_S = 30.0
"""A driver that did not beat for so long is given up: six beats, for machines under load. Untuned."""

_TABLE = Table(
    "hopetune_leases",
    MetaData(),
    Column("search", Text, primary_key=True),
    Column("token", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("machine", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("mark", Text, nullable=False),
    Column("since_s", Float, nullable=False),
    Column("beat_s", Float, nullable=False),
)
_NOW = {
    "postgresql": "extract(epoch from clock_timestamp())",
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
}
"""Seconds since 1970 by the database's clock."""


class LeaseLostError(RuntimeError):
    """Another driver has taken the search over; nothing more may be written."""


@dataclass(frozen=True)
class Holder:
    """The driver of a search as its row tells; times in seconds, by the database's clock."""

    token: str
    host: str
    machine: str
    pid: int
    mark: str
    since_s: float
    beat_s: float
    age_s: float
    """Time since its last beat."""

    @property
    def is_known_dead(self) -> bool:
        """It ran on this machine and its process is gone: nothing to wait for."""
        return self.machine == machine_mark() and start_mark(self.pid) != self.mark

    @property
    def is_living(self) -> bool:
        """As far as can be told from here."""
        return self.age_s < TTL_S and not self.is_known_dead

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since_s)
        return f"process {self.pid} on {self.host} since {since:%Y-%m-%d %H:%M:%S}"


class Lease:
    """The right to write one search.

    Args:
        engine: the study's database; PostgreSQL or SQLite.
        search: the name of the search.
    """

    def __init__(self, engine: Engine, search: str) -> None:
        self._engine = engine
        self._search = search
        self._token = uuid.uuid4().hex
        self._closing = threading.Event()
        self._lost = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_lost(self) -> bool:
        """Another driver has taken the search over."""
        return self._lost.is_set()

    def take(self, say: Callable[[str], None]) -> None:
        """Becomes the driver; waits for the end of one that may be dead on another machine.

        Raises:
            UserError: another driver lives.
        """
        first: Holder | None = None
        while not self._try(holder := holder_of(self._engine, self._search)):
            if holder is None:
                continue  # it went this very moment
            is_here = holder.machine == machine_mark()
            if first is not None and holder.token != first.token:
                first = None  # another one was faster
            if holder.is_living and (is_here or (first and holder.beat_s > first.beat_s)):
                raise UserError(
                    self._search,
                    "another driver runs this search",
                    got=str(holder),
                    remedy=f"follow it: `hopetune logs {self._search} --follow`; "
                    f"or end it: `hopetune stop {self._search}`",
                )
            if first is None:
                first = holder
                say(f"its last driver was {holder}; waiting up to {TTL_S:.0f} s for its end")
            time.sleep(1.0)
        self._thread = threading.Thread(target=self._beat_on, daemon=True, name="lease")
        self._thread.start()

    def release(self) -> None:
        """Gives the right back; a database that is away keeps it until its time is over."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        statement = text("DELETE FROM hopetune_leases WHERE search = :search AND token = :token")
        try:
            with self._engine.begin() as connection:
                connection.execute(statement, {"search": self._search, "token": self._token})
        except DBAPIError as error:
            log.warning("the lease of %s ends by itself: %s", self._search, error.orig)

    def check(self, session: Session) -> None:
        """Holds the row until the session's transaction ends: nobody takes it over meanwhile.

        Raises:
            LeaseLostError: it is not this driver's any more.
        """
        lock = " FOR SHARE" if self._engine.dialect.name == "postgresql" else ""
        query = "SELECT 1 FROM hopetune_leases WHERE search = :search AND token = :token" + lock
        found = session.execute(text(query), {"search": self._search, "token": self._token})
        if found.first() is None:
            self._lost.set()
            raise LeaseLostError(self._search)

    def _try(self, holder: Holder | None) -> bool:
        """One atomic statement: takes the row where there is none, or its holder is over."""
        now = _NOW[self._engine.dialect.name]
        statement = text(
            "INSERT INTO hopetune_leases"
            " (search, token, host, machine, pid, mark, since_s, beat_s)"
            f" VALUES (:search, :token, :host, :machine, :pid, :mark, {now}, {now})"
            " ON CONFLICT (search) DO UPDATE SET token = excluded.token, host = excluded.host,"
            " machine = excluded.machine, pid = excluded.pid, mark = excluded.mark,"
            " since_s = excluded.since_s, beat_s = excluded.beat_s"
            " WHERE hopetune_leases.token IN (:token, :dead)"
            f" OR hopetune_leases.beat_s < {now} - :ttl"
        )
        values = {
            "search": self._search,
            "token": self._token,
            "host": socket.gethostname(),
            "machine": machine_mark(),
            "pid": os.getpid(),
            "mark": start_mark(os.getpid()),
            "dead": holder.token if holder and holder.is_known_dead else self._token,
            "ttl": TTL_S,
        }
        with self._engine.begin() as connection:
            return connection.execute(statement, values).rowcount == 1

    def _beat_on(self) -> None:
        now = _NOW[self._engine.dialect.name]
        statement = text(
            f"UPDATE hopetune_leases SET beat_s = {now}"
            " WHERE search = :search AND token = :token"
        )
        while not self._closing.wait(BEAT_S):
            try:
                with self._engine.begin() as connection:
                    found = connection.execute(
                        statement, {"search": self._search, "token": self._token}
                    )
            except DBAPIError:
                continue  # the driver's own writes tell of it
            if found.rowcount == 0:
                self._lost.set()
                return


def prepare(engine: Engine) -> None:
    """Makes sure of the table."""
    for is_last in (False, True):
        try:
            _TABLE.create(engine, checkfirst=True)
            return
        except DBAPIError:  # another process made it this very moment
            if is_last:
                raise


def holder_of(engine: Engine, search: str) -> Holder | None:
    """The driver of a search, dead or alive; none where the last one ended orderly."""
    return holders(engine).get(search)


def holders(engine: Engine) -> dict[str, Holder]:
    """The driver of each search that has one."""
    query = text(
        "SELECT search, token, host, machine, pid, mark, since_s, beat_s,"
        f" {_NOW[engine.dialect.name]} - beat_s AS age_s FROM hopetune_leases"
    )
    with engine.connect() as connection:
        rows = connection.execute(query).mappings().all()
    return {
        row["search"]: Holder(**{k: _plain(v) for k, v in row.items() if k != "search"})
        for row in rows
    }


def _plain(value: object) -> object:
    return value if isinstance(value, str | int) else float(str(value))  # PostgreSQL: Decimal
