"""Which checkpoints stay: rules over searches as they are in studies."""

import dataclasses

import pytest

from tuning.collection import HOUR_MS, ORPHANS_AFTER_H, sort_out
from tuning.exits import ExitReason
from tuning.objects import Listed, Place
from tuning.records import EpochRecord, SearchRecord, TrialRecord
from tuning.retention import DAY_MS, Keep, branch_points, needed
from tuning.space import Choices, Range
from tuning.spec import Budget, Checkpoints, Data, SearchSpec

NOW = 100 * DAY_MS
DISCRETE = {
    "backbone": Choices(choices=("resnet18", "resnet50")),
    "unfreeze_epoch": Range(low=0, high=4),
}


def spec_of(**replaced: object) -> SearchSpec:
    found = SearchSpec(
        name="small",
        data=Data(train="/data/train"),
        parameters={"alpha": Range(low=0.1, high=2.0)},
        budget=Budget(trials=9, epochs=6),
        checkpoints=Checkpoints(keep_top=1),
    )
    return found.model_copy(update=replaced)


def trial_of(
    number: int, values: list[float], reason: ExitReason | None = None, **replaced: object
) -> TrialRecord:
    states = {None: "RUNNING", ExitReason.COMPLETED: "COMPLETE", ExitReason.CRASHED: "FAIL"}
    epochs = tuple(
        EpochRecord(e, 0, {"val_mae": value}, f"t{number}/{e}", False)
        for e, value in enumerate(values, start=1)
    )
    found = TrialRecord(
        number=number,
        state=states.get(reason, "PRUNED"),  # type: ignore[arg-type]
        parameters={"alpha": 1.0},
        epochs=epochs,
        started_ms=0,
        ended_ms=None if reason is None else 1,
        exit_reason=reason,
        detail=None,
        node=None,
    )
    return dataclasses.replace(found, **replaced)  # type: ignore[arg-type]


def search_of(*trials: TrialRecord, ended: bool = False, spec: SearchSpec | None = None):  # type: ignore[no-untyped-def]
    return SearchRecord(
        name="small-1",
        spec=spec or spec_of(),
        fingerprint="f",
        created_ms=0,
        ended="all trials done" if ended else None,
        ended_ms=NOW - DAY_MS if ended else None,
        trials=trials,
    )


def kept(*searches: SearchRecord, **known: object) -> dict[str, Keep]:
    defaults: dict[str, object] = {
        "registered": (),
        "loadable": {e.checkpoint_key for s in searches for t in s.trials for e in t.epochs},
        "now_ms": NOW,
    }
    return needed(searches, **(defaults | known))  # type: ignore[arg-type]


DONE = ExitReason.COMPLETED


def test_a_running_trial_keeps_its_latest_states_and_its_best_weights() -> None:
    search = search_of(trial_of(0, [5.0, 3.0, 4.0, 4.0, 4.0]))
    assert kept(search) == {"t0/5": Keep.STATE, "t0/4": Keep.STATE, "t0/2": Keep.WEIGHTS}


def test_what_is_stored_stays_until_something_later_is() -> None:
    search = search_of(trial_of(0, [5.0, 4.0, 3.0, 2.0]))
    found = kept(search, loadable={"t0/1", "t0/2"})
    assert found == {"t0/4": Keep.STATE, "t0/2": Keep.STATE, "t0/1": Keep.STATE}


def test_what_an_end_cut_off_keeps_its_state_while_it_waits_for_a_worker_again() -> None:
    best, other = trial_of(0, [1.0], DONE), trial_of(1, [5.0, 4.0], ExitReason.SEARCH_ENDED)
    assert kept(search_of(best, other))["t1/2"] == Keep.STATE


@pytest.mark.parametrize("reason", [ExitReason.PAUSED, ExitReason.CRASHED])
def test_what_may_go_on_keeps_its_state_while_the_search_has_not_ended(reason: ExitReason) -> None:
    best, other = trial_of(0, [1.0], DONE), trial_of(1, [5.0, 4.0], reason)
    assert "t1/2" in kept(search_of(best, other))
    assert "t1/2" not in kept(search_of(best, other, ended=True))


def test_stopped_early_keeps_nothing_but_what_the_best_keep() -> None:
    best, other = trial_of(0, [1.0], DONE), trial_of(1, [5.0], ExitReason.STOPPED_EARLY)
    assert set(kept(search_of(best, other))) == {"t0/1"}


def test_an_ended_search_keeps_its_best_trials_and_all_weights_that_its_runs_point_to() -> None:
    trials = [trial_of(n, [5.0 - n, 6.0], DONE) for n in range(4)]
    lucky = trial_of(9, [0.1], ExitReason.STOPPED_EARLY)
    spec = spec_of(checkpoints=Checkpoints(keep_top=2))
    found = kept(search_of(*trials, lucky, ended=True, spec=spec))
    assert found == {
        "t3/1": Keep.WEIGHTS,
        "t3/2": Keep.STATE,
        "t2/1": Keep.WEIGHTS,
        "t2/2": Keep.STATE,
        "t1/1": Keep.WEIGHTS,
        "t0/1": Keep.WEIGHTS,
    }


