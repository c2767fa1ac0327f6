"""The decisions of a search: what is trained next, what goes on, what pauses, when it ends.

Events come in, decisions go out, and the study is written; nobody else writes it. Whoever runs the
trials is behind ``tuning.events``: Ray Tune, or the simulator with its virtual clock. All that is
kept here for speed (rule, ledger) is rebuilt from the study at the start.
"""

from collections.abc import Callable, Collection
from typing import Protocol

from tuning.attempts import GOES_ON_AFTER, is_over
from tuning.budget import ended_by, proposals_ended_by, target_reached
from tuning.causes import WORKER_IS_WELL
from tuning.events import Idle, Work
from tuning.exits import FATES, ExitReason
from tuning.going_on import unfinished, within
from tuning.grid import ALL_TRIED
from tuning.ledger import Ledger
from tuning.placing import RETURN_S, Placing
from tuning.records import Attempt, EpochRecord, SearchRecord
from tuning.rules import is_diverged, note_end, rebuilt
from tuning.rules.base import Verdict
from tuning.running import Running
from tuning.space import Settings
from tuning.storing import PATIENCE_S, SETTLE_S, AtOnce, Storing
from tuning.study import Study, now_ms

POLL_MS = 1000
"""How often the wish to stop and the budget are looked at; untuned."""


class Progress(Protocol):
    """Who is told what happens."""

    def line(self, text: str) -> None: ...
    def started(self, number: int, parameters: Settings) -> None: ...
    def goes_on(self, number: int) -> None: ...
    def epoch(self, number: int, total: int, record: EpochRecord) -> None: ...
    def ended(
        self,
        search: Callable[[], SearchRecord],
        number: int,
        reason: ExitReason,
        detail: str | None,
    ) -> None: ...


