"""How long a search goes on, by how it has gone so far: a pure function of what the study knows."""

import math
from collections.abc import Sequence
from statistics import fmean

from tuning.budget import Usage, target_reached
from tuning.exits import ExitReason
from tuning.ledger import Ledger
from tuning.records import SearchRecord, TrialRecord
from tuning.spec import SearchSpec


def seconds_left(search: SearchRecord, at_ms: int) -> float | None:
    """An estimate; none before the first epoch, while no trial runs or all wait for a worker,
    without a driver, and after the end.

    The next epochs of a trial take the mean of its earlier ones, and a new trial's the mean over
    all trials, everything included that they do beside. A trial goes as far as those did that are
    over and came further than it; as far as the budget lets it while there are none. Those that run
    share as many workers as trials held at once in the time of the latest epoch. Of paused trials,
    only that one of them goes all the way is counted. An end of the budget that comes sooner
    counts.
    """
    running = [t for t in search.trials if t.state == "RUNNING"]
    paces_s = {t.number: pace for t in search.trials if (pace := _epoch_s(t, at_ms)) is not None}
    if search.ended or not search.driven or not running or not paces_s:
        return None
    mean_s, last = fmean(paces_s.values()), search.spec.budget.epochs
    at_a_time = min(len(running), _at_once(search, at_ms - 1000 * mean_s))
    if not at_a_time:
        return None
    used = Ledger.of(search).usage(at_ms)
    lengths = [len(t.epochs) for t in search.trials if t.state in ("COMPLETE", "PRUNED")]
    to_come = max(0, search.spec.budget.trials - used.trials_started)
    if target_reached(search.spec.budget, used.best_mae_deg):
        lengths, to_come = [], 0  # what runs goes all the way, and nothing else begins

    def rest_s(trial: TrialRecord) -> float:
        whole_s = _rest(len(trial.epochs), lengths, last) * paces_s.get(trial.number, mean_s)
        return max(0.0, whole_s - _since_report_s(trial, at_ms))

    work_s = sum(map(rest_s, running)) + to_come * _rest(0, lengths, last) * mean_s
    longest_s = max(_rest_of_leader(search) * mean_s, *map(rest_s, running))
    ends_s = _budget_ends_s(search.spec, used, mean_s, at_a_time)
    return max(0.0, min([max(work_s / at_a_time, longest_s), *ends_s]))


def _at_once(search: SearchRecord, since_ms: float) -> int:
    """The most workers that trials have held at once since then: more than now where one has just
    been freed, which gets its next trial in a moment."""
    held = [
        (max(a.begun_ms, since_ms), math.inf if a.ended_ms is None else a.ended_ms)
        for trial in search.trials
        for a in trial.attempts
        if a.node
    ]
    late = [(begun_ms, ended_ms) for begun_ms, ended_ms in held if ended_ms > since_ms]
    begins_ms = {begun_ms for begun_ms, _ in late}
    return max((sum(b <= begun < e for b, e in late) for begun in begins_ms), default=0)


def _rest(done: int, lengths: Sequence[int], last: int) -> float:
    """Epochs that a trial with so many behind it will still train."""
    return fmean([length for length in lengths if length > done] or [last]) - done


def _rest_of_leader(search: SearchRecord) -> int:
    """Epochs until the first trial is complete; 0 where none is sure to be."""
    paused = [len(t.epochs) for t in search.trials if t.exit_reason == ExitReason.PAUSED]
    if not paused or search.count("COMPLETE"):
        return 0
    running = [len(t.epochs) for t in search.trials if t.state == "RUNNING"]
    return search.spec.budget.epochs - max(paused + running)


def _budget_ends_s(spec: SearchSpec, used: Usage, epoch_s: float, at_a_time: int) -> list[float]:
    """When each limit is reached that ends even what runs, in seconds from now."""
    budget, units = spec.budget, spec.resources.units_per_trial
    ends_s: list[float] = []
    if budget.wall_clock_minutes is not None:
        ends_s.append(60 * (budget.wall_clock_minutes - used.wall_clock_minutes))
    if budget.gpu_hours is not None:
        ends_s.append(3600 * (budget.gpu_hours - used.gpu_hours) / (units * at_a_time))
    if budget.total_epochs is not None:
        ends_s.append((budget.total_epochs - used.total_epochs) * epoch_s / at_a_time)
    return ends_s


def _epoch_s(trial: TrialRecord, at_ms: int) -> float | None:
    """How long it held its workers for each epoch that it trained; none before the first."""
    trained = sum(not epoch.restored for epoch in trial.epochs)
    return (trial.seconds(at_ms) - _since_report_s(trial, at_ms)) / trained if trained else None


def _since_report_s(trial: TrialRecord, at_ms: int) -> float:
    """How long a running trial has been at the epoch that is not reported yet."""
    if trial.held_since_ms is None:
        return 0.0
    latest_ms = max([trial.held_since_ms, *(epoch.at_ms for epoch in trial.epochs)])
    return max(0, at_ms - latest_ms) / 1000