def test_a_search_that_was_cut_off_can_go_on_for_some_days() -> None:
    best = trial_of(0, [1.0], DONE)
    unfinished = trial_of(1, [5.0, 4.0], ExitReason.SEARCH_ENDED)
    paused = trial_of(2, [6.0], ExitReason.PAUSED)
    search = search_of(best, unfinished, paused, ended=True)
    assert {"t1/2", "t2/1"} <= set(kept(search))
    assert set(kept(search, now_ms=NOW + 7 * DAY_MS)) == {"t0/1"}


def test_another_search_and_a_registered_version_have_their_say() -> None:
    mine = search_of(trial_of(0, [5.0, 4.0, 3.0], ExitReason.STOPPED_EARLY), ended=True)
    mine = dataclasses.replace(mine, spec=spec_of(checkpoints=Checkpoints(keep_top=0)))
    assert kept(mine) == {}
    other = dataclasses.replace(search_of(trial_of(0, [5.0, 4.0])), name="other")
    assert kept(mine, other) == {"t0/2": Keep.STATE, "t0/1": Keep.STATE}
    assert kept(mine, registered=["t0/3"]) == {"t0/3": Keep.WEIGHTS}


# -- branch points ---------------------------------------------------------------------------------


def points(of: dict[str, object], **spec: object) -> set[int]:
    return set(branch_points(spec_of(**spec), of))  # type: ignore[arg-type]


def test_each_legal_epoch_of_unfreezing_is_a_branch_point() -> None:
    settings = {"backbone": "resnet18", "unfreeze_epoch": 3}
    assert points(settings, parameters=DISCRETE) == {1, 2, 3}
    settings["unfreeze_epoch"] = 4  # nothing unfreezes later
    assert points(settings, parameters=DISCRETE) == {1, 2, 3}
    settings["unfreeze_epoch"] = 0
    assert points(settings, parameters=DISCRETE) == set()


def test_nothing_branches_beside_a_setting_that_never_repeats() -> None:
    continuous = {**DISCRETE, "alpha": Range(low=0.1, high=2.0)}
    settings = {"backbone": "resnet18", "unfreeze_epoch": 3, "alpha": 0.7}
    assert points(settings, parameters=continuous) == set()
    first = ({"alpha": 0.7, "unfreeze_epoch": 2},)
    assert points(settings, parameters=continuous, try_first=first) == {2}


def test_another_decay_shares_the_first_epoch_alone() -> None:
    decay = {"decay_rate": Range(low=0.5, high=1.0)}
    assert points({"decay_rate": 0.9}, parameters=decay) == {1}


def test_a_second_learning_rate_branches_at_the_unfreezing() -> None:
    second = {"second_learning_rate": Choices(choices=(1e-4, 1e-5))}
    settings = {"second_learning_rate": 1e-5}
    fixed = {"unfreeze_epoch": 2}
    assert points(settings, parameters=second, fixed=fixed) == {2}


def test_fixed_schedules_do_not_branch() -> None:
    fixed = {"unfreeze_epoch": 3}
    assert (
        points({"alpha": 1.0}, parameters={"alpha": Choices(choices=(1.0,))}, fixed=fixed) == set()
    )


def test_branch_points_stay_while_the_search_has_not_ended() -> None:
    parameters = {"backbone": "resnet18", "unfreeze_epoch": 2}
    trial = trial_of(0, [5.0, 4.0, 3.0, 2.0, 1.0, 0.5], DONE, parameters=parameters)
    spec = spec_of(parameters=DISCRETE)
    assert set(kept(search_of(trial, spec=spec))) == {"t0/1", "t0/2", "t0/6"}
    assert set(kept(search_of(trial, spec=spec, ended=True))) == {"t0/6"}


# -- objects ---------------------------------------------------------------------------------------


def test_objects_are_sorted_out_by_what_their_checkpoint_must_keep() -> None:
    hours = int((ORPHANS_AFTER_H + 1) * HOUR_MS)
    names = ("manifest.json", "weights-1.safetensors", "optimiser-1.safetensors")
    keys = ("a/state", "a/weights", "a/nothing", "b/orphan")
    listed = [Listed(f"checkpoints/{key}/{name}", 10, 0) for key in keys for name in names]
    listed.append(Listed("checkpoints/c/young/weights-1.safetensors", 10, hours))
    keep = {"a/state": Keep.STATE, "a/weights": Keep.WEIGHTS}
    users = {"a/state": ["s"], "a/weights": ["s"], "a/nothing": ["s", "t"]}
    found = sort_out(listed, Place("bucket", "checkpoints"), keep, users, hours)
    assert [piece.place.key for piece in found.collectable] == [
        "checkpoints/a/weights/optimiser-1.safetensors",
        "checkpoints/a/nothing/weights-1.safetensors",
        "checkpoints/a/nothing/optimiser-1.safetensors",
    ]
    assert len(found.orphans) == 2
    assert len(found.young) == 1
    assert found.kept_bytes == 70
    assert found.by_search() == {"s": (3, 30)}
