"""The one door to Optuna. The study is the one source of truth of a search.

Everything known of a search lies here: its frozen file, the fingerprint of its data, each trial's
parameters, its value after every epoch, its metrics, why it ended. The driver is the only writer
and can be rebuilt from this at any moment.
"""

import copy
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, cast

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuning import study_history
from tuning.distributions import distribution
from tuning.exits import FATES, ExitReason
from tuning.extension import with_begun
from tuning.grid import configuration
from tuning.records import Attempt, EpochRecord, SearchRecord, TrialRecord, orphaned
from tuning.samplers import propose
from tuning.space import Settings
from tuning.spec import SearchSpec
from tuning.study_entry import Entry
from tuning.study_records import (
    ATTEMPT,
    BEGUN_AFTER,
    CONTINUES,
    EPOCH,
    number_of,
    trial_records,
)
from tuning.study_storage import TOKEN, InMemory, Remembering
from tuning.study_view import Finished

optuna.logging.set_verbosity(optuna.logging.WARNING)


_EARLIER = "earlier_specs"


class Study:
    """One search. Only its driver calls the methods that write, ``want_stop`` aside.

    Optuna forbids to go on with a trial that it was told is over. So each stretch of a trial, from
    its start or from a pause to the next pause or its end, is an entry of its own in the study; a
    later one begins with all that the earlier ones reported and names the trial's first number.
    """

    def __init__(self, study: optuna.Study, clock: Callable[[], int] | None = None) -> None:
        self._study = study
        self._storage = cast("Remembering | InMemory", study._storage)
        self._clock = clock or now_ms
        self.name = study.study_name
        self.spec = SearchSpec.model_validate(_tuples(study.user_attrs["spec"]))
        earlier = study_history.history(study, self.spec) if self.spec.warm_start else []
        self.files_before = tuple(
            (kept["until_ms"], SearchSpec.model_validate(_tuples(kept["spec"])))
            for kept in study.user_attrs.get(_EARLIER, [])
        )
        """Its search files before it was extended, and until when each was in force."""
        placed = (self._placed,) if self.files_before else ()
        self._sampled_from = Finished(study, self.spec.budget.epochs, earlier, *placed)
        self._open: dict[int, Entry] = {}
        trials = self._trials()
        self._entry_of = {number_of(t): t.number for t in trials}
        """The latest entry of each trial."""
        self._known = {configuration(dict(t.params)) for t in trials}

    # -- what the driver writes ----------------------------------------------------------------

    def ask(self) -> tuple[int, Settings] | None:
        """The next configuration, none where the space holds no more; see ``tuning.samplers``."""
        index = len(self._entry_of)
        self._sampled_from.look()
        settings = propose(self.spec, index, self._sampled_from, self._known)
        if settings is None:
            return None
        attributes = {"started_ms": self._clock(), "tried_first": index < len(self.spec.try_first)}
        number = self._begin(settings, attributes, {}, self._sampled_from.notes)
        self._entry_of[number] = number
        self._known.add(configuration(settings))
        return number, settings

    def take_up(self, number: int) -> Settings:
        """Goes on with a trial that was paused, interrupted, or complete for a shorter horizon;
        returns its settings."""
        paused = self._trials()[self._entry_of[number]]
        attributes = {
            name: value
            for name, value in paused.user_attrs.items()
            if name not in ("exit_reason", "detail", "ended_ms")
        }
        attributes |= {
            CONTINUES: number,
            BEGUN_AFTER: max(paused.intermediate_values, default=0),
            "started_ms": self._clock(),
        }
        settings = dict(paused.params)
        values, notes = paused.intermediate_values, paused.system_attrs
        entry = self._begin(settings, attributes, values, notes)
        self._open[number] = self._open.pop(entry)
        self._entry_of[number] = entry
        return settings

    def adopt(self) -> list[tuple[int, Settings]]:
        """The trials that a dead driver left running, to be gone on with under their numbers."""
        found = self._running()
        for record in trial_records(found):
            if ended := orphaned(record):
                self.record_attempt(record.number, ended)
        return [(number_of(trial), dict(trial.params)) for trial in found]

    def _running(self) -> list[FrozenTrial]:
        left = [t for t in self._trials() if t.state == TrialState.RUNNING]
        for trial in left:
            self._open[number_of(trial)] = Entry(
                trial._trial_id, trial.number, trial.user_attrs, trial.intermediate_values
            )
        return left

    def is_open(self, number: int) -> bool:
        """Whether a trial that this driver asked for or adopted has not been ended yet."""
        return number in self._open

    def open_trials(self) -> set[int]:
        """The trials that this driver asked for or adopted and that have not been ended yet."""
        return set(self._open)

    def record_epoch(self, number: int, record: EpochRecord) -> bool:
        """Keeps an epoch as it is first reported, and with a trial's last one, in the same write,
        that its worker is free; says whether the epoch was new."""
        entry = self._open[number]
        is_new = record.epoch not in entry.epochs
        attributes: dict[str, Any] = {}
        values: dict[int, float] = {}
        if is_new:
            attributes[f"{EPOCH}{record.epoch:04d}"] = {
                "at_ms": record.at_ms,
                "metrics": record.metrics,
                "checkpoint": record.checkpoint_key,
                "restored": record.restored,
            }
            values[record.epoch] = record.metrics["val_mae"]
        latest = entry.attempt_going_on
        if latest is not None and record.epoch >= self.spec.budget.epochs:
            latest = replace(latest, ended_ms=record.at_ms)
            attributes |= _attempt(latest)
        if attributes:
            self._storage.write_trial(entry.id, attributes, values)
        if is_new:
            entry.add(record.epoch, record.metrics, record.checkpoint_key)
        if latest is not None:
            entry.attempts[latest.number] = latest
        return is_new

    def contradicts(self, number: int, record: EpochRecord) -> bool:
        """Whether an epoch was known before as that of another training."""
        return self._open[number].epochs.get(record.epoch, record.checkpoint_key) != (
            record.checkpoint_key
        )

    def record_attempt(self, number: int, attempt: Attempt) -> None:
        """Keeps an attempt at a trial as it stands now."""
        entry = self._open[number]
        self._storage.write_trial(entry.id, _attempt(attempt))
        entry.attempts[attempt.number] = attempt

    def record_avoided_nodes(self, avoided: dict[str, str]) -> None:
        """Keeps which nodes get no trials any more, each with the reason in words."""
        self._study.set_user_attr("avoided_nodes", avoided)

    def note_gpus(self) -> None:
        """Keeps that the cluster had the GPUs which this search asks for."""
        if not self.has_had_gpus:
            self._study.set_user_attr("has_had_gpus", True)

    @property
    def has_had_gpus(self) -> bool:
        """Whether a driver of this search, this one or one before it, found enough GPUs."""
        return bool(self._study.user_attrs.get("has_had_gpus", False))

    def attempts(self, number: int) -> tuple[Attempt, ...]:
        """The attempts that were kept of an open trial, in their order."""
        kept = self._open[number].attempts
        return tuple(kept[n] for n in sorted(kept))

    def decided_until(self, number: int) -> int:
        """Epochs up to this one have been judged: a trial that was taken up does not pause there
        again."""
        return self._open[number].begun_after

    def last_epoch(self, number: int) -> int:
        """The latest epoch that is known of an open trial; 0 before its first."""
        return max(self._open[number].epochs, default=0)

    def best_checkpoint(self, number: int) -> str | None:
        """The key of the best epoch that is known of an open trial."""
        return self._open[number].best_checkpoint

    def trained_s(self, number: int) -> float:
        """How long all epochs that are known of an open trial took."""
        return self._open[number].trained_s

    def finish(self, number: int, reason: ExitReason, detail: str | None = None) -> None:
        """Ends a stretch of a trial; a completed one's value is its best validation MAE, with the
        other objectives as its last epoch reported them."""
        entry = self._open.pop(number)
        now = self._clock()
        attributes = {"exit_reason": reason.value, "detail": detail or None, "ended_ms": now}
        if (going_on := entry.attempt_going_on) is not None:
            attributes |= _attempt(replace(going_on, ended_ms=now))
        self._storage.write_trial(entry.id, attributes)
        if reason == ExitReason.OUT_OF_MEMORY:
            # As Optuna has it: above zero is infeasible, and samplers keep away from it.
            optuna.trial.Trial(self._study, entry.id).set_constraint("fits_into_memory", 1.0)
        state = TrialState[FATES[reason].study_state]
        values = entry.values(self.spec.objectives) if state == TrialState.COMPLETE else None
        self._study.tell(entry.number, values, state=state)

    def finish_running(self, reason: ExitReason, detail: str) -> None:
        """Ends every trial that is still running."""
        for trial in self._running():
            self.finish(number_of(trial), reason, detail)

    def end(self, why: str) -> None:
        """Ends the search; the first end counts."""
        if self._study.user_attrs.get("ended") is None:
            self._study.set_user_attr("ended_ms", self._clock())
            self._study.set_user_attr("ended", why)

    def extend(self, spec: SearchSpec) -> None:
        """Changes the search file and keeps the one before; open the study again to go on with it.

        What a dead driver left running outside the new bounds is over.
        """
        spec = with_begun(spec, self.spec, len(self._entry_of))
        kept = self._study.user_attrs.get(_EARLIER, [])
        before = self._study.user_attrs["spec"]
        if not kept or kept[-1]["spec"] != before:  # else a process died between these two writes
            kept = [*kept, {"until_ms": self._clock(), "spec": before}]
            self._study.set_user_attr(_EARLIER, kept)
        for trial in self._running():
            if not spec.holds(dict(trial.params)):
                why = "outside the bounds of the extended search"
                self.finish(number_of(trial), ExitReason.SEARCH_ENDED, why)
        self._study.set_user_attr("spec", spec.model_dump(mode="json"))

    def reopen(self) -> None:
        """Takes the end back, and the wish for it, so that the search goes on."""
        for name, value in (("stop_wanted", False), ("ended", None), ("ended_ms", None)):
            self._study.set_user_attr(name, value)

    # -- what others may write -----------------------------------------------------------------

    def want_stop(self) -> None:
        """Asks the driver, wherever it runs, to end the search."""
        self._study.set_user_attr("stop_wanted", True)

    # -- reading -------------------------------------------------------------------------------

    def earlier(self) -> list[str]:
        """What was taken from each earlier search, in words."""
        return study_history.notes(self._study) if self.spec.warm_start else []

    def stop_wanted(self) -> bool:
        return bool(self._study.user_attrs.get("stop_wanted", False))

    def trial(self, number: int) -> TrialRecord:
        """What is known of one trial now."""
        return trial_records([t for t in self._trials() if number_of(t) == number])[0]

    def record(self) -> SearchRecord:
        """All that is known of the search now."""
        attributes = self._study.user_attrs
        trials = self._trials()
        return SearchRecord(
            name=self.name,
            spec=self.spec,
            fingerprint=attributes["fingerprint"],
            created_ms=attributes["created_ms"],
            ended=attributes.get("ended"),
            ended_ms=attributes.get("ended_ms"),
            trials=trial_records(trials),
            earlier=self.files_before,
            avoided_nodes=attributes.get("avoided_nodes", {}),
        )

    def _begin(
        self,
        settings: Settings,
        attributes: dict[str, Any],
        values: dict[int, float],
        notes: dict[str, Any],
    ) -> int:
        """A new running entry, written in one step; returns its number. ``notes`` are those of the
        sampler that proposed it."""
        parameters = self.spec.parameters
        template = create_trial(
            state=TrialState.RUNNING,
            params=settings,
            distributions={name: distribution(name, parameters[name]) for name in settings},
            user_attrs=attributes | {TOKEN: uuid.uuid4().hex},
            system_attrs=dict(notes),
            intermediate_values=values,
        )
        trial_id = self._storage.create_new_trial(self._study._study_id, template)
        number = self._storage.get_trial_number_from_id(trial_id)
        self._open[number] = Entry(trial_id, number, attributes, values)
        return number

    def _placed(self, trial: FrozenTrial) -> FrozenTrial | None:
        """A trial with the bounds that hold now, for samplers compare them; none outside them."""
        if not self.spec.holds(dict(trial.params)):
            return None
        shown = copy.copy(trial)
        parameters = self.spec.parameters
        shown.distributions = {name: distribution(name, parameters[name]) for name in trial.params}
        return shown

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {f"{ATTEMPT}{attempt.number:04d}": asdict(attempt)}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _tuples(value: Any) -> Any:
    """JSON lists back to the tuples of a strict, frozen spec."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return value
