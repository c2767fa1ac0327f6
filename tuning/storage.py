"""The database of the studies: searches are made, opened and listed here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.samplers import RandomSampler

from tuning import study_history
from tuning.lease import Holder, Lease, holders, prepare
from tuning.records import SearchRecord
from tuning.spec import SearchSpec
from tuning.study import Study, now_ms
from tuning.study_storage import InMemory, Patient, Rdb, Remembering, away, unreachable
from tuning.warm_start import taken_from
from usererror import UserError


class Storage:
    """The database in which studies lie.

    Args:
        url: SQLAlchemy's name of it.
        patience_s: for how long calls wait for a server that is away; a driver has some. To open
            it, it must be there.

    Raises:
        UserError: it cannot be reached.
    """

    def __init__(self, url: str, patience_s: float = 0.0) -> None:
        with _reachable():
            self._rdb: Rdb | None = Rdb(url)
            prepare(self._rdb.engine)
        patient = Patient(self._rdb, patience_s)
        self._patient: Patient | None = patient
        self._fresh: Callable[[], Remembering | InMemory] = lambda: Remembering(patient)
        """Gives what one study is read and written through."""

    @classmethod
    def in_memory(cls) -> "Storage":
        """A storage that lasts as long as its process: for simulations."""
        storage = cls.__new__(cls)
        storage._rdb = storage._patient = None
        memory = InMemory()
        storage._fresh = lambda: memory
        return storage

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives its connections back; studies opened through it are of no more use."""
        if self._rdb is not None:
            self._rdb.remove_session()
            self._rdb.engine.dispose()

    def hurry(self, patience_s: float) -> None:
        """From now on no call waits longer than that for a server that is away."""
        if self._patient is not None:
            self._patient.patience_s = min(self._patient.patience_s, patience_s)

    @property
    def fault(self) -> UserError | None:
        """Why a call failed for good, if one did: no driver can go on after it."""
        return self._patient.fault if self._patient is not None else None

    @contextmanager
    def driving(self, name: str, say: Callable[[str], None]) -> Iterator[None]:
        """The right to write a search, and to no other driver meanwhile: all that is written
        through this storage is valid only with it.

        Raises:
            UserError: another driver lives.
        """
        if self._rdb is None:
            raise ValueError("a search in memory has no other driver")
        lease = Lease(self._rdb.engine, name)
        with _reachable():
            lease.take(say)
        self._rdb.lease = lease
        try:
            yield
        finally:
            self._rdb.lease = None
            lease.release()

    def drivers(self) -> dict[str, Holder]:
        """The living driver of each search that has one."""
        if self._rdb is None:
            return {}
        with _reachable():
            found = holders(self._rdb.engine)
        return {name: holder for name, holder in found.items() if holder.is_living}

    def names(self) -> list[str]:
        """Names of all searches, the oldest first."""
        studies = self._fresh().get_all_studies()
        found = [s for s in studies if "spec" in s.user_attrs]
        return [s.study_name for s in sorted(found, key=lambda s: s.user_attrs["created_ms"])]

    def create(
        self,
        name: str,
        spec: SearchSpec,
        fingerprint: str,
        clock: Callable[[], int] | None = None,
    ) -> Study:
        """A new search, or the one of that name where it is the same.

        Raises:
            UserError: there is another search of that name, the one of that name was begun with
                other data, or one to start from is not there or was trained on other data.
        """
        taken = []
        if spec.warm_start and name not in self.names():
            earlier = [self.open(other).record() for other in spec.warm_start]
            taken = [taken_from(spec, fingerprint, record) for record in earlier]
        try:
            study = optuna.create_study(
                storage=self._fresh(),
                sampler=RandomSampler(),
                study_name=name,
                directions=["minimize"] * len(spec.objectives),
            )
        except DuplicatedStudyError:
            study = self._load(name)
        if "spec" in study.user_attrs:  # else it is new, or its first driver died right here
            known = Study(study, clock)
            record = known.record()
            files = (record.spec, *(spec for _, spec in record.earlier))
            if spec not in files:
                raise UserError(
                    name, "another search has this name", rule="a search keeps its file"
                )
            if record.fingerprint != fingerprint:
                raise UserError(
                    name,
                    "was begun with other data",
                    got=fingerprint[:16],
                    rule=f"a search keeps its data, with the fingerprint {record.fingerprint[:16]}",
                    remedy=f"prepare them at {spec.data.train} again, or begin another search",
                )
            return known
        study_history.keep(study, taken)
        study.set_user_attr("fingerprint", fingerprint)
        study.set_user_attr("created_ms", (clock or now_ms)())
        study.set_user_attr("spec", spec.model_dump(mode="json"))  # last: now it is a search
        return Study(study, clock)

    def open(self, name: str, clock: Callable[[], int] | None = None) -> Study:
        """A search by its name.

        Raises:
            UserError: there is none.
        """
        names = self.names()
        if name not in names:
            known = f"known: {', '.join(names[-5:])}" if names else "there are no searches yet"
            raise UserError(name, "no such search", rule=known, remedy="see `hopetune ls`")
        return Study(self._load(name), clock)

    def records(self, fingerprint: str | None = None) -> list[SearchRecord]:
        """All that is known of all searches, or of those on one data set; the oldest first."""
        studies = self._fresh().get_all_studies()
        found = [
            s.study_name
            for s in studies
            if "spec" in s.user_attrs and fingerprint in (None, s.user_attrs.get("fingerprint"))
        ]
        records = [Study(self._load(name)).record() for name in found]
        return sorted(records, key=lambda record: record.created_ms)

    def _load(self, name: str) -> optuna.Study:
        return optuna.load_study(storage=self._fresh(), sampler=RandomSampler(), study_name=name)


@contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        why = away(error)
        if why is None:
            raise
        raise unreachable(why) from None
