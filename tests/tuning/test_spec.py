"""Search files: what is unknown or impossible ends here, naming its line."""

from pathlib import Path

import pytest

from tuning.space import Choices, Range
from tuning.spec import SearchSpec, load_spec
from usererror import UserError

GOOD = """\
name: small
data: {train: /data/train}
parameters:
  learning_rate: {low: 1e-5, high: 1e-3, log: true}
  backbone: {choices: [resnet18, squeezenet1_1]}
  unfreeze_epoch: {low: 0, high: 2}
fixed: {alpha: 2}
budget: {trials: 4, epochs: 3}
"""


def spec_of(tmp_path: Path, text: str) -> SearchSpec:
    path = tmp_path / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return load_spec(path)


def fault_of(tmp_path: Path, old: str, new: str) -> str:
    assert old in GOOD
    with pytest.raises(UserError) as caught:
        spec_of(tmp_path, GOOD.replace(old, new))
    return str(caught.value)


def test_a_good_file_becomes_a_frozen_spec(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, GOOD)
    assert spec.parameters["learning_rate"] == Range(low=1e-5, high=1e-3, log=True)
    assert spec.parameters["backbone"] == Choices(choices=("resnet18", "squeezenet1_1"))
    config = spec.train_config({"backbone": "squeezenet1_1", "learning_rate": 3e-4})
    assert (config.alpha, config.backbone, config.learning_rate) == (2, "squeezenet1_1", 3e-4)


