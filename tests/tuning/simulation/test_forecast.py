"""``plan`` and ``replay``: costs beforehand, and other rules afterwards."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tuning.cli.main import app
from tuning.simulation.forecast import forecast, replay
from tuning.simulation.simulator import simulate
from tuning.simulation.surrogates import SPACE, Surrogate
from tuning.spec import Budget, Data, Sampler, SearchSpec, Stopping

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


def test_the_command_plans_without_servers() -> None:
    result = CliRunner().invoke(app, ["plan", str(QUICKSTART), "--epoch-seconds", "4"])
    assert result.exit_code == 0, result.output
    assert re.search(r"^smooth +8 ", result.output, re.MULTILINE)
