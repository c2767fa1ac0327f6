"""A search's table: every trial, what papers print beside it, and what sharing saved."""

import csv
import dataclasses
import io

import pytest

from headpose.evaluate import PoseErrors
from tuning.exits import ExitReason
from tuning.published import Published
from tuning.records import Attempt, EpochRecord, SearchRecord, TrialRecord
from tuning.report import as_csv, as_markdown, report_of, series
from tuning.space import Choices, Value
from tuning.spec import Budget, Data, Resources, Sampler, SearchSpec

PUBLISHED = (
    Published(match={"alpha": 2.0}, yaw=6.47, pitch=6.559, roll=5.436, mae=6.155, source="Hopenet"),
    Published(match={"alpha": 1.0, "backbone": "resnet50"}, mae=6.41, source="Hopenet"),
)
SPEC = SearchSpec(
    name="alpha",
    data=Data(train="/data/train", test="/data/test"),
    parameters={"alpha": Choices(choices=(1.0, 2.0, 4.0))},
    fixed={"backbone": "resnet50"},
    sampler=Sampler(name="grid"),
    budget=Budget(trials=3, epochs=2),
    published=PUBLISHED,
)
HOUR_MS = 3_600_000


def trial(number: int, alpha: Value, maes: list[float], restored: int = 0) -> TrialRecord:
    epochs = tuple(
        EpochRecord(
            epoch=index,
            at_ms=index,
            metrics={
                "val_yaw_mae": mae - 1,
                "val_pitch_mae": mae + 1,
                "val_roll_mae": mae,
                "val_mae": mae,
            },
            checkpoint_key=f"{number}/{index}",
            restored=index <= restored,
        )
        for index, mae in enumerate(maes, start=1)
    )
    return TrialRecord(
        number=number,
        state="COMPLETE",
        parameters={"alpha": alpha},
        epochs=epochs,
        started_ms=0,
        ended_ms=HOUR_MS,
        exit_reason=ExitReason.COMPLETED,
        detail=None,
        node=None,
        attempts=(Attempt(1, 0, "10.0.0.7", 4711, HOUR_MS),),
    )


def search(*trials: TrialRecord, spec: SearchSpec = SPEC) -> SearchRecord:
    return SearchRecord(
        name="alpha-1",
        spec=spec,
        fingerprint="f" * 64,
        created_ms=0,
        ended="all trials done",
        ended_ms=HOUR_MS,
        trials=trials,
    )


WHOLE = search(trial(0, 1.0, [9.0, 7.5]), trial(1, 2.0, [8.0, 8.5], restored=1))
TESTED = {1: PoseErrors(10.0, 11.0, 12.0, 11.0, 15.0, 100)}


def test_the_table_sets_ours_beside_theirs() -> None:
    table = as_markdown(report_of(WHOLE, TESTED, 0))
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert rows == [
        "| trial | alpha | measured on | Yaw | Pitch | Roll | MAE | best epoch | state |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| 0 | 1 | validation | 6.500 | 8.500 | 7.500 | 7.500 | 2/2 | completed |",
        "|  |  | published: Hopenet |  |  |  | 6.410 |  |  |",
        "| 1 | 2 | validation | 7.000 | 9.000 | 8.000 | 8.000 | 1/2 | completed |",
        "|  |  | test | 10.000 | 11.000 | 12.000 | 11.000 |  |  |",
        "|  |  | published: Hopenet | 6.470 | 6.559 | 5.436 | 6.155 |  |  |",
    ]


def test_it_says_what_was_needed_and_what_was_trained_and_what_it_cost() -> None:
    report = report_of(WHOLE, {}, 0)
    assert (report.epochs_needed, report.epochs_trained) == (4, 3)
    assert report.gpu_hours == pytest.approx(2.0)
    told = as_markdown(report)
    assert "It ended: all trials done." in told
    assert "take 4 epochs; 3 were trained (75%)" in told
    assert "2.00 GPU-hours" in told
    assert "Test set: /data/test." in told


def test_hours_of_trials_without_gpus_are_cpu_hours() -> None:
    spec = SPEC.model_copy(update={"resources": Resources(gpus_per_trial=0, cpus_per_trial=2)})
    report = report_of(search(*WHOLE.trials, spec=spec), {}, 0)
    assert (report.gpu_hours, report.unit) == (pytest.approx(4.0), "CPU")
    told = as_markdown(report)
    assert "It cost 4.00 CPU-hours (hours of trials' shares of CPUs)." in told
    assert "GPU" not in told


def test_published_figures_without_a_trial_are_not_lost() -> None:
    report = report_of(search(trial(0, 1.0, [9.0])), {}, 0)
    assert [(row.trial, row.state) for row in report.rows] == [
        (0, "completed"),
        (None, "not tried"),
    ]
    assert report.rows[1].lines[0].degrees == (6.47, 6.559, 5.436, 6.155)
    assert "| 2 | published: Hopenet | 6.470" in as_markdown(report)


def test_a_grid_keeps_its_order_and_other_searches_put_the_best_first() -> None:
    trials = (trial(0, 1.0, [9.0]), trial(1, 2.0, [8.0]), trial(2, 4.0, [8.5]))
    spec = SPEC.model_copy(update={"sampler": Sampler(name="tpe"), "published": ()})
    assert [r.trial for r in report_of(search(*trials), {}, 0).rows if r.trial is not None] == [
        0,
        1,
        2,
    ]
    found = report_of(search(*trials, spec=spec), {}, 0)
    assert [row.trial for row in found.rows] == [1, 2, 0]


def test_csv_has_a_line_for_each_measurement() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(report_of(WHOLE, TESTED, 0)))))
    assert [(row["trial"], row["measured_on"], row["mae"]) for row in rows] == [
        ("0", "validation", "7.5"),
        ("0", "published: Hopenet", "6.41"),
        ("1", "validation", "8.0"),
        ("1", "test", "11.0"),
        ("1", "published: Hopenet", "6.155"),
    ]
    assert rows[1]["yaw_mae"] == ""


def test_a_figure_gets_only_series_that_there_are() -> None:
    labels, by_kind = series(report_of(WHOLE, {}, 0))
    assert labels == ["1", "2"]
    assert by_kind == {"validation": [7.5, 8.0], "published": [6.41, 6.155]}


def test_a_search_that_has_trained_nothing_has_a_report_too() -> None:
    waiting = dataclasses.replace(trial(0, 1.0, []), state="RUNNING", exit_reason=None)
    running = dataclasses.replace(search(waiting), ended=None, ended_ms=None)
    told = as_markdown(report_of(running, {}, HOUR_MS))
    assert "It ended: still running." in told
    assert "No epoch was trained." in told


def test_other_objectives_have_columns_of_their_own() -> None:
    spec = SPEC.model_copy(update={"objectives": ("val_mae", "latency_ms"), "published": ()})
    fast = trial(0, 1.0, [9.0])
    last = dataclasses.replace(
        fast.epochs[-1], metrics={**fast.epochs[-1].metrics, "latency_ms": 5.73}
    )
    told = report_of(search(dataclasses.replace(fast, epochs=(last,)), spec=spec), TESTED, 0)
    assert "| MAE | latency_ms | best epoch | state |" in as_markdown(told)
    assert "| 9.000 | 5.730 | 1/1 | completed |" in as_markdown(told)
    assert next(csv.DictReader(io.StringIO(as_csv(told))))["latency_ms"] == "5.73"
