"""The database under a study: outlasts a server that is away for a while, and knows the lease.

Optuna's own storage, with four things put right: a call that finds no server is tried again
without doing anything twice; each write of a driver is valid only together with its lease; what
belongs together is written in one step; and a parameter's bounds may change, as an extended search
needs.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, cast

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import InMemoryStorage, RDBStorage, _CachedStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from tuning.lease import Lease
from usererror import UserError

log = logging.getLogger(__name__)

TOKEN = "token"  # noqa: S105 - the name of an attribute
"""Attribute of an entry: names the attempt to create it, so that it is never created twice."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0  # untuned

_OPENING_S, _CONNECT_S = 60, 10
"""How long the first connection may take, which is not tried again: a busy machine stalls for tens
of seconds, and where nobody listens that is told at once; and how long any later one. Untuned."""

# A server that vanished without a word is noticed in a minute, not in the kernel's two hours.
_POSTGRES = {
    "connect_timeout": _OPENING_S,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 4,
    "tcp_user_timeout": 60_000,  # milliseconds
}
# Seconds that another writer is waited for, not 5 as by default: a slow disk takes longer; untuned.
_SQLITE = {"timeout": 60}
_OPTIONS: dict[str, dict[str, Any]] = {"postgresql": _POSTGRES, "sqlite": _SQLITE}
# A pooler that shares connections (PgBouncer) does not have what psycopg prepared in another one.
_PSYCOPG = {"prepare_threshold": None}
_READ_ONLY = "25006"
"""What PostgreSQL calls a write to a standby (SQLSTATE)."""
_WRITES = ("set_", "create_", "_create_", "delete_", "write_")
_NONE: Mapping[int, float] = MappingProxyType({})


class Rdb(RDBStorage):
    """Optuna's storage in a database, whose writes may be bound to a lease."""

    def __init__(self, url: str) -> None:
        parsed = _parsed(url)
        backend = parsed.get_backend_name()
        of_driver = _PSYCOPG if parsed.get_driver_name() == "psycopg" else {}
        options = _OPTIONS.get(backend, {}) | of_driver
        super().__init__(
            url,
            engine_kwargs={
                "pool_pre_ping": True,
                "connect_args": {k: v for k, v in options.items() if k not in parsed.query},
            },
        )
        if backend == "postgresql" and "connect_timeout" not in parsed.query:
            event.listen(self.engine, "do_connect", _connect_sooner)
        event.listen(self.engine, "handle_error", _leave_standby)
        self.lease: Lease | None = None
        self.writing = threading.local()
        self._attempted: set[str] = set()
        event.listen(self.scoped_session, "before_commit", self._check_lease)

    def _check_lease(self, session: Session) -> None:
        if self.lease is not None and getattr(self.writing, "now", False):
            session.flush()  # SQLite lets others write until something was written here
            self.lease.check(session)

    def write_trial(
        self, trial_id: int, attributes: Mapping[str, Any], values: Mapping[int, float] = _NONE
    ) -> None:
        """Writes attributes and values, these by epoch, into a running entry: all or nothing."""
        # Attributes first: as upserts they wait for an earlier try of the same write that the
        # server still has in hand, so that the values find what that one wrote.
        with _create_scoped_session(self.scoped_session) as session:
            kind = models.TrialUserAttributeModel
            for name, value in attributes.items():
                self._set_trial_attr_without_commit(session, kind, trial_id, name, value)
            for epoch, value in values.items():
                self._set_trial_intermediate_value_without_commit(session, trial_id, epoch, value)

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> models.TrialModel:
        """Once for each token, though its caller, here or in Optuna, may try again after a commit
        whose confirmation was lost."""
        token = template_trial.user_attrs.get(TOKEN) if template_trial else None
        if token in self._attempted:
            attribute = models.TrialUserAttributeModel
            query = session.query(models.TrialModel).join(attribute)
            found = query.filter(
                models.TrialModel.study_id == study_id,
                attribute.key == TOKEN,
                attribute.value_json == json.dumps(token),
            ).one_or_none()
            if found is not None:
                return found
        elif token:
            self._attempted.add(token)
        return super()._get_prepared_new_trial(study_id, template_trial, session)

    def _set_trial_param_without_commit(
        self,
        session: Session,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None = None,  # noqa: ARG002
    ) -> None:
        # Compared with itself: Optuna refuses other choices than those of the study's first trial.
        super()._set_trial_param_without_commit(
            session, trial_id, param_name, param_value_internal, distribution, distribution
        )


