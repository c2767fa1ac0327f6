"""The attempts that go on now: which worker has which trial. Written into the study as they come
and go, so that their number, their nodes and their ends outlive the driver."""

from collections.abc import Callable
from dataclasses import replace

from tuning.exits import ExitReason
from tuning.records import Attempt
from tuning.study import Study


class Running:
    """Whoever reports names its attempt; only the latest one of a trial is listened to."""

    def __init__(self, study: Study, clock: Callable[[], int]) -> None:
        self._study = study
        self._clock = clock
        self._now: dict[int, Attempt] = {}
        self._last: dict[int, int] = {}
        """Numbers of the latest attempts; the study may not know of one that no worker had."""

    def begin(self, trial: int) -> int:
        """A trial is handed out; returns the number of the attempt."""
        kept = self._study.attempts(trial)
        number = max(kept[-1].number if kept else 0, self._last.get(trial, 0)) + 1
        self._last[trial] = number
        self._now[trial] = Attempt(number, self._clock())
        return number

    def placed(self, trial: int, number: int, node: str, pid: int) -> None:
        """A worker process has it."""
        if self.has(trial, number):
            self._now[trial] = replace(self._now[trial], node=node, pid=pid)
            self._study.record_attempt(trial, self._now[trial])

    def has(self, trial: int, number: int) -> bool:
        """Whether this attempt is the one that goes on."""
        attempt = self._now.get(trial)
        return attempt is not None and attempt.number == number

    def end(self, trial: int, cause: ExitReason, detail: str | None) -> tuple[Attempt, ...]:
        """The attempt ended before its trial did; returns all attempts at the trial."""
        ended = replace(self._now.pop(trial), ended_ms=self._clock(), cause=cause, detail=detail)
        self._study.record_attempt(trial, ended)
        return self._study.attempts(trial)

    def leave(self, trial: int) -> None:
        """The trial is over or rests, and with it the attempt."""
        self._now.pop(trial, None)

    def left_behind(self, trial: int) -> None:
        """Notes that a dead driver's attempt at an adopted trial, if there was one, is over."""
        kept = self._study.attempts(trial)
        if kept and kept[-1].ended_ms is None:
            ended = replace(
                kept[-1],
                ended_ms=self._clock(),
                cause=ExitReason.PREEMPTED,
                detail="its driver ended",
            )
            self._study.record_attempt(trial, ended)
