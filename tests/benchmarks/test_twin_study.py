"""The twin study's searches are legal, share what they claim to, and its tables say what is so."""

import re

import numpy as np
import pytest

from benchmarks.twin_searches import SEARCHES, TWO_STEP, TwinSearch
from benchmarks.twin_tables import Answer, tables
from tuning.grid import grid
from tuning.prefix import DataIdentity, prefix_keys
from tuning.spec import SearchSpec

DATA = DataIdentity("any", 0.15, 0)


def keys_of(search: TwinSearch) -> list[list[str]]:
    spec = SearchSpec.model_validate(search.spec("/data"))
    return [prefix_keys(spec.train_config(row), DATA, spec.budget.epochs) for row in grid(spec)]


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.name)
def test_each_is_a_legal_search_and_a_grid_is_searched_whole(search: TwinSearch) -> None:
    spec = SearchSpec.model_validate(search.spec("/data"))
    if search.ranges:
        assert spec.sampler.name != "grid"
        assert all(spec.train_config(row) for row in spec.try_first)
    else:
        assert spec.budget.trials == len(list(grid(spec))) == len(keys_of(search))


def test_two_steps_train_at_most_three_fifths_of_their_epochs() -> None:
    plans = keys_of(TWO_STEP)
    trained = {key for plan in plans for key in plan}
    assert (sum(map(len, plans)), len(trained)) == (36, 21)


def test_the_base_is_common_to_four_searches() -> None:
    finals = [
        {plan[-1] for plan in keys_of(search)}
        for search in SEARCHES
        if search.name in ("twin-rotation-0", "twin-bins", "twin-alpha", "twin-networks")
    ]
    assert len(finals) == 4
    assert len(set.intersection(*finals)) == 1


def test_a_search_over_ranges_is_told_by_its_validation_error() -> None:
    true = np.zeros((4, 3))
    found = [
        Answer(
            search="twin-latency",
            parameters={"alpha": alpha, "backbone": "resnet18"},
            val={"val_mae": val_mae},
            best_epoch=1,
            epochs=6,
            trained=6,
            seed=0,
            predicted=true + val_mae,
            latency_ms=2.5,
        )
        for alpha, val_mae in ((0.123456, 7.0), (0.02, 5.0), (0.02, 6.0))
    ]
    lines = tables(found, true, true).splitlines()
    rows = [line for line in lines if "resnet18" in line]
    assert [row.split(" | ")[-4] for row in rows] == ["5.00", "6.00", "7.00"]
    assert rows[2].startswith("| 0.123 |")
    assert rows[0].endswith("| 2.50 | 1/6 | 6 |")


def test_the_tables_find_a_gain_where_there_is_one() -> None:
    random = np.random.default_rng(0)
    true = random.uniform(-60, 60, (400, 3))

    def answer(seed: int, rotate_deg: float, error_deg: float) -> Answer:
        wide = np.abs(true[:, 2:]) > 30
        return Answer(
            search=f"twin-rotation-{seed}",
            parameters={"rotate_deg": rotate_deg},
            val={"val_mae": 5.0},
            best_epoch=30,
            epochs=30,
            trained=30,
            seed=seed,
            predicted=true + np.where(wide, error_deg, 5.0),
        )

    found = [answer(seed, 0.0, 12.0 + seed) for seed in range(3)]
    found += [answer(seed, 20.0, 6.0) for seed in range(3)]
    text = tables(found, true, true)
    narrow, wide = (
        next(line for line in text.splitlines() if line.startswith(f"| roll, where ±{limits}"))
        for limits in ("0–15°", "30–60°")
    )
    assert narrow.endswith("| 5.00 | 5.00 | +0.00 |")
    assert wide.endswith("| 13.00 | 6.00 | +7.00 |")
    assert "| on the fly, ±20° | 3 |" in text
    assert re.search(
        r"±20° against none: gain \+3\.\d\d° over 3 seeds \(.*\), more than the largest .* 1\.0\d°",
        text,
    )