def test_the_spec_survives_json(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, GOOD)
    assert SearchSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "high: 1e-3",
            "hihg: 1e-3",
            "small.yaml:4: parameters.learning_rate.hihg: unknown field; did you mean 'high'?",
        ),
        ("budget:", "bugdet:", "small.yaml:8: bugdet: unknown field; did you mean 'budget'?"),
        (
            "learning_rate:",
            "lerning_rate:",
            "small.yaml:4: parameters.lerning_rate: unknown field; did you mean 'learning_rate'?",
        ),
        (
            "low: 1e-5, high: 1e-3",
            "low: 1e-3, high: 1e-5",
            "small.yaml:4: parameters.learning_rate: `low <= high` must hold, but got low=0.001",
        ),
        ("low: 1e-5", "low: 0", "a log range needs `low > 0`"),
        ("low: 0, high: 2", "low: 0.5, high: 2", "small.yaml:6: parameters.unfreeze_epoch"),
        (
            "low: 0, high: 2",
            "low: 0, high: 2, step: 0.5",
            "small.yaml:6: parameters.unfreeze_epoch.step: not whole; got 0.5; this setting is",
        ),
        (
            "low: 0, high: 2",
            "low: 0, high: 10, step: 2.5",
            "small.yaml:6: parameters.unfreeze_epoch.step: not whole; got 2.5; this setting is",
        ),
        ("low: 0, high: 2", "low: 0, high: .inf", "small.yaml:6: parameters.unfreeze_epoch.high"),
        ("low: 0, high: 2", "low: 0, high: 2, step: .inf", "parameters.unfreeze_epoch.step"),
        (
            "[resnet18, squeezenet1_1]",
            "[resnet18, resnet19]",
            "small.yaml:5: parameters.backbone: unknown backbone; got 'resnet19'",
        ),
        ("{choices: [resnet18, squeezenet1_1]}", "{low: 1, high: 2}", "a range of words"),
        ("alpha: 2", "alpha: -1", "small.yaml:7: fixed.alpha: not a legal value; got -1"),
        ("alpha: 2", "learning_rate: 1e-4", "cannot be searched here"),
        ("trials: 4", "trials: 0", "small.yaml:8: budget.trials"),
        ("trials: 4", "trials: '4'", "small.yaml:8: budget.trials"),
        ("name: small", "name: Not Good", "small.yaml:1: name"),
        ("name: small", "name: small\nname: twice", "stands twice"),
        ("data: {train: /data/train}\n", "", "data: missing"),
        (
            "/data/train",
            "data/train",
            "small.yaml:2: data.train: not a place that every node finds; got 'data/train'",
        ),
        (
            "/data/train",
            "gs://data/train",
            "small.yaml:2: data.train: not a place that every node finds; got 'gs://data/train'",
        ),
        ("/data/train", "/data/train, test: data", "data.test: not a place that every node finds"),
        ("/data/train", "download", "data.train: not a place that every node finds"),
        ("alpha: 2", "imagenet: weights", "fixed.imagenet: not a place that every node finds"),
        (
            "{choices: [resnet18, squeezenet1_1]}",
            "{choice: [resnet18]}",
            "parameters.backbone.choice: unknown field; did you mean 'choices'? "
            "Legal: choices, high, log, low, step, when",
        ),
        (
            "low: 0, high: 2",
            "low: 0, high: 2, values: [1]",
            "parameters.unfreeze_epoch.values: unknown field. Legal: high, log, low, step, when",
        ),
        (
            "alpha: 2",
            "flip: [1]",
            "small.yaml:7: fixed.flip: not a single value; got [1]; a number or a word; "
            "what is searched belongs under `parameters`",
        ),
        (
            "[resnet18, squeezenet1_1]",
            "[{a: b}]",
            "small.yaml:5: parameters.backbone.choices.0: not a single value; got {'a': 'b'}; "
            "a number or a word",
        ),
        (
            "{low: 0, high: 2}",
            "[0, 2]",
            "small.yaml:6: parameters.unfreeze_epoch: not a mapping; got [0, 2]; "
            "write {low: …, high: …} or {choices: [..]}",
        ),
        (
            "[resnet18, squeezenet1_1]",
            "resnet18",
            "small.yaml:5: parameters.backbone.choices: not a list; got 'resnet18'; a list `[..]`",
        ),
        (
            "high: 2}",
            "high: 2, when: {backbone: resnet18}}",
            "small.yaml:6: parameters.unfreeze_epoch.when.backbone: not a list; got 'resnet18'; "
            "a list `[..]`",
        ),
        (
            "high: 2}",
            "high: 2, when: resnet18}",
            "small.yaml:6: parameters.unfreeze_epoch.when: not a mapping; got 'resnet18'; names",
        ),
        ("[resnet18, squeezenet1_1]", "[]", "parameters.backbone.choices: empty; got []; at least"),
        (
            "{trials: 4, epochs: 3}",
            "4",
            "small.yaml:8: budget: not a mapping; got 4; write `budget: {trials: …, epochs: …}`",
        ),
        (
            "{train: /data/train}",
            "/data/train",
            "small.yaml:2: data: not a mapping; got '/data/train'; "
            "write `data: {train: /data/train}`",
        ),
    ],
)
def test_faults_name_line_field_and_rule(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert expected in fault_of(tmp_path, old, new)


def test_exponents_are_numbers_without_a_point(tmp_path: Path) -> None:
    parameter = spec_of(tmp_path, GOOD).parameters["learning_rate"]
    assert isinstance(parameter, Range)
    assert parameter.low == 1e-5


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("learning_rate: 1", r"try_first\.0\.learning_rate: outside its parameter; got 1\.?0?;"),
        ("backbone: resnet152", r"try_first\.0\.backbone: outside its parameter; got 'resnet152'"),
    ],
)
def test_try_first_lies_within_its_parameters(tmp_path: Path, settings: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        spec_of(tmp_path, GOOD + f"try_first: [{{{settings}}}]\n")


def test_try_first_knows_only_searched_parameters(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"try_first\.0\.alpha: unknown field"):
        spec_of(tmp_path, GOOD + "try_first: [{alpha: 1}]\n")


def test_an_absent_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_spec(tmp_path / "absent.yaml")


def test_yaml_cannot_name_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not YAML"):
        spec_of(tmp_path, "name: !!python/object/apply:os.getcwd []\n")


SECOND_PHASE = """\
name: small
data: {train: /data/train}
parameters:
  unfreeze_epoch: {choices: [5, 0]}
  second_learning_rate: {choices: [null, 3e-6]}
budget: {trials: 4, epochs: 6}
"""


def test_choices_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    """Neither does so beside the other's first value."""
    with pytest.raises(UserError, match=r"small.yaml:5: .*a second learning rate needs") as caught:
        spec_of(tmp_path, SECOND_PHASE)
    assert "parameters.second_learning_rate" in str(caught.value)
    held_apart = "[null, 3e-6], when: {unfreeze_epoch: [5]}}"
    assert spec_of(tmp_path, SECOND_PHASE.replace("[null, 3e-6]}", held_apart))


def test_a_condition_names_a_parameter_above(tmp_path: Path) -> None:
    good = GOOD.replace(
        "fixed:",
        "  second_learning_rate: {low: 1e-6, high: 1e-5, when: {unfreeze_epoch: [1, 2]}}\nfixed:",
    )
    parameter = spec_of(tmp_path, good).parameters["second_learning_rate"]
    assert parameter.is_active({"unfreeze_epoch": 1})
    assert not parameter.is_active({"unfreeze_epoch": 0})
    bad = good.replace("when: {unfreeze_epoch: [1, 2]}", "when: {alpha: [1]}")
    with pytest.raises(UserError, match=r"second_learning_rate\.when\.alpha"):
        spec_of(tmp_path, bad)


CONDITIONAL = """\
name: small
data: {train: /data/train}
parameters:
  bin_width: {choices: [1, 3, 6]}
  rotate_deg: {choices: [0.0, 10.0, 20.0]}
  rotate_share:
    choices: [0.44, 1.0]
    when: {rotate_deg: [20.0]}
  unfreeze_epoch: {low: 0, high: 4, step: 2}
budget: {trials: 4, epochs: 3}
"""


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (
            "{rotate_deg: [20.0], bin_width: [4]}",
            "small.yaml:8: parameters.rotate_share.when.bin_width.0: never so; got 4; "
            "one of the values of 'bin_width': [1, 3, 6]",
        ),
        ("{rotate_deg: [20.0, 30.0]}", "rotate_share.when.rotate_deg.1: never so; got 30.0"),
        ("{rotate_deg: ['20']}", "rotate_share.when.rotate_deg.0: never so; got '20'"),
        ("{rotate_deg: []}", "small.yaml:8: parameters.rotate_share.when.rotate_deg: empty"),
    ],
)
def test_a_condition_that_never_holds_is_refused(tmp_path: Path, when: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        spec_of(tmp_path, CONDITIONAL.replace("{rotate_deg: [20.0]}", when))
    assert expected in str(caught.value)


def test_a_condition_keeps_to_the_steps_of_a_range(tmp_path: Path) -> None:
    added = "  second_learning_rate: {low: 1e-6, high: 1e-5, when: {unfreeze_epoch: [%s]}}\nbudget:"
    spec_of(tmp_path, CONDITIONAL.replace("budget:", added % 2))
    with pytest.raises(UserError, match=r"when\.unfreeze_epoch\.0: never so; got 3;"):
        spec_of(tmp_path, CONDITIONAL.replace("budget:", added % 3))


def test_conditions_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    added = "  crop_jitter: {low: 0, high: 0.1, when: {rotate_deg: [10.0], rotate_share: [1.0]}}\n"
    with pytest.raises(
        UserError, match=r"small.yaml:9: parameters\.crop_jitter\.when: never there"
    ):
        spec_of(tmp_path, CONDITIONAL.replace("  unfreeze", added + "  unfreeze"))


@pytest.mark.parametrize(
    ("settings", "is_possible"),
    [
        ("{rotate_deg: 10.0, rotate_share: 0.44}", False),
        ("{rotate_share: 0.44, rotate_deg: 0.0}", False),
        ("{rotate_deg: 20.0, rotate_share: 0.44}", True),
        ("{rotate_share: 0.44}", True),  # the angle is drawn, and may be the one
        ("{bin_width: 3, rotate_share: 1.0}", True),
    ],
)
def test_a_known_good_setting_is_not_passed_over(
    tmp_path: Path, settings: str, is_possible: bool
) -> None:
    text = CONDITIONAL + f"try_first: [{{bin_width: 1}}, {settings}]\n"
    if is_possible:
        assert len(spec_of(tmp_path, text).try_first) == 2
        return
    told = (
        r"small.yaml:11: try_first\.1\.rotate_share: not there beside .* asks for rotate_deg \[20"
    )
    with pytest.raises(UserError, match=told):
        spec_of(tmp_path, text)


def test_known_good_settings_must_go_together_where_the_others_are_drawn(tmp_path: Path) -> None:
    """Each of the two would be there beside some angle, but not both."""
    added = "  crop_jitter: {low: 0, high: 0.1, when: {rotate_deg: [10.0]}}\n"
    text = CONDITIONAL.replace("  unfreeze", added + "  unfreeze")
    spec_of(tmp_path, text + "try_first: [{rotate_share: 0.44}, {crop_jitter: 0.1}]\n")
    with pytest.raises(UserError, match=r"try_first\.0\.crop_jitter: not there beside"):
        spec_of(tmp_path, text + "try_first: [{rotate_share: 0.44, crop_jitter: 0.1}]\n")


def test_a_grid_needs_steps(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"small.yaml:4: parameters.learning_rate: has no grid"):
        spec_of(tmp_path, GOOD + "sampler: {name: grid}\n")


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ("objectives: [latency_ms]\n", "small.yaml:9: objectives: not so"),
        ("objectives: 5\n", "small.yaml:9: objectives"),
        ("objectives: [val_mae, lateness]\n", "small.yaml:9: objectives.1"),
        (
            "objectives: [val_mae, latency_ms]\n",
            "stopping.rule: early stopping with several objectives; got 'promotion'",
        ),
        (
            "objectives: [val_mae, latency_ms]\nsampler: {name: gp}\nstopping: {rule: none}\n",
            "small.yaml:10: sampler.name: not for several objectives; got 'gp'",
        ),
        ("sampler: {name: nsga2}\n", "small.yaml:9: sampler.name: there is one objective"),
        ("sampler: {population: 8}\n", "the sampler 'gp-curves' has no population"),
        (
            "sampler: tpe\n",
            "small.yaml:9: sampler: not a mapping; got 'tpe'; write `sampler: {name: tpe}`",
        ),
        (
            "stopping: none\n",
            "small.yaml:9: stopping: not a mapping; got 'none'; write `stopping: {rule: none}`",
        ),
        (
            "objectives: val_mae\n",
            "small.yaml:9: objectives: not a list; got 'val_mae'; a list `[..]`",
        ),
        (
            "try_first: paper\n",
            "small.yaml:9: try_first: not a list; got 'paper'; a list `[..]`; "
            "or write `try_first: papers`",
        ),
        (
            "resources: auto\n",
            "resources: not a mapping; got 'auto'; write `resources: {gpus_per_trial: …}`",
        ),
        ("try_first: [papers]\n", "small.yaml:9: try_first.0: not a mapping; got 'papers'; names"),
        (
            "published: [5.7]\n",
            "published.0: not a mapping; got 5.7; write `{match: …, mae: …, source: …}`",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, added: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        spec_of(tmp_path, GOOD + added)
    assert expected in str(caught.value)


def test_cma_es_needs_ranges(tmp_path: Path) -> None:
    text = GOOD.replace("unfreeze_epoch: {low: 0, high: 2}", "unfreeze_epoch: {choices: [0, 1]}")
    with pytest.raises(UserError, match=r"CMA-ES has too little to work on; got '?1 ranges"):
        spec_of(tmp_path, text + "sampler: {name: cmaes}\n")


def test_error_against_latency_is_a_search(tmp_path: Path) -> None:
    several = "objectives: [val_mae, latency_ms]\nsampler: {name: nsga2}\nstopping: {rule: none}\n"
    spec = spec_of(tmp_path, GOOD + several)
    assert spec.objectives == ("val_mae", "latency_ms")
    assert spec_of(tmp_path, GOOD).objectives == ("val_mae",)
    unnamed = "objectives: [val_mae, latency_ms]\nstopping: {rule: none}\n"
    assert spec_of(tmp_path, GOOD + unnamed).sampler.name == "tpe"
    assert spec_of(tmp_path, GOOD).sampler.name == "gp-curves"
    assert SearchSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("rungs", ["[3, 1]", "[0, 3]", "[1, 1]"])
def test_rungs_rise(tmp_path: Path, rungs: str) -> None:
    with pytest.raises(UserError, match="rungs are epochs from 1 in rising order"):
        spec_of(tmp_path, GOOD + f"stopping: {{rungs: {rungs}}}\n")
