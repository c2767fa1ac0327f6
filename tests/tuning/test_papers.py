"""``try_first: papers``: the published settings, as far as they lie in the space."""

from pathlib import Path

import pytest

from tuning.papers import PAPERS, fitting
from tuning.space import Choices, Parameter, Range
from tuning.spec import load_spec
from usererror import UserError

WIDE: dict[str, Parameter] = {
    "backbone": Choices(choices=("resnet18", "resnet50", "resnet101")),
    "alpha": Range(low=0.1, high=4.0, log=True),
    "bin_width": Choices(choices=(3.0, 6.0)),
    "learning_rate": Range(low=1e-6, high=1e-2, log=True),
    "decay_rate": Range(low=0.8, high=1.0),
    "unfreeze_epoch": Range(low=0, high=10),
}

FILE = """\
name: small
data: {train: /data/train}
parameters:
  backbone: {choices: [resnet18, resnet50]}
  learning_rate: {low: 1e-5, high: 1e-3, log: true}
  rotate_deg: {low: 0, high: 30}
try_first: papers
sampler: {variations: 4}
budget: {trials: 4, epochs: 30}
"""


def test_the_best_published_comes_first_and_each_once() -> None:
    errors = [preset.published_mae_deg for preset in PAPERS]
    assert errors == sorted(errors)
    found = fitting(WIDE, {})
    assert found[0] == {
        "backbone": "resnet101",
        "alpha": 2.0,
        "bin_width": 3.0,
        "learning_rate": 3e-5,
        "decay_rate": 0.95,  # but no epoch 25 in this space
    }
    assert len({tuple(sorted(s.items())) for s in found}) == len(found)
    assert {s["backbone"] for s in found} == {"resnet18", "resnet50", "resnet101"}
    assert {s["bin_width"] for s in found} == {3.0}, "width 1 is no choice here"


def test_each_paper_s_networks_come_with_its_own_rate() -> None:
    """HopelessNet trained with 1e-6, Hopenet with 1e-5; bodies learned three times faster."""
    rates = {preset.name: preset.settings["learning_rate"] for preset in PAPERS}
    slow = {name for name, rate in rates.items() if rate == 3e-6}
    assert slow == {name for name in rates if name.startswith("hopelessnet")}
    assert {rates[name] for name in rates.keys() - slow} == {3e-5}


def test_a_rate_outside_the_space_or_another_fixed_backbone_leaves_none() -> None:
    narrow = WIDE | {"learning_rate": Range(low=1e-3, high=1e-2)}
    assert fitting(narrow, {}) == ()
    rest = {name: p for name, p in WIDE.items() if name != "backbone"}
    assert fitting(rest, {"backbone": "resnet34"}) == ()
    assert [s["alpha"] for s in fitting(rest, {"backbone": "resnet50"})] == [2.0, 1.0, 2.0]


def test_heads_learn_as_fast_as_they_did_where_that_is_searched_beside_the_real_rate() -> None:
    heads: dict[str, Parameter] = {"head_learning_rate_factor": Range(low=1.0, high=10.0)}
    assert {s["head_learning_rate_factor"] for s in fitting(WIDE | heads, {})} == {1.7}
    narrow: dict[str, Parameter] = {"head_learning_rate_factor": Choices(choices=(2.0, 5.0))}
    assert not any("head_learning_rate_factor" in s for s in fitting(WIDE | narrow, {}))
    rest = {name: p for name, p in WIDE.items() if name != "learning_rate"} | heads
    assert fitting(rest, {"learning_rate": 3e-5})[0]["head_learning_rate_factor"] == 1.7
    for other_rate in (fitting(rest, {"learning_rate": 1e-5}), fitting(rest, {})):
        assert other_rate
        assert not any("head_learning_rate_factor" in s for s in other_rate)


def test_a_file_names_them_and_the_spec_holds_them(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(FILE)
    spec = load_spec(path)
    assert spec.try_first == (
        {"backbone": "resnet50", "learning_rate": 3e-5},
        {"backbone": "resnet18", "learning_rate": 3e-5},
    )
    path.write_text(FILE.replace("1e-3, log", "2e-5, log"))
    with pytest.raises(UserError, match=r"small.yaml:7: try_first: no published settings"):
        load_spec(path)
