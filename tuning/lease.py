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

from sqlalchemy import (
    Column,
    ColumnElement,
    Engine,
    Float,
    Integer,
    MetaData,
    Table,
    Text,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from cluster.local.identity import machine_mark, start_mark
from usererror import UserError

log = logging.getLogger(__name__)

BEAT_S = 5.0  # untuned
TTL_S = 30.0
"""A driver that did not beat for so long is given up: six beats, as machines may be under load;
untuned."""

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
_ROW = _TABLE.columns
_NOW = {
    "postgresql": "CAST(extract(epoch from clock_timestamp()) AS double precision)",
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
}
"""Seconds since 1970 by the database's clock."""


class LeaseLostError(UserError):
    """Another driver has taken the search over; nothing more may be written."""


def lost(search: str) -> LeaseLostError:
    rule = "one driver at a time writes a search"
    remedy = f"this one ends; see `hopetune logs {search}` for the other"
    return LeaseLostError(search, "another driver has taken it over", rule=rule, remedy=remedy)


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

    def still(self) -> None:
        """Costs nothing; says what the last beat or write found.

        Raises:
            LeaseLostError: another driver has taken the search over.
        """
        if self._lost.is_set():
            raise lost(self._search)

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
            self._thread.join(BEAT_S)
        try:
            with self._engine.begin() as connection:
                connection.execute(_TABLE.delete().where(*self._own))
        except DBAPIError as error:
            log.warning("the lease of %s ends by itself: %s", self._search, error.orig)

    def check(self, session: Session) -> None:
        """Holds the row until the session's transaction ends: nobody takes it over meanwhile.

        Raises:
            LeaseLostError: it is not this driver's any more.
        """
        query = select(_ROW.pid).where(*self._own).with_for_update(read=True)  # not in SQLite
        found = session.execute(query)
        if found.first() is None:
            self._lost.set()
            raise lost(self._search)

    def _try(self, holder: Holder | None) -> bool:
        """One atomic statement: takes the row where there is none, or its holder is over."""
        values = {
            "token": self._token,
            "host": socket.gethostname(),
            "machine": machine_mark(),
            "pid": os.getpid(),
            "mark": start_mark(os.getpid()),
            "since_s": now(self._engine),
            "beat_s": now(self._engine),
        }
        dead = [holder.token] if holder and holder.is_known_dead else []
        is_free = _ROW.token.in_([self._token, *dead]) | (_ROW.beat_s < now(self._engine) - TTL_S)
        kind = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        statement = kind.insert(_TABLE).values(search=self._search, **values)
        statement = statement.on_conflict_do_update(
            index_elements=[_ROW.search], set_=values, where=is_free
        ).returning(_ROW.search)
        with self._engine.begin() as connection:
            return connection.execute(statement).first() is not None

    @property
    def _own(self) -> tuple[ColumnElement[bool], ...]:
        return _ROW.search == self._search, _ROW.token == self._token

    def _beat_on(self) -> None:
        beat = _TABLE.update().where(*self._own).values(beat_s=now(self._engine))
        while not self._closing.wait(BEAT_S):
            try:
                with self._engine.begin() as connection:
                    is_own = connection.execute(beat).rowcount == 1
            except DBAPIError:
                continue  # the driver's own writes tell of it
            if not is_own:
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
    wanted = [c for c in _ROW if c.name != "search"]
    query = select(_ROW.search, *wanted, now(engine) - _ROW.beat_s)
    with engine.connect() as connection:
        return {search: Holder(*row) for search, *row in connection.execute(query)}


def now(engine: Engine) -> ColumnElement[float]:
    """The database's clock, as an expression."""
    return literal_column(_NOW[engine.dialect.name], Float())
