"""``plan`` and ``replay``: costs beforehand, and other rules afterwards."""

import dataclasses
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tuning.cli.main import app
from tuning.exits import ExitReason
from tuning.records import EpochRecord, SearchRecord
from tuning.simulation.forecast import forecast, replay
from tuning.simulation.simulator import simulate
from tuning.simulation.surrogates import SPACE, Surrogate
from tuning.space import Choices, Settings
from tuning.spec import Budget, Data, Resources, Sampler, SearchSpec, Stopping
from tuning.storage import Storage

QUICKSTART = Path(__file__).resolve().parents[3] / "search_spaces" / "quickstart.yaml"


def spec(rule: str) -> SearchSpec:
    return SearchSpec(
        name="s",
        data=Data(train="simulated"),
        parameters=SPACE,
        sampler=Sampler(name="random"),
        stopping=Stopping(rule=rule, first_rung=1, compare="best"),  # type: ignore[arg-type]
        budget=Budget(trials=60, epochs=27),
    )


def test_a_plan_counts_what_stopping_saves() -> None:
    whole = forecast(spec("none"), workers=4, epoch_s=36.0)
    saved = forecast(spec("promotion"), workers=4, epoch_s=36.0)
    smooth = whole[0]
    assert (smooth.trials, smooth.epochs) == (60, 60 * 27)
    assert smooth.gpu_hours > smooth.hours > smooth.gpu_hours / 4.5
    for before, after in zip(whole, saved, strict=True):
        assert after.trials == 60
        assert after.epochs < 0.3 * before.epochs


def test_replaying_the_own_rule_repeats_the_search_and_none_trains_all() -> None:
    _, study = simulate(spec("none"), Surrogate("smooth", 2, 27).curve, 1)
    found = {row.rule: row for row in replay(study.record())}
    assert found["none"].epochs == 60 * 27
    assert found["none"].lost_deg == 0
    assert all(row.unrecorded == 0 for row in found.values())
    assert found["promotion"].epochs < found["stopping"].epochs < found["none"].epochs
    assert found["promotion"].lost_deg == pytest.approx(0, abs=0.5)


def test_a_replay_says_how_much_it_had_to_guess() -> None:
    _, study = simulate(spec("promotion"), Surrogate("smooth", 2, 27).curve, 1)
    trained = sum(len(t.epochs) for t in study.record().trials)
    found = {row.rule: row for row in replay(study.record())}
    assert (found["promotion"].epochs, found["promotion"].unrecorded) == (trained, 0)
    assert found["none"].unrecorded == 60 * 27 - trained
    assert found["none"].lost_deg == 0


def test_of_a_repeated_configuration_a_replay_takes_the_longest_curve() -> None:
    twice: Settings = {"backbone": "resnet18"}
    search = spec("none").model_copy(
        update={
            "parameters": {"backbone": Choices(choices=("resnet18", "resnet50"))},
            "try_first": (twice, twice),
            "budget": Budget(trials=2, epochs=9),
        }
    )
    study = Storage.in_memory().create("s", search, "simulated")
    for epochs, reason in ((9, ExitReason.COMPLETED), (2, ExitReason.SEARCH_ENDED)):
        asked = study.ask()
        assert asked is not None
        for epoch in range(1, epochs + 1):
            metrics = {"val_mae": 10.0 - epoch}
            study.record_epoch(asked[0], EpochRecord(epoch, 0, metrics, "", restored=False))
        study.finish(asked[0], reason)
    row = {row.rule: row for row in replay(study.record())}["none"]
    assert (row.unrecorded, row.best_deg, row.lost_deg) == (0, 1.0, 0.0)


def recorded(spec: SearchSpec, trials: int) -> SearchRecord:
    """A small search whose trials were all trained whole."""
    spec = spec.model_copy(update={"budget": Budget(trials=trials, epochs=27)})
    _, study = simulate(spec, Surrogate("smooth", 2, 27).curve, 1)
    return study.record()


def test_a_replay_leaves_out_what_lies_outside_the_bounds_now() -> None:
    record = recorded(spec("none"), 20)
    kept = ("resnet18", "resnet50")
    space = SPACE | {"backbone": Choices(choices=kept)}
    narrow = record.spec.model_copy(update={"parameters": space})
    inside = [t for t in record.trials if t.parameters["backbone"] in kept]
    assert 1 < len(inside) < 20
    rows = replay(dataclasses.replace(record, spec=narrow))
    none = next(row for row in rows if row.rule == "none")
    assert none.epochs == 27 * len(inside)
    assert none.best_deg == min(t.value for t in inside if t.value is not None)
    nowhere = SPACE | {"backbone": Choices(choices=("resnet152",))}
    empty = record.spec.model_copy(update={"parameters": nowhere})
    assert replay(dataclasses.replace(record, spec=empty)) == []


def test_a_replay_protects_no_trial_though_it_names_them_all() -> None:
    stopping = Stopping(rule="none", first_rung=1, compare="best", protect_until=27)
    first = {"learning_rate": 1e-4, "backbone": "resnet18"}
    changes = {"stopping": stopping, "try_first": (first,)}
    found = {row.rule: row for row in replay(recorded(spec("none").model_copy(update=changes), 20))}
    assert found["none"].epochs == 20 * 27
    for rule in ("promotion", "stopping", "hyperband"):
        assert found[rule].epochs < 0.8 * 20 * 27


def test_a_plan_counts_the_gpus_of_a_trial() -> None:
    def planned(resources: Resources) -> list[tuple[float, float]]:
        small = {"resources": resources, "budget": Budget(trials=6, epochs=9)}
        rows = forecast(spec("none").model_copy(update=small), workers=2, epoch_s=36.0)
        return [(row.gpu_hours, row.hours) for row in rows]

    whole = planned(Resources(gpus_per_trial=1.0))
    quarter = planned(Resources(gpus_per_trial=0.25))
    on_cpus = planned(Resources(gpus_per_trial=0.0, cpus_per_trial=2.0))
    assert quarter == [(pytest.approx(0.25 * gpu_hours), hours) for gpu_hours, hours in whole]
    assert on_cpus == [(pytest.approx(2 * gpu_hours), hours) for gpu_hours, hours in whole]


def test_the_command_plans_without_servers() -> None:
    result = CliRunner().invoke(app, ["plan", str(QUICKSTART), "--epoch-seconds", "4"])
    assert result.exit_code == 0, result.output
    assert re.search(r"^smooth +8 ", result.output, re.MULTILINE)
    assert "  GPU-h  " in result.output


def test_the_hours_of_trials_without_gpus_are_headed_cpu_hours(tmp_path: Path) -> None:
    file = tmp_path / "cpus.yaml"
    file.write_text(QUICKSTART.read_text("utf-8").replace("gpus_per_trial: 1", "gpus_per_trial: 0"))
    said = CliRunner().invoke(app, ["plan", str(file)]).output
    assert "  CPU-h  " in said
    assert "GPU" not in said
