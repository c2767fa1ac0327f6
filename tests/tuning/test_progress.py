"""The line that tells how a search stands."""

from dataclasses import replace

import pytest

from tuning.exits import FATES, ExitReason
from tuning.progress import overview
from tuning.records import SearchRecord, TrialRecord
from tuning.space import Range
from tuning.spec import Budget, Data, SearchSpec

SPEC = SearchSpec(
    name="small",
    data=Data(train="/data/train"),
    parameters={"alpha": Range(low=0.01, high=10.0)},
    budget=Budget(trials=20, epochs=3),
)


def search(*reasons: ExitReason | None) -> SearchRecord:
    """Of trials that ended so; none: it runs."""

    def trial(number: int, why: ExitReason | None) -> TrialRecord:
        state = FATES[why].study_state if why else "RUNNING"
        return TrialRecord(number, state, {}, (), 0, 1, why, None, None)

    trials = tuple(trial(number, why) for number, why in enumerate(reasons))
    return SearchRecord("x", SPEC, "abc", 0, None, None, trials)


def counts(record: SearchRecord) -> dict[str, int]:
    """``{"done": 1, "stopped early": 2, …}``."""
    parts = overview(record, 0).split(" · ")[:-1]
    return {word: int(count) for count, word in (part.split(" ", 1) for part in parts)}


@pytest.mark.parametrize("reason", [why for why in FATES if FATES[why].run_status == "FAILED"])
def test_whatever_is_a_failure_in_mlflow_is_one_here(reason: ExitReason) -> None:
    found = counts(search(reason, reason, ExitReason.STOPPED_EARLY))
    assert (found["failed"], found["stopped early"]) == (2, 1)


def test_what_the_end_cut_off_was_not_stopped_early() -> None:
    found = counts(search(ExitReason.SEARCH_ENDED, ExitReason.STOPPED_EARLY, ExitReason.COMPLETED))
    assert (found["cut off"], found["stopped early"], found["done"]) == (1, 1, 1)
    assert "cut off" not in counts(search(ExitReason.STOPPED_EARLY))


def test_a_paused_trial_counts_as_stopped_once_the_search_has_ended() -> None:
    record = search(ExitReason.PAUSED, ExitReason.STOPPED_EARLY)
    assert (counts(record)["paused"], counts(record)["stopped early"]) == (1, 1)
    ended = counts(replace(record, ended="all trials done"))
    assert (ended.get("paused"), ended["stopped early"]) == (None, 2)


@pytest.mark.parametrize("ended", [None, "all trials done"])
def test_each_trial_is_counted_once_and_the_rest_is_to_come(ended: str | None) -> None:
    found = counts(replace(search(None, *FATES), ended=ended))
    assert found["to come"] == SPEC.budget.trials - 1 - len(FATES)
    assert sum(found.values()) == SPEC.budget.trials
