"""What is left of a search that rests: pure functions of what the study knows.

A search goes on with trials that ended for no reason of their own (it was stopped, its budget
ended) and with the best of those that are complete but for a shorter horizon than it has now.
Trials outside the present bounds stay as history: rules and samplers see them no more, and they do
not go on.
"""

from tuning.budget import ended_by, proposals_ended_by
from tuning.exits import ExitReason
from tuning.grid import ALL_TRIED, configuration, untried
from tuning.ledger import Ledger
from tuning.records import SearchRecord, TrialRecord
from tuning.retention import best_trials
from tuning.rules import rebuilt


def within(search: SearchRecord) -> list[TrialRecord]:
    """The trials inside the present bounds of the search."""
    return [t for t in search.trials if search.spec.holds(t.parameters)]


def unfinished(search: SearchRecord) -> list[TrialRecord]:
    """Trials that are over but go on when the search does, the oldest first."""
    last = search.spec.budget.epochs
    # Whose states are kept when a search ends: the others would begin anew. Those that have begun
    # to go on are among them, so that the next driver does not choose others.
    best = {trial.number for trial in best_trials(search)}
    return [
        trial
        for trial in within(search)
        if trial.exit_reason == ExitReason.SEARCH_ENDED
        or (
            trial.exit_reason == ExitReason.COMPLETED
            and trial.number in best
            and max(trial.curve, default=0) < last
        )
    ]


def nothing_left(search: SearchRecord, now_ms: int) -> str | None:
    """Why a search cannot go on, in words; none where it can."""
    resting = {trial.number for trial in unfinished(search)}
    spec, usage = search.spec, Ledger.of(search).usage(now_ms, resting)
    if used := ended_by(spec.budget, usage):
        return f"its budget is used up: {used}"
    if search.count("RUNNING") or resting:
        return None
    no_more = proposals_ended_by(spec.budget, usage) or _all_tried(search)
    rule = rebuilt(spec.stopping, spec.budget.epochs, within(search))
    if no_more is None or rule.take_up(closing=True) is not None:
        return None
    return f"nothing is left to train: {no_more}"


def _all_tried(search: SearchRecord) -> str | None:
    """Why nothing new is proposed any more, where the grid of the present bounds holds nothing that
    was not proposed before; none of other samplers, which repeat themselves."""
    if search.spec.sampler.name != "grid" or len(search.trials) < len(search.spec.try_first):
        return None
    known = {configuration(trial.parameters) for trial in search.trials}
    return None if untried(search.spec, known) else ALL_TRIED
