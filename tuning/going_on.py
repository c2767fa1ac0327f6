"""What is left of a search that rests: pure functions of what the study knows.

A search goes on with trials that ended for no reason of their own (it was stopped, its budget
ended) and with those that are complete but for a shorter horizon than it has now. Trials outside
the present bounds stay as history: rules and samplers see them no more, and they do not go on.
"""

from tuning.budget import ended_by, proposals_ended_by
from tuning.exits import ExitReason
from tuning.ledger import Ledger
from tuning.records import SearchRecord, TrialRecord
from tuning.rules import rebuilt


def within(search: SearchRecord) -> list[TrialRecord]:
    """The trials inside the present bounds of the search."""
    return [t for t in search.trials if search.spec.holds(t.parameters)]


def unfinished(search: SearchRecord) -> list[TrialRecord]:
    """Trials that are over but go on when the search does, the oldest first."""
    last = search.spec.budget.epochs
    return [
        trial
        for trial in within(search)
        if trial.exit_reason == ExitReason.SEARCH_ENDED
        or (trial.exit_reason == ExitReason.COMPLETED and max(trial.curve, default=0) < last)
    ]


def nothing_left(search: SearchRecord, now_ms: int) -> str | None:
    """Why a search cannot go on, in words; none where it can."""
    spec, usage = search.spec, Ledger.of(search).usage(now_ms)
    if used := ended_by(spec.budget, usage):
        return f"its budget is used up: {used}"
    if search.count("RUNNING") or unfinished(search):
        return None
    no_more = proposals_ended_by(spec.budget, usage)
    if no_more is None and search.ended == "every configuration of the space was tried":
        no_more = search.ended
    rule = rebuilt(spec.stopping, spec.budget.epochs, within(search))
    if no_more is None or rule.take_up(closing=True) is not None:
        return None
    return f"nothing is left to train: {no_more}"
