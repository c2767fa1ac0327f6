"""Every search file can be loaded, planned and, row by row, built and shown a picture."""

from pathlib import Path

import pytest
import torch

from headpose.bins import Binning
from headpose.networks.network import build_network
from tuning.grid import grid
from tuning.prefix import DataIdentity, prefix_keys
from tuning.simulation.forecast import forecast
from tuning.spec import SearchSpec, load_spec
from usererror import UserError

FOLDER = Path(__file__).resolve().parents[2] / "search_spaces"
FILES = sorted(FOLDER.glob("*.yaml"))
NEEDED = {
    "alpha",
    "architecture",
    "networks",
    "bin-width",
    "two-step",
    "decay",
    "light-networks",
    "master",
    "rotation",
    "joint",
    "latency",
}


def test_every_table_of_the_papers_has_its_file() -> None:
    assert {path.stem for path in FILES} >= NEEDED


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def spec(request: pytest.FixtureRequest) -> SearchSpec:
    if request.param.stem == "networks":
        pytest.importorskip("timm")
    return load_spec(request.param)


def test_each_file_bears_its_searchs_name() -> None:
    for path in FILES:
        assert path.read_text("utf-8").count(f"search_spaces/{path.name}") >= 1
        assert f"\nname: {path.stem}\n" in path.read_text("utf-8")


def test_a_file_is_planned(spec: SearchSpec) -> None:
    small = spec.model_copy(
        update={"budget": spec.budget.model_copy(update={"trials": min(spec.budget.trials, 12)})}
    )
    for row in forecast(small, workers=4, epoch_s=1.0):
        assert 0 < row.trials <= small.budget.trials
        assert 0 < row.epochs <= row.whole_epochs


def test_a_grid_s_budget_is_its_number_of_rows(spec: SearchSpec) -> None:
    if spec.sampler.name == "grid":
        assert spec.budget.trials == len(list(grid(spec)))


def test_a_table_keeps_what_its_report_evaluates(spec: SearchSpec) -> None:
    if spec.sampler.name == "grid":
        assert spec.checkpoints.keep_top >= spec.budget.trials


def test_every_row_gives_a_network_that_takes_its_pictures(spec: SearchSpec) -> None:
    """Built without memory or ImageNet weights: shapes alone."""
    rows = list(grid(spec)) if spec.sampler.name == "grid" else [dict(s) for s in spec.try_first]
    assert rows
    seen = set()
    for row in rows:
        config = spec.train_config(row)
        shape = (config.backbone, config.bin_width, config.image_px)
        if shape in seen:
            continue
        seen.add(shape)
        with torch.device("meta"):
            count = Binning(config.bin_width, config.centres).count
            net = build_network(config.backbone, count)
            net.require_image_px(config.image_px)


def test_published_rows_belong_to_one_row_of_the_grid_each(spec: SearchSpec) -> None:
    for published in spec.published:
        fitting = [row for row in grid(spec) if published.fits({**spec.fixed, **row})]
        assert len(fitting) == 1, published


def test_a_rate_and_the_heads_factor_are_both_as_published_or_both_as_they_really_were(
    spec: SearchSpec,
) -> None:
    """Bodies really learned three times faster than stated, so heads only 5/3 times faster."""
    rows = list(grid(spec)) if spec.sampler.name == "grid" else list(spec.try_first)
    for config in map(spec.train_config, rows):
        if config.learning_rate in (3e-5, 3e-6):
            assert config.head_learning_rate_factor == 1.7
        elif config.learning_rate in (1e-5, 1e-6):
            assert config.head_learning_rate_factor == 5.0


def test_two_steps_take_at_most_three_fifths_of_the_epochs() -> None:
    spec = load_spec(FOLDER / "two-step.yaml")
    data = DataIdentity("any", spec.data.validation_fraction, spec.data.split_seed)
    plans = [prefix_keys(spec.train_config(row), data, spec.budget.epochs) for row in grid(spec)]
    needed, trained = sum(map(len, plans)), len({key for plan in plans for key in plan})
    assert (needed, trained) == (180, 105)


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ("{alfa: 1.0}", "published.0.match.alfa: not a setting of this file"),
        ("{alpha: 3.0}", "published.0.match.alpha: no trial of this file has this value; got 3.0"),
        ("{learning_rate: 1.0}", "no trial of this file has this value"),
        ("{backbone: resnet50}", "no trial of this file has this value"),
    ],
)
def test_a_published_row_that_no_trial_meets_is_refused(
    tmp_path: Path, match: str, expected: str
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(
        "name: small\ndata: {train: /data/train}\n"
        "parameters: {alpha: {choices: [1.0, 2.0]}, learning_rate: {low: 1e-4, high: 1e-3}}\n"
        "fixed: {backbone: resnet18}\nbudget: {trials: 4, epochs: 3}\n"
        f"published: [{{match: {match}, mae: 6.4, source: a paper}}]\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError) as caught:
        load_spec(path)
    assert expected in str(caught.value)


def test_a_misspelt_field_of_a_published_row_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(
        "name: small\ndata: {train: /data/train}\nparameters: {alpha: {choices: [1.0, 2.0]}}\n"
        "budget: {trials: 2, epochs: 3}\n"
        "published:\n  - {match: {alpha: 1.0}, mea: 6.4, source: a paper}\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError, match=r"small.yaml:6: published\.0\.mea: unknown field"):
        load_spec(path)
