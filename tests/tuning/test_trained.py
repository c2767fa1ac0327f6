"""Weights are taken out of the store as they were put in, or not at all."""

from dataclasses import replace
from pathlib import Path

import pytest
from memory_objects import MemoryObjects

from cluster.settings import Settings
from tuning.manifest import MANIFEST, PARTS, manifest_of
from tuning.places import checkpoints
from tuning.records import EpochRecord, SearchRecord, TrialRecord
from tuning.space import Choices
from tuning.spec import Budget, Data, SearchSpec
from tuning.trained import errors_on_test, fetch_weights
from usererror import UserError

KEY = "trunk/1"
WEIGHTS = b"weights" * 1000
TRIAL = TrialRecord(
    number=7,
    state="COMPLETE",
    parameters={},
    epochs=(EpochRecord(1, 0, {"val_mae": 5.0}, KEY, restored=False),),
    started_ms=0,
    ended_ms=1,
    exit_reason=None,
    detail=None,
    node=None,
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (WEIGHTS, None),
        (WEIGHTS[:-100] + bytes(100), "is damaged; got 'weights-.* does not have the sha256"),
        (WEIGHTS[:-100], "is damaged; got 'weights-.*: 6900 of 7000 bytes"),
        (None, "the weights are not there"),
    ],
)
def test_only_whole_weights_are_fetched(
    tmp_path: Path, content: bytes | None, said: str | None
) -> None:
    settings, objects = Settings(state_dir=tmp_path), MemoryObjects()
    manifest = manifest_of(KEY, [{"val_mae": 5.0}], dict.fromkeys(PARTS, WEIGHTS))
    folder = checkpoints(settings) / KEY
    objects.put(folder / MANIFEST, manifest.to_bytes())
    if content is not None:
        objects.put(folder / manifest.parts["weights"].name, content)
    if said is None:
        path, key = fetch_weights(TRIAL, settings, objects, tmp_path)  # type: ignore[arg-type]
        assert (path.read_bytes(), key) == (WEIGHTS, KEY)
        return
    with pytest.raises(UserError, match=rf"s3://{folder.bucket}/{folder.key}: {said}"):
        fetch_weights(TRIAL, settings, objects, tmp_path)  # type: ignore[arg-type]


def test_an_unreadable_manifest_is_said(tmp_path: Path) -> None:
    settings, objects = Settings(state_dir=tmp_path), MemoryObjects()
    objects.put(checkpoints(settings) / KEY / MANIFEST, b"{")
    with pytest.raises(UserError, match=r"is damaged; got 'an unreadable manifest.*trial 7's run"):
        fetch_weights(TRIAL, settings, objects, tmp_path)  # type: ignore[arg-type]


def test_a_complete_trial_whose_later_weights_never_arrived_has_those_of_before(
    tmp_path: Path,
) -> None:
    settings, objects = Settings(state_dir=tmp_path), MemoryObjects()
    manifest = manifest_of(KEY, [{"val_mae": 5.0}], dict.fromkeys(PARTS, WEIGHTS))
    folder = checkpoints(settings) / KEY
    objects.put(folder / MANIFEST, manifest.to_bytes())
    objects.put(folder / manifest.parts["weights"].name, WEIGHTS)
    later = EpochRecord(2, 0, {"val_mae": 4.0}, "trunk/2", restored=False)
    extended = replace(TRIAL, epochs=(*TRIAL.epochs, later), completed_epochs=1)
    path, key = fetch_weights(extended, settings, objects, tmp_path)  # type: ignore[arg-type]
    assert (path.read_bytes(), key) == (WEIGHTS, KEY)


def test_a_search_without_a_test_set_is_told_what_can_be_done(tmp_path: Path) -> None:
    spec = SearchSpec(
        name="small",
        data=Data(train="/data/train"),
        parameters={"alpha": Choices(choices=(1.0,))},
        budget=Budget(trials=1, epochs=1),
    )
    search = SearchRecord("small-1", spec, "abc", 0, "done", 1, (TRIAL,))
    with pytest.raises(UserError, match=r"small-1: data\.test: no test set; .*another search"):
        errors_on_test(search, Settings(state_dir=tmp_path), lambda _: None)
