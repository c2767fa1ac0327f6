"""A search whose driver died: time that passes without one costs nothing and is nobody's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tuning.cli import reports
from tuning.cli.main import app
from tuning.exits import ExitReason
from tuning.progress import overview
from tuning.records import Attempt, EpochRecord, orphaned, undriven
from tuning.report import as_markdown, report_of
from tuning.space import Range
from tuning.spec import Budget, Data, Sampler, SearchSpec, Stopping
from tuning.storage import Storage
from tuning.study import Study

SPEC = SearchSpec(
    name="small",
    data=Data(train="/data/train"),
    parameters={"alpha": Range(low=0.01, high=10.0, log=True)},
    sampler=Sampler(name="random"),
    stopping=Stopping(rule="none"),
    budget=Budget(trials=4, epochs=3),
)
WORKED_MS, LATER_MS = 45_000, 60 * 3_600_000


def left_by_its_driver(storage: Storage) -> Study:
    """Four trials that had worked for 45 s each when their driver died."""
    study = storage.create("x", SPEC, "abc", lambda: 0)
    metrics = {"val_mae": 9.0, "epoch_seconds": 45.0}
    for _ in range(SPEC.budget.trials):
        found = study.ask()
        assert found is not None
        study.record_attempt(found[0], Attempt(1, 0, "10.0.0.7", 4711))
        epoch = EpochRecord(1, WORKED_MS, metrics, f"key{found[0]}", restored=False)
        study.record_epoch(found[0], epoch)
    return study


def test_it_costs_what_its_trials_have_held_their_workers_for() -> None:
    record = left_by_its_driver(Storage.in_memory()).record()
    assert record.gpu_hours(LATER_MS) == 240
    assert undriven(record).gpu_hours(LATER_MS) == pytest.approx(0.05)


def test_it_is_shown_as_its_next_driver_will_find_it() -> None:
    study = left_by_its_driver(Storage.in_memory())
    shown = undriven(study.record())
    assert shown.trials != study.record().trials
    study.adopt()
    assert shown.trials == study.record().trials
    assert undriven(study.record()) == shown


def test_an_attempt_without_an_epoch_ended_when_it_began_and_one_that_is_over_stays_so() -> None:
    trial = left_by_its_driver(Storage.in_memory()).record().trials[0]
    begun = replace(trial, epochs=(), attempts=(Attempt(1, 70, "10.0.0.7", 4711),))
    ended = orphaned(begun)
    assert ended is not None
    assert (ended.ended_ms, ended.cause) == (70, ExitReason.PREEMPTED)
    waits = replace(trial, attempts=(Attempt(1, 0, "10.0.0.7", 4711, ended_ms=50_000),))
    assert (stored := orphaned(waits)) is not None
    assert stored.ended_ms == 50_000, "a trained trial that waited to be stored"
    crashed = Attempt(1, 0, "10.0.0.7", 4711, 9, ExitReason.CRASHED)
    assert orphaned(replace(trial, attempts=(crashed,))) is None
    assert orphaned(replace(trial, attempts=())) is None
    assert orphaned(replace(trial, state="PRUNED")) is None


def test_no_time_is_left_to_it_and_its_report_calls_it_interrupted() -> None:
    record = left_by_its_driver(Storage.in_memory()).record()
    assert "left" in overview(record, WORKED_MS)
    assert "left" not in overview(undriven(record), WORKED_MS)
    told = as_markdown(report_of(undriven(record), {}, LATER_MS))
    assert "It ended: interrupted." in told
    assert "It cost 0.05 GPU-hours" in told


def test_show_and_report_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    monkeypatch.setenv("HOPETUNE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("HOPETUNE_STUDY_URL", url)
    monkeypatch.setattr(reports, "_log", lambda *_, **__: None)
    with Storage(url) as storage:
        left_by_its_driver(storage)
    shown = CliRunner().invoke(app, ["show", "x"]).stdout
    assert "x: interrupted" in shown
    assert "best 9.00° (trial 0) · 0.050 GPU-h\n" in shown
    done = CliRunner().invoke(app, ["report", "x", "--json", "--to", str(tmp_path)])
    found = json.loads(done.stdout)
    assert (found["ended"], round(found["gpu_hours"], 9)) == ("interrupted", 0.05)
