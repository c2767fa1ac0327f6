"""The one door to Optuna. The study is the one source of truth of a search.

Everything known of a search lies here: its frozen file, the fingerprint of its data, each trial's
parameters, its value after every epoch, its metrics, why it ended. The driver is the only writer
and can be rebuilt from this at any moment.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Self

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import DuplicatedStudyError
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import OperationalError

from tuning.exits import FATES, ExitReason
from tuning.records import EpochRecord, SearchRecord, TrialRecord
from tuning.spec import Choices, Parameter, Sampler, SearchSpec, Value, field_kind
from usererror import UserError

optuna.logging.set_verbosity(optuna.logging.WARNING)

_EPOCH = "epoch:"


class Storage:
    """The database in which studies lie.

    Raises:
        UserError: it cannot be reached.
    """

    def __init__(self, url: str) -> None:
        with _reachable():
            engine: dict[str, Any] = {"pool_pre_ping": True}
            self._storage = RDBStorage(url, engine_kwargs=engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives its connections back; studies opened through it are of no more use."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def names(self) -> list[str]:
        """Names of all searches, the oldest first."""
        with _reachable():
            studies = self._storage.get_all_studies()
        found = [s for s in studies if "spec" in s.user_attrs]
        return [s.study_name for s in sorted(found, key=lambda s: s.user_attrs["created_ms"])]

    def create(self, name: str, spec: SearchSpec, fingerprint: str) -> "Study":
        """A new search, or the one of that name where it is the same.

        Raises:
            UserError: there is another search of that name.
        """
        try:
            with _reachable():
                study = optuna.create_study(
                    storage=self._storage, study_name=name, direction="minimize"
                )
        except DuplicatedStudyError:
            known = self.open(name)
            record = known.record()
            if record.spec != spec or record.fingerprint != fingerprint:
                rule = "a search keeps its file and its data"
                raise UserError(name, "another search has this name", rule=rule) from None
            return known
        study.set_user_attr("fingerprint", fingerprint)
        study.set_user_attr("created_ms", now_ms())
        for settings in spec.try_first:
            study.enqueue_trial(dict(settings))
        study.set_user_attr("spec", spec.model_dump(mode="json"))  # last: now it is a search
        return Study(study)

    def open(self, name: str) -> "Study":
        """A search by its name.

        Raises:
            UserError: there is none.
        """
        names = self.names()
        if name not in names:
            known = f"known: {', '.join(names[-5:])}" if names else "there are no searches yet"
            raise UserError(name, "no such search", rule=known, remedy="see `hopetune ls`")
        with _reachable():
            return Study(optuna.load_study(storage=self._storage, study_name=name))


class Study:
    """One search. Only its driver calls the methods that write, ``want_stop`` aside."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self.name = study.study_name
        self.spec = SearchSpec.model_validate(_tuples(study.user_attrs["spec"]))
        self._open: dict[int, Trial] = {}

    # -- what the driver writes ----------------------------------------------------------------

    def ask(self) -> tuple[int, dict[str, Value]]:
        """The next configuration. Depends on the study alone: each proposal has a seed of its own,
        so a driver that starts again proposes what the one before it would have."""
        begun = sum(t.state != TrialState.WAITING for t in self._trials())
        self._study.sampler = _sampler(self.spec.sampler, begun)
        trial = self._study.ask(fixed_distributions=_distributions(self.spec))
        self._open[trial.number] = trial
        return trial.number, dict(trial.params)

    def adopt(self) -> list[tuple[int, dict[str, Value]]]:
        """The trials that a dead driver left running, to be gone on with under their numbers."""
        left = [t for t in self._trials() if t.state == TrialState.RUNNING]
        for trial in left:
            self._open[trial.number] = Trial(self._study, trial._trial_id)
        return [(trial.number, dict(trial.params)) for trial in left]

    def is_open(self, number: int) -> bool:
        """Whether a trial that this driver asked for or adopted has not been ended yet."""
        return number in self._open

    def record_epoch(self, number: int, record: EpochRecord) -> bool:
        """Keeps an epoch as it is first reported; says whether it was new."""
        trial = self._open[number]
        name = f"{_EPOCH}{record.epoch:04d}"
        if name in trial.user_attrs:
            return False
        trial.report(record.metrics["val_mae"], record.epoch)
        trial.set_user_attr(
            name,
            {
                "at_ms": record.at_ms,
                "metrics": record.metrics,
                "checkpoint": record.checkpoint_key,
                "restored": record.restored,
            },
        )
        return True

    def record_node(self, number: int, node: str) -> None:
        self._open[number].set_user_attr("node", node)

    def finish(self, number: int, reason: ExitReason, detail: str | None = None) -> None:
        """Ends a trial for good; its value is its best validation MAE."""
        trial = self._open.pop(number)
        trial.set_user_attr("exit_reason", reason.value)
        if detail:
            trial.set_user_attr("detail", detail)
        state = TrialState[FATES[reason].study_state]
        value = None
        if state == TrialState.COMPLETE:
            value = self.trial(number).value
        self._study.tell(number, value, state=None if value is not None else state)

    def finish_running(self, reason: ExitReason, detail: str) -> None:
        """Ends every trial that is still running."""
        for number, _ in self.adopt():
            self.finish(number, reason, detail)

    def end(self, why: str) -> None:
        self._study.set_user_attr("ended", why)
        self._study.set_user_attr("ended_ms", now_ms())

    # -- what others may write -----------------------------------------------------------------

    def want_stop(self) -> None:
        """Asks the driver, wherever it runs, to end the search."""
        self._study.set_user_attr("stop_wanted", True)

    # -- reading -------------------------------------------------------------------------------

    def stop_wanted(self) -> bool:
        return bool(self._study.user_attrs.get("stop_wanted", False))

    def trial(self, number: int) -> TrialRecord:
        return _trial_record(self._trials()[number])

    def record(self) -> SearchRecord:
        """All that is known of the search now."""
        with _reachable():
            attributes = self._study.user_attrs
            trials = self._trials()
        return SearchRecord(
            name=self.name,
            spec=self.spec,
            fingerprint=attributes["fingerprint"],
            created_ms=attributes["created_ms"],
            ended=attributes.get("ended"),
            ended_ms=attributes.get("ended_ms"),
            stop_wanted=bool(attributes.get("stop_wanted", False)),
            trials=tuple(_trial_record(t) for t in trials),
        )

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _trial_record(trial: FrozenTrial) -> TrialRecord:
    attributes = trial.user_attrs
    epochs = tuple(
        EpochRecord(
            epoch=int(name.removeprefix(_EPOCH)),
            at_ms=value["at_ms"],
            metrics=value["metrics"],
            checkpoint_key=value["checkpoint"],
            restored=value["restored"],
        )
        for name, value in sorted(attributes.items())
        if name.startswith(_EPOCH)
    )
    reason = attributes.get("exit_reason")
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,  # type: ignore[arg-type]
        parameters=dict(trial.params),
        epochs=epochs,
        started_ms=_ms(trial.datetime_start),
        ended_ms=_ms(trial.datetime_complete),
        exit_reason=ExitReason(reason) if reason else None,
        detail=attributes.get("detail"),
        node=attributes.get("node"),
    )


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)


def _sampler(settings: Sampler, proposal: int) -> BaseSampler:
    seed = int(np.random.SeedSequence((settings.seed, proposal)).generate_state(1)[0])
    if settings.name == "random":
        return RandomSampler(seed=seed)
    return TPESampler(
        n_startup_trials=settings.startup_trials,
        multivariate=False,
        constant_liar=False,
        seed=seed,
    )


def _distributions(spec: SearchSpec) -> dict[str, BaseDistribution]:
    return {name: _distribution(name, p) for name, p in spec.parameters.items()}


def _distribution(name: str, parameter: Parameter) -> BaseDistribution:
    if isinstance(parameter, Choices):
        return CategoricalDistribution(parameter.choices)
    if field_kind(name) is int:
        step = int(parameter.step or 1)
        return IntDistribution(int(parameter.low), int(parameter.high), parameter.log, step)
    return FloatDistribution(parameter.low, parameter.high, parameter.log, parameter.step)


def _tuples(value: Any) -> Any:
    """JSON lists back to the tuples of a strict, frozen spec."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return value


@contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise UserError(
            "settings.study_url",
            "the study database cannot be reached",
            got=str(error.orig).strip().splitlines()[0],
            remedy="check that it is up (`hopetune status`)",
        ) from None
