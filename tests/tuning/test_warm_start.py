"""What a search takes from an earlier one: what lies in its space, for its sampler only."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tuning.exits import ExitReason
from tuning.records import EpochRecord, SearchRecord
from tuning.space import Choices, Range, Settings
from tuning.spec import Budget, Data, Sampler, SearchSpec
from tuning.storage import Storage
from tuning.study import Study
from tuning.warm_start import taken_from
from usererror import UserError


def search(**changes: Any) -> SearchSpec:
    settings: dict[str, Any] = {
        "name": "s",
        "data": Data(train="x"),
        "parameters": {
            "learning_rate": Range(low=1e-5, high=1e-3, log=True),
            "unfreeze_epoch": Range(low=0, high=4),
            "backbone": Choices(choices=("resnet18", "resnet50")),
        },
        "sampler": Sampler(startup_trials=3, random_share=0.0, seed=1),
        "budget": Budget(trials=50, epochs=2),
    }
    return SearchSpec(**settings | changes)


def trained(study: Study, mae: float, reason: ExitReason = ExitReason.COMPLETED) -> Settings:
    asked = study.ask()
    assert asked is not None
    number, settings = asked
    for epoch in (1, 2):
        record = EpochRecord(epoch, 0, {"val_mae": mae + 2 - epoch}, "", restored=False)
        study.record_epoch(number, record)
    study.finish(number, reason)
    return settings


def earlier_with(tried: list[Settings], **changes: Any) -> SearchRecord:
    spec = search(try_first=tuple(tried), **changes)
    study = Storage.in_memory().create("old", spec, "data")
    for index in range(len(tried)):
        trained(study, 5.0 + index)
    return study.record()


IN = {"learning_rate": 1e-4, "unfreeze_epoch": 2, "backbone": "resnet18"}


def test_settings_and_curves_of_the_same_space_are_taken() -> None:
    taken = taken_from(search(), "data", earlier_with([IN, {**IN, "backbone": "resnet50"}]))
    assert [t.parameters for t in taken.trials] == [IN, {**IN, "backbone": "resnet50"}]
    assert (taken.trials[0].curve, taken.trials[0].is_complete) == ({1: 6.0, 2: 5.0}, True)
    assert taken.note == "2 of 2 trials of old lie in this space"


@pytest.mark.parametrize(
    ("space", "taken"),
    [
        ({"learning_rate": Range(low=2e-4, high=1e-3)}, False),
        ({"learning_rate": Range(low=1e-4, high=1e-3)}, True),
        ({"unfreeze_epoch": Range(low=0, high=4, step=2)}, True),
        ({"unfreeze_epoch": Range(low=1, high=5, step=2)}, False),
        ({"backbone": Choices(choices=("resnet50",))}, False),
        ({"alpha": Range(low=0.5, high=2)}, True),  # fixed there at 1, its default
        ({"alpha": Range(low=1.5, high=2)}, False),
        ({"second_learning_rate": Range(low=1e-6, high=1e-5)}, False),  # none there
    ],
)
def test_what_lies_outside_the_space_is_left(space: dict[str, Any], taken: bool) -> None:
    spec = search()
    spec = spec.model_copy(update={"parameters": spec.parameters | space})
    assert len(taken_from(spec, "data", earlier_with([IN])).trials) == taken


def test_what_was_searched_there_and_is_fixed_here_must_be_equal() -> None:
    parameters = search().parameters
    space = {name: parameters[name] for name in ("learning_rate", "unfreeze_epoch")}
    spec = search(parameters=space, fixed={"backbone": "resnet50"})
    old = earlier_with([IN, {**IN, "backbone": "resnet50"}])
    taken = taken_from(spec, "data", old)
    assert [t.trial for t in taken.trials] == [old.trials[1].number]
    assert "backbone" not in taken.trials[0].parameters


def test_what_a_condition_keeps_out_here_must_be_what_is_trained_with() -> None:
    """A trial that turned 44% of the pictures by 10 degrees says nothing about turning all."""
    shares = Choices(choices=(0.44, 1.0))
    space = {"rotate_deg": Choices(choices=(10.0, 20.0)), "rotate_share": shares}
    tried: list[Settings] = [
        {"rotate_deg": degrees, "rotate_share": share}
        for degrees in (10.0, 20.0)
        for share in (0.44, 1.0)
    ]
    only_beside_20 = shares.model_copy(update={"when": {"rotate_deg": (20.0,)}})
    spec = search(parameters=space | {"rotate_share": only_beside_20})
    taken = taken_from(spec, "data", earlier_with(tried, parameters=space))
    assert [t.parameters for t in taken.trials] == [{"rotate_deg": 10.0}, *tried[2:]]
    assert [t.trial for t in taken.trials] == [1, 2, 3]


def test_what_both_fix_differently_is_told() -> None:
    taken = taken_from(
        search(fixed={"image_px": 64}), "data", earlier_with([IN], fixed={"alpha": 2})
    )
    assert taken.note.endswith("; they were trained with alpha 2.0 (here 1.0)")
    longer = search(budget=Budget(trials=9, epochs=3), fixed={"batch_size": 128})
    note = taken_from(longer, "data", earlier_with([IN])).note
    assert note.endswith("with batch_size 64 (here 128), epochs 2 (here 3)")


def test_of_a_longer_search_only_what_a_trial_here_reaches_is_taken() -> None:
    """Else its trials would lead for ever, however much better those of this search are."""
    store = Storage.in_memory()
    old = store.create("old", search(try_first=(IN,)), "data")
    trained(old, 9.0)
    spec = search(warm_start=("old",), budget=Budget(trials=9, epochs=1))
    taken = taken_from(spec, "data", old.record())
    assert (taken.trials[0].curve, taken.trials[0].is_complete) == ({1: 10.0}, True)
    new = store.create("new", spec, "data")
    asked = new.ask()
    assert asked is not None
    new.record_epoch(asked[0], EpochRecord(1, 0, {"val_mae": 5.0}, "", restored=False))
    new.finish(asked[0], ExitReason.COMPLETED)
    new._sampled_from.look()
    assert new._sampled_from.leaders(1) == [asked[1]]


def test_other_data_are_refused() -> None:
    with pytest.raises(UserError, match=r"warm_start: old: was trained on other data"):
        taken_from(search(), "other data", earlier_with([IN]))


def test_the_sampler_learns_from_it_and_the_search_has_no_trial_of_it(tmp_path: Path) -> None:
    """On a real database; a driver that starts again proposes the same, though the earlier search
    has gone on."""
    with Storage(f"sqlite:///{tmp_path}/study.db") as storage:
        old = storage.create("old", search(sampler=Sampler(name="random", seed=5)), "data")
        rates = []
        for _ in range(30):
            asked = old.ask()
            assert asked is not None
            number, settings = asked
            rate = float(settings["learning_rate"] or 0)
            value = 5.0 if rate > 3e-4 else 9.0
            record = EpochRecord(1, 0, {"val_mae": value + rate}, "", restored=False)
            old.record_epoch(number, record)
            old.finish(number, ExitReason.STOPPED_EARLY)
            rates.append(rate)
        spec = search(warm_start=("old",))
        first = storage.create("new", spec, "data")
        assert first.record().trials == ()
        assert first.earlier() == ["30 of 30 trials of old lie in this space"]
        trained(old, 1.0)
        proposed = []
        for _ in range(6):
            study = storage.create("new", spec, "data")  # as a driver does that starts again
            proposed.append(trained(study, 6.0, ExitReason.STOPPED_EARLY))
        assert sum(float(p["learning_rate"] or 0) > 3e-4 for p in proposed) >= 5
        straight = storage.create("new2", search(warm_start=("old",), name="t"), "data")
        assert straight.earlier() == ["31 of 31 trials of old lie in this space"]
        again = storage.create("again", search(), "data")
        cold = [trained(again, 6.0, ExitReason.STOPPED_EARLY) for _ in range(6)]
        assert sum(float(p["learning_rate"] or 0) > 3e-4 for p in cold) <= 4


def test_a_search_to_start_from_must_be_there(tmp_path: Path) -> None:
    with (
        Storage(f"sqlite:///{tmp_path}/study.db") as storage,
        pytest.raises(UserError, match="absent: no such search"),
    ):
        storage.create("new", search(warm_start=("absent",)), "data")


def test_records_are_plain_values() -> None:
    taken = taken_from(search(), "data", earlier_with([IN]))
    assert dataclasses.asdict(taken)["trials"][0]["parameters"] == IN