class Patient:
    """Calls of a storage, tried again while its server is away.

    Args:
        patience_s: for how long; 0: not at all.
    """

    def __init__(self, inner: Rdb, patience_s: float) -> None:
        self._inner = inner
        self.patience_s = patience_s
        self.fault: UserError | None = None
        """Why a call failed for good: Ray Tune hides it in an error of its own."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found
        return lambda *args, **more: self._again(name, lambda: found(*args, **more))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        """Ends a trial; that it has ended already is no fault where that was this very call."""
        tries = 0

        def once() -> bool:
            nonlocal tries
            tries += 1
            try:
                return self._inner.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                if tries > 1 and self._inner.get_trial(trial_id).state == state:
                    return True
                raise

        return bool(self._again("set_trial_state_values", once))

    def _again(self, name: str, call: Callable[[], Any]) -> Any:
        writing = self._inner.writing
        since_s: float | None = None
        pause_s = FIRST_PAUSE_S
        while True:
            writing.now = name.startswith(_WRITES)
            try:
                if self._inner.lease is not None:
                    self._inner.lease.still()
                result = call()
            except UserError as error:
                self.fault = error
                raise
            except Exception as error:
                why = away(error)
                if why is None:
                    raise
                if since_s is None:
                    since_s = time.monotonic()
                    if self.patience_s > pause_s:
                        log.warning("the study database is away (%s); waiting for it", why)
                if time.monotonic() - since_s + pause_s > self.patience_s:
                    self.fault = unreachable(why)
                    raise self.fault from None
            else:
                if since_s is not None:
                    gone_s = time.monotonic() - since_s
                    log.warning("the study database is back after %.0f s", gone_s)
                return result
            finally:
                writing.now = False
            time.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)


class Remembering(_CachedStorage):
    """With a memory of its own for trials that are over, which never change."""

    def __init__(self, inner: Patient) -> None:
        super().__init__(cast(RDBStorage, inner))
        self.write_trial = inner.write_trial


class InMemory(InMemoryStorage):
    """Lasts as long as its process."""

    def write_trial(
        self, trial_id: int, attributes: Mapping[str, Any], values: Mapping[int, float] = _NONE
    ) -> None:
        """As ``Rdb``."""
        for name, value in attributes.items():
            self.set_trial_user_attr(trial_id, name, value)
        for epoch, value in values.items():
            self.set_trial_intermediate_value(trial_id, epoch, value)


def _connect_sooner(_dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
    options["connect_timeout"] = _CONNECT_S


def _parsed(url: str) -> URL:
    """The parts of a database's URL; what is wrong with one is told without it, as it may hold a
    password."""
    try:
        parsed = make_url(url)
        parsed.get_dialect().import_dbapi()
        if parsed.get_backend_name() == "sqlite":
            _require_one_for_all(parsed)
    except (ArgumentError, ImportError, ValueError):
        raise UserError(
            "settings.study_url",
            "not the URL of a database that can be used",
            rule="postgresql+psycopg://USER:PASSWORD@HOST:PORT/NAME or sqlite:////PATH",
            remedy="correct HOPETUNE_STUDY_URL or the settings file",
        ) from None
    return parsed


def _require_one_for_all(sqlite: URL) -> None:
    """Refuse a relative path, which a job takes from a folder of its own, and a database in memory.

    Raises:
        ValueError: it is such a one.
    """
    path = sqlite.database or ""
    if "uri" in sqlite.query:  # SQLite's own: file:/PATH?…&uri=true
        path = path.removeprefix("file:")
    if not path.startswith("/") or sqlite.query.get("mode") == "memory":
        raise ValueError("processes would not find the same database")


def _leave_standby(context: ExceptionContext) -> None:
    """A server that became a standby keeps its connections, which answer pings but take no writes:
    as after a cut line, the pool gives none of them out again."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True


def away(error: BaseException | None) -> str | None:
    """Why the server could not be reached, in a line; none where an error is something else."""
    while error is not None:
        gone = isinstance(error, OperationalError | InterfaceError | PoolTimeoutError)
        if gone or (isinstance(error, DBAPIError) and error.connection_invalidated):
            lines = str(getattr(error, "orig", error)).strip().splitlines()
            return lines[0] if lines else type(error).__name__
        error = error.__cause__ or error.__context__
    return None


def unreachable(why: str) -> UserError:
    return UserError(
        "settings.study_url",
        "the study database cannot be reached",
        got=why,
        remedy="check that it is up (`hopetune status`)",
    )
