"""The attempts that go on now: which worker has which trial. Written into the study as they come
and go, so that their number, their nodes and their ends outlive the driver."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from tuning.exits import ExitReason
from tuning.records import Attempt, EpochRecord
from tuning.stalls import Pace, limit_s, longest
from tuning.study import Study

LONGEST_LOOK_S = 5.0
"""What passes between two looks for hung workers counts at most so much as their silence: a driver
that waited for its database, or slept with its machine, has not listened either. Untuned; it looks
ten times a second."""


class Running:
    """Whoever reports names its attempt; only the latest one of a trial is listened to."""

    def __init__(self, study: Study, clock: Callable[[], int]) -> None:
        self._study = study
        self._clock = clock
        self._now: dict[int, Attempt] = {}
        self._last: dict[int, int] = {}
        """Numbers of the latest attempts; the study may not know of one that no worker had."""
        self._silence_s: dict[int, float] = {}
        """For how long each attempt that a worker has was listened to in vain."""
        self._looked_ms: int | None = None
        self._has_reported: set[int] = set()
        trials = study.record().trials
        self._own_s = {t.number: longest(_trained_s(t.epochs)) for t in trials}
        self._longest_s = longest(s for s in self._own_s.values() if s is not None)

    def begin(self, trial: int) -> int:
        """A trial is handed out; returns the number of the attempt."""
        kept = self._study.attempts(trial)
        number = max(kept[-1].number if kept else 0, self._last.get(trial, 0)) + 1
        self._last[trial] = number
        self._now[trial] = Attempt(number, self._clock())
        return number

    def placed(self, trial: int, number: int, node: str, pid: int) -> None:
        """A worker process has the attempt that goes on, and holds it from now on."""
        self._now[trial] = Attempt(number, self._clock(), node, pid)
        self._study.record_attempt(trial, self._now[trial])
        self._silence_s[trial] = 0.0

    def heard(self, trial: int, record: EpochRecord) -> None:
        """A report came from the attempt at a trial."""
        self._silence_s[trial] = 0.0
        self._has_reported.add(trial)
        if found := _trained_s((record,)):
            self._own_s[trial] = max(found[0], self._own_s.get(trial) or 0.0)
            self._longest_s = max(found[0], self._longest_s or 0.0)

    def silent(self) -> list[tuple[int, int, str]]:
        """Trials, attempts and words for those whose workers count as hung."""
        now_ms, found = self._clock(), []
        passed_s = (now_ms - (self._looked_ms or now_ms)) / 1000
        self._looked_ms = now_ms
        for trial in self._silence_s:
            self._silence_s[trial] += min(max(0.0, passed_s), LONGEST_LOOK_S)
            silence_s = self._silence_s[trial]
            begins = trial not in self._has_reported
            pace = Pace(self._own_s.get(trial), self._longest_s)
            if silence_s > limit_s(pace, begins, self._study.spec.resources):
                attempt = self._now[trial]
                words = f"silent for {silence_s:.0f} s on {attempt.node}"
                found.append((trial, attempt.number, words))
        return found

    def has(self, trial: int, number: int) -> bool:
        """Whether this attempt is the one that goes on."""
        attempt = self._now.get(trial)
        return attempt is not None and attempt.number == number

    def end(self, trial: int, cause: ExitReason, detail: str | None) -> tuple[Attempt, ...]:
        """The attempt ended before its trial did; returns all attempts at the trial."""
        attempt = self._now[trial]
        ended = replace(attempt, ended_ms=self._clock(), cause=cause, detail=detail)
        self.leave(trial)
        self._study.record_attempt(trial, ended)
        return self._study.attempts(trial)

    def leave(self, trial: int) -> None:
        """The attempt is over: its trial is trained, over, or rests."""
        self._now.pop(trial, None)
        self._silence_s.pop(trial, None)
        self._has_reported.discard(trial)

    def over(self, trial: int, cause: ExitReason, detail: str) -> tuple[Attempt, ...]:
        """Notes that the latest attempt at a trial, which no worker has any more, came to nothing;
        returns all attempts at the trial."""
        kept = self._study.attempts(trial)
        if kept and kept[-1].cause is None:
            self._study.record_attempt(trial, replace(kept[-1], cause=cause, detail=detail))
        return self._study.attempts(trial)


def _trained_s(epochs: Sequence[EpochRecord]) -> list[float]:
    """Seconds that epochs took, those left out that were not trained but found."""
    trained = (e.metrics for e in epochs if not e.restored)
    return [metrics["epoch_seconds"] for metrics in trained if "epoch_seconds" in metrics]