class Conductor:
    """Decides from the study, and is its only writer; implements ``PlacedEvents``."""

    def __init__(
        self,
        study: Study,
        progress: Progress,
        storing: Storing | AtOnce,
        clock: Callable[[], int] = now_ms,
        nodes: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._storing = storing
        self._study = study
        self._spec = study.spec
        self._progress = progress
        self._clock = clock
        self._running = Running(study, clock)
        self._waiting = study.adopt()
        """Trials that go on as soon as a worker is free."""
        record = study.record()
        self._nodes = nodes
        self._placing = Placing(study, nodes, progress.line, clock)
        self._rule = rebuilt(self._spec.stopping, self._spec.budget.epochs, within(record))
        self._unfinished = [t.number for t in unfinished(record)]
        self._ledger = Ledger.of(record)
        self._protected = {t.number for t in record.trials if t.tried_first}
        self._no_more: str | None = None
        """Why nothing new is proposed any more."""
        self._end: str | None = None
        self.hopeless: str | None = None
        """Why no node of the cluster is left that trains anything, in words."""
        self._at_once = False
        self._is_stopped = False
        self._closed = False
        self._polled_ms: int | None = None
        self._winner: int | None = None
        """The trial that has reached the target, and alone goes on."""
        last = self._spec.budget.epochs
        # These need a worker for a moment only, to see what is stored.
        self._look_for_winner({n for n in study.open_trials() if study.last_epoch(n) >= last})

    @property
    def ended_by(self) -> str:
        """Why no trial runs any more, in words."""
        if self._end:
            return self._end
        left = self._ledger.running
        if left:
            return f"interrupted with {left} trials running"
        return self._no_more or "all trials done"

    def next_trial(self) -> Work | Idle:
        """First what lost its worker or its driver or was interrupted by the search's end, then
        paused trials that came to lead their rung, then new proposals while the budget lasts."""
        self._settle()
        if self._end:
            return Idle.DONE
        if self._waiting:
            number, settings = self._waiting.pop(0)
            self._progress.goes_on(number)
            return self._handed_out(number, settings)
        if self._unfinished:
            return self._goes_on(self._unfinished.pop(0))
        return self._taken_up(closing=False) or self._proposed() or self._last()

    def on_start(self, number: int, attempt: int, node: str, pid: int) -> None:
        if self._running.has(number, attempt):
            self._running.placed(number, attempt, node, pid)
            self._ledger.holds(number, self._clock())

    def on_epoch(self, number: int, attempt: int, record: EpochRecord) -> bool:
        """Keeps the epoch, then lets divergence, the plan and the early-stopping rule speak."""
        if not self._running.has(number, attempt):
            return False  # a worker that was given up still speaks
        if self._study.contradicts(number, record):
            # It would become a mixture of two trainings.
            why = "other ImageNet weights, or another version, than the trial was begun with"
            self.on_end(number, attempt, ExitReason.UNFIT_NODE, why)
            return False
        self._running.heard(number, record)
        value = record.metrics["val_mae"]
        if self._study.record_epoch(number, record):
            self._ledger.epoch(number, value, record.at_ms, restored=record.restored)
            self._rule.enter(number, record.epoch, value)
        self._progress.epoch(number, self._spec.budget.epochs, record)
        self._look_for_winner()
        fate = self._fate(number, record.epoch, value)
        if fate is None:
            return True
        reason, detail = fate
        if reason == ExitReason.COMPLETED:
            self._running.leave(number)
            self._ledger.releases(number, self._clock())
            best = self._study.best_checkpoint(number) or record.checkpoint_key
            self._storing.add(number, record.checkpoint_key, best)
            self._settle()  # complete as soon as these are stored; its worker is free already
        else:
            self._finish(number, reason, detail)
        return False

    def on_note(self, number: int, text: str) -> None:
        self._progress.line(f"trial {number:>3} {text}")

    def on_end(self, number: int, attempt: int, cause: ExitReason, detail: str | None) -> None:
        if not self._running.has(number, attempt):
            return
        if cause not in GOES_ON_AFTER:
            self._finish(number, cause, detail)
            return
        self._ledger.releases(number, self._clock())
        self._goes_on_after(number, cause, detail, self._running.end(number, cause, detail))

    def _goes_on_after(
        self, number: int, cause: ExitReason, detail: str | None, attempts: tuple[Attempt, ...]
    ) -> None:
        """The last of a trial's attempts came to nothing: there is another one, or it is over."""
        hopeless = self._placing.judge()
        no_node_is_left = self._placing.avoid(attempts) is None
        if no_node_is_left and cause == ExitReason.UNFIT_NODE:
            # Nor would other trials fare better. This one goes on with the search, once it can.
            self._progress.line(f"trial {number:>3} cannot go on: {detail}")
            hopeless = "no node has what a training needs"
        elif (no_node_is_left and cause == ExitReason.DISK_FULL) or is_over(
            cause, attempts, self._spec.resources, self._placing.avoided
        ):
            # After other causes a node that was unfit hours ago is better than none: it may have
            # been mended, and says so at once if not.
            self._finish(number, cause, detail)
        if hopeless:
            self.hopeless = hopeless
            self.ask_to_end(hopeless)
        if self._end or not self._study.is_open(number):
            return
        if self._winner not in (None, number):
            self._cut_off({number}, f"trial {self._winner} has reached the target")
            return
        why = detail or FATES[cause].meaning
        attempt = 1 + max((a.number for a in attempts), default=0)
        self._progress.line(f"trial {number:>3} goes on elsewhere: {why} (attempt {attempt})")
        trial = self._study.trial(number)
        # A worker that is well uploads by itself what it has trained.
        is_gone = cause not in WORKER_IS_WELL
        if is_gone and trial.epochs and attempts and attempts[-1].node:
            self._storing.bring(trial.epochs[-1].checkpoint_key, attempts[-1].node)
        self._waiting.append((number, trial.parameters))

    def _finish(self, number: int, reason: ExitReason, detail: str | None) -> None:
        if not self._study.is_open(number):
            return
        self._running.leave(number)
        last_epoch = self._study.last_epoch(number)
        self._study.finish(number, reason, detail)
        self._ledger.ends(number, self._clock())
        note_end(self._rule, number, reason, last_epoch)
        self._progress.ended(self._study.record, number, reason, detail)

    def has_place(self, avoid: Collection[str]) -> bool:
        """Whether a node is left, or may come back, that is none of these."""
        return self._placing.has_place(avoid)

    def hung(self) -> list[tuple[int, int]]:
        """Trials and attempts whose workers must be killed now; the trials go on elsewhere."""
        found = self._running.silent()
        for number, attempt, words in found:
            self.on_end(number, attempt, ExitReason.STALLED, words)
        return [(number, attempt) for number, attempt, _ in found]

    def ask_to_end(self, why: str, at_once: bool = False) -> None:
        """``at_once``: whoever asks may kill this process in seconds, so nothing is waited for."""
        self._end = self._end or why
        self._at_once = self._at_once or at_once

    def must_end(self) -> bool:
        """Whether running trials must stop now: asked to, or a budget used up."""
        self._settle()
        now = self._clock()
        # A clock that was set back counts as time that has passed, here and below.
        if self._polled_ms is None or abs(now - self._polled_ms) >= POLL_MS:
            self._polled_ms = now
            self._is_stopped = self._study.stop_wanted()
            if self._is_stopped:
                self.ask_to_end("stopped by its user")
            elif why := ended_by(self._spec.budget, self._ledger.usage(now, self._unfinished)):
                self.ask_to_end(why)
        if self._end is not None and not self._closed:
            self._close(self._end)
        return self._end is not None

    def _close(self, why: str) -> None:
        """Writes the end into the study before any worker has heard of it: whatever is killed from
        here on, the study is whole. Trials that only wait to be stored have their time."""
        self._closed = True
        waiting = set() if self._at_once else self._storing.numbers()
        self._cut_off(self._study.open_trials() - waiting, why)
        self._study.end(why)
        self._progress.line(f"the search ends: {why}")

    def _cut_off(self, numbers: Collection[int], why: str) -> None:
        for number in numbers:
            self._running.leave(number)
            self._study.finish(number, ExitReason.SEARCH_ENDED, why)
            self._ledger.ends(number, self._clock())

    def _look_for_winner(self, trained: Collection[int] = ()) -> None:
        """Once the target is reached, cuts off all but the trial that reached it, which trains on
        to its last epoch; the search ends when it is over. To be asked at the start as well: the
        driver before this one may have died in the middle of it, and ``trained`` are the trials
        that it left with nothing to train."""
        why = target_reached(self._spec.budget, self._ledger.best_mae_deg)
        if why is None or self._winner is not None:
            return
        winner = self._winner = self._ledger.best_trial
        self._progress.line(f"{why}; nothing is trained any more but trial {winner}")
        self._unfinished = [number for number in self._unfinished if number == winner]
        spared = {winner, *trained, *self._storing.numbers()}
        self._waiting = [waiting for waiting in self._waiting if waiting[0] in spared]
        self._cut_off(self._study.open_trials() - spared, why)

    def has_lost_checkpoints(self) -> bool:
        """To be asked when no worker is left: whether trials must run again, whose checkpoints are
        neither stored nor on any node's disk. They are next. What lies on a disk is waited for,
        however long the store is away, unless the search is stopped: it can go on later."""
        began_ms, is_told = self._clock(), False
        while self._storing.waiting():
            self.must_end()
            is_late = abs(self._clock() - began_ms) >= 1000 * SETTLE_S
            if self._at_once or (self._is_stopped and is_late):
                break
            if is_late and not is_told:
                self._tell_of_waiting()
                is_told = True
            self._settle(patience_s=SETTLE_S)
            self._storing.wait(POLL_MS / 1000)
        self._settle()
        return bool(self._waiting) and self._end is None

    def _tell_of_waiting(self) -> None:
        self._progress.line(
            f"checkpoints of {self._storing.waiting()} trained trials are not stored yet; they "
            "wait on their nodes' disks (`hopetune stop` leaves them there for `hopetune resume`)"
        )

    def _settle(self, patience_s: float = PATIENCE_S) -> None:
        """Completes trials whose checkpoints have arrived; runs again those whose never will."""
        for number in self._storing.arrived():
            self._finish(number, ExitReason.COMPLETED, None)
        for number in filter(self._study.is_open, self._storing.lost(patience_s)):
            # A node that is gone took them along; one that lives ought to have them.
            gone = {a.node for a in self._study.attempts(number)[-1:]}.isdisjoint(self._nodes())
            cause = ExitReason.PREEMPTED if gone else ExitReason.CRASHED
            detail = "its last checkpoint is lost"
            self._goes_on_after(number, cause, detail, self._running.over(number, cause, detail))

    @property
    def _training(self) -> int:
        """How many trials hold a worker: those that run, but for those that only wait to be
        stored."""
        return self._ledger.running - self._storing.waiting()

    def _fate(self, number: int, epoch: int, value: float) -> tuple[ExitReason, str | None] | None:
        """How a trial ends or pauses after an epoch; none where it goes on."""
        if is_diverged(value):
            return ExitReason.DIVERGED, f"in epoch {epoch}"
        last = self._spec.budget.epochs
        if epoch >= last:
            return ExitReason.COMPLETED, None
        # A resumed worker reports once more what was judged when it happened.
        judged = epoch <= self._study.decided_until(number)
        if judged or epoch < self._study.last_epoch(number) or number == self._winner:
            return None
        if number in self._protected and epoch < self._spec.stopping.protect_until:
            return None
        verdict = self._rule.verdict(number, epoch)
        detail = f"after epoch {epoch} of {last} by rule {self._spec.stopping.rule!r}"
        if verdict == Verdict.PAUSE:
            return ExitReason.PAUSED, detail
        return (ExitReason.STOPPED_EARLY, detail) if verdict == Verdict.STOP else None

    def _taken_up(self, closing: bool) -> Work | None:
        number = None if self._winner is not None else self._rule.take_up(closing)
        return None if number is None else self._goes_on(number)

    def _goes_on(self, number: int) -> Work:
        settings = self._study.take_up(number)
        self._ledger.begins(number, self._clock())
        self._progress.goes_on(number)
        return self._handed_out(number, settings)

    def _proposed(self) -> Work | None:
        self._no_more = proposals_ended_by(self._spec.budget, self._ledger.usage(self._clock()))
        if self._no_more:
            return None
        found = self._study.ask()
        if found is None:
            self._no_more = ALL_TRIED
            return None
        number, settings = found
        if self._ledger.trials_begun < len(self._spec.try_first):
            self._protected.add(number)
        self._ledger.begins(number, self._clock())
        self._progress.started(number, settings)
        return self._handed_out(number, settings)

    def _handed_out(self, number: int, settings: Settings) -> Work:
        attempt = self._running.begin(number)
        avoid = self._placing.avoid(self._study.attempts(number)) or ()
        if self._placing.waits(avoid):
            others = f"for {RETURN_S:.0f} s for another node than {', '.join(avoid)}"
            self._progress.line(f"trial {number:>3} waits {others}")
        known = self._study.last_epoch(number), self._study.trained_s(number)
        return Work(number, settings, attempt, *known, avoid)

    def _last(self) -> Work | Idle:
        """When nothing new is proposed: waits for what runs, then lets the leaders finish."""
        if self._training:
            return Idle.WAIT
        return self._taken_up(closing=True) or Idle.DONE
