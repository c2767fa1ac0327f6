"""What a person sees of a running search: a line for each thing that happens, with its context."""

import sys
from collections.abc import Callable, Mapping
from typing import TextIO

from tuning.exits import FATES, ExitReason
from tuning.going_on import nothing_left, unfinished
from tuning.records import EpochRecord, SearchRecord
from tuning.space import Value
from tuning.study import now_ms
from tuning.time_left import seconds_left


def describe(parameters: Mapping[str, Value]) -> str:
    """``alpha=1.2 backbone=resnet18 …``, numbers to four digits."""
    return " ".join(f"{name}={_short(value)}" for name, value in sorted(parameters.items()))


def overview(search: SearchRecord, at_ms: int) -> str:
    """Trials by how they ended, the best so far, hours used and an estimate of the time left."""
    wanted = search.spec.budget.trials
    parts = [f"{search.count('COMPLETE')} done", *_ends(search)]
    parts.append(f"{search.count('RUNNING')} running")
    begun = search.count("RUNNING", "COMPLETE", "PRUNED", "FAIL")
    parts.append(f"{max(0, wanted - begun)} to come")
    best = search.best(also=("PRUNED", "RUNNING"))
    if best:
        parts.append(f"best {best.value:.2f}° (trial {best.number})")
    parts.append(f"{search.gpu_hours(at_ms):.3f} {search.spec.resources.unit}-h")
    left = seconds_left(search, at_ms)
    if left is not None:
        parts.append(f"about {_clock(left)} left")
    return " · ".join(parts)


def _ends(search: SearchRecord) -> list[str]:
    """Trials that are over but not complete, by why: some that Optuna calls PRUNED failed."""
    reasons = [t.exit_reason for t in search.trials if t.exit_reason]
    paused, cut_off = reasons.count(ExitReason.PAUSED), reasons.count(ExitReason.SEARCH_ENDED)
    stopped = reasons.count(ExitReason.STOPPED_EARLY)
    if search.ended:  # nobody takes them up any more
        stopped, paused = stopped + paused, 0
    return [
        f"{stopped} stopped early",
        *([f"{paused} paused"] if paused else []),
        *([f"{cut_off} cut off"] if cut_off else []),
        f"{sum(FATES[reason].run_status == 'FAILED' for reason in reasons)} failed",
    ]


class ProgressLines:
    """Prints as things happen; every line can stand alone in a log."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out

    def line(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()

    def started(self, number: int, parameters: Mapping[str, Value]) -> None:
        self.line(f"trial {number:>3} starts     {describe(parameters)}")

    def goes_on(self, number: int) -> None:
        self.line(f"trial {number:>3} goes on")

    def epoch(self, number: int, total: int, record: EpochRecord) -> None:
        mae = record.metrics["val_mae"]
        how = "stored earlier" if record.restored else f"{record.metrics['epoch_seconds']:.0f} s"
        text = f"epoch {record.epoch}/{total}  val MAE {mae:6.2f}°  ({how})"
        self.line(f"trial {number:>3} {text}")

    def ended(
        self,
        search: Callable[[], SearchRecord],
        number: int,
        reason: ExitReason,
        detail: str | None,
    ) -> None:
        word = "rests" if reason == ExitReason.PAUSED else "ended"
        meaning = FATES[reason].meaning + (f" ({detail})" if detail else "")
        self.line(f"trial {number:>3} {word}      {meaning}")
        self.line(f"    {overview(search(), now_ms())}")

    def search_ended(self, search: SearchRecord) -> None:
        self.line(f"search {search.name} ended: {search.ended}")
        self.line(f"    {overview(search, now_ms())}")
        epochs = [e for t in search.trials for e in t.epochs]
        restored = sum(e.restored for e in epochs)
        self.line(f"    {len(epochs) - restored} epochs trained, {restored} taken from the store")
        best = search.best()
        if best:
            self.line(f"    best: trial {best.number}  {describe(best.parameters)}")
        if unfinished(search) and nothing_left(search, now_ms()) is None:
            self.line(f"    it goes on with `hopetune resume {search.name}`")


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
