"""Samplers by name: legal, repeatable, free of repetitions, and what comes before them."""

import math
from typing import Any

import pytest
import scipy.linalg  # noqa: F401 - its BLAS is another one than numpy's
from optuna.samplers import RandomSampler
from threadpoolctl import threadpool_info, threadpool_limits

from tuning.exits import ExitReason
from tuning.grid import configuration, grid
from tuning.records import EpochRecord
from tuning.sampler_kinds import SAMPLERS
from tuning.space import Choices, Parameter, Range, Settings
from tuning.spec import Budget, Data, Sampler, SearchSpec
from tuning.storage import Storage
from tuning.study import Study

SPACE: dict[str, Parameter] = {
    "learning_rate": Range(low=1e-5, high=1e-3, log=True),
    "decay_rate": Range(low=0.8, high=1.0, step=0.05),
    "unfreeze_epoch": Range(low=0, high=3),
    "backbone": Choices(choices=("resnet18", "squeezenet1_1")),
    "second_learning_rate": Range(
        low=1e-6, high=1e-4, log=True, when={"unfreeze_epoch": (1, 2, 3)}
    ),
}


def search(space: dict[str, Parameter] = SPACE, **changes: Any) -> SearchSpec:
    changes.setdefault("sampler", Sampler(startup_trials=4, seed=3))
    return SearchSpec(
        name="s",
        data=Data(train="x"),
        parameters=space,
        budget=Budget(trials=50, epochs=2),
        **changes,
    )


def proposals(study: Study, count: int) -> list[Settings]:
    """Asks, and tells that low learning rates are best."""
    found = []
    for _ in range(count):
        asked = study.ask()
        if asked is None:
            return found
        number, settings = asked
        found.append(settings)
        value = 10 + math.log10(float(settings.get("learning_rate") or 1e-4))
        metrics = {"val_mae": value, "latency_ms": float(len(str(settings["backbone"])))}
        study.record_epoch(number, EpochRecord(1, 0, metrics, "", restored=False))
        study.record_epoch(number, EpochRecord(2, 0, metrics, "", restored=False))
        study.finish(number, ExitReason.COMPLETED)
    return found


def study_of(spec: SearchSpec) -> Study:
    return Storage.in_memory().create("s", spec, "")


@pytest.mark.parametrize(
    "name", ["gp-curves", "tpe", "tpe-multivariate", "gp", "cmaes", "qmc", "random"]
)
def test_proposals_are_legal_repeatable_and_new(name: str) -> None:
    spec = search(sampler=Sampler(name=name, startup_trials=4, seed=3))  # type: ignore[arg-type]
    found = proposals(study_of(spec), 12)
    assert found == proposals(study_of(spec), 12)
    assert len({configuration(settings) for settings in found}) == 12
    for settings in found:
        assert 1e-5 <= float(settings["learning_rate"] or 0) <= 1e-3
        steps = (float(settings["decay_rate"] or 0) - 0.8) / 0.05
        assert steps == pytest.approx(round(steps))
        assert isinstance(settings["unfreeze_epoch"], int)
        assert ("second_learning_rate" in settings) is (settings["unfreeze_epoch"] != 0)
        spec.train_config(settings)


@pytest.mark.parametrize("name", ["tpe", "gp-curves"])
def test_models_learn_and_random_does_not(name: Any) -> None:
    def late_mean(sampler: Sampler) -> float:
        found = proposals(study_of(search(sampler=sampler)), 40)[20:]
        return sum(math.log10(float(s["learning_rate"] or 0)) for s in found) / len(found)

    learnt = late_mean(Sampler(name=name, startup_trials=10, random_share=0.0, seed=1))
    assert learnt < late_mean(Sampler(name="random", seed=1)) - 0.3
    assert learnt < late_mean(Sampler(name=name, startup_trials=10, random_share=1.0, seed=1)) - 0.3


def test_cma_es_moves_the_ranges_and_leaves_choices_to_tpe() -> None:
    sampler = Sampler(name="cmaes", startup_trials=6, population=5, random_share=0.0, seed=4)
    found = proposals(study_of(search(sampler=sampler)), 60)
    rates = [math.log10(float(s["learning_rate"] or 0)) for s in found]
    # Low rates are best; random ones lie at -4 ± 0.13.
    assert sum(rates[40:]) / 20 < -4.35
    assert {str(s["backbone"]) for s in found[6:]} == {"resnet18", "squeezenet1_1"}


def test_the_genetic_algorithm_breeds_from_known_good_settings() -> None:
    first = {"learning_rate": 1e-5, "decay_rate": 0.9, "unfreeze_epoch": 2, "backbone": "resnet18"}
    sampler = Sampler(name="nsga2", population=6, seed=4)
    spec = search(sampler=sampler, try_first=(first,), objectives=("val_mae", "latency_ms"))
    found = proposals(study_of(spec), 40)
    assert first.items() <= found[0].items()
    inherited = [s for s in found[6:] if s["learning_rate"] == 1e-5]
    assert len(inherited) >= 5, "the best rate of the first generation lives on"


def test_known_good_settings_come_first_and_variations_stay_near() -> None:
    first = {"learning_rate": 1e-4, "decay_rate": 0.9, "unfreeze_epoch": 2, "backbone": "resnet18"}
    sampler = Sampler(variations=20, seed=2)
    found = proposals(study_of(search(sampler=sampler, try_first=(first,))), 21)
    assert first.items() <= found[0].items()
    varied = [math.log10(float(s["learning_rate"] or 0)) for s in found[1:]]
    # A tenth of two decades: 0.2 of standard deviation.
    assert 0 < max(abs(rate + 4) for rate in varied) < 0.8
    assert sum(s["backbone"] == "resnet18" for s in found[1:]) >= 12


def test_a_grid_is_walked_once_and_then_over() -> None:
    space: dict[str, Parameter] = {
        "backbone": Choices(choices=("resnet18", "resnet50")),
        "unfreeze_epoch": Range(low=0, high=1),
        "second_learning_rate": Choices(choices=(1e-5, 1e-6), when={"unfreeze_epoch": (1,)}),
    }
    spec = search(space, sampler=Sampler(name="grid"))
    study = study_of(spec)
    found = proposals(study, 50)
    assert found == list(grid(spec))
    assert len(found) == 2 * (1 + 2)
    assert study.ask() is None


@pytest.mark.parametrize(
    ("high", "values"), [(0.3, [0, 0.1, 0.2, 0.3]), (0.35, [0, 0.1, 0.2, 0.3])]
)
def test_a_grid_of_steps_begins_its_last_row_too(high: float, values: list[float]) -> None:
    """0 + 3 * 0.1 is more than 0.3, and nothing may lie beyond the last step."""
    space: dict[str, Parameter] = {
        "alpha": Range(low=0, high=high, step=0.1),
        "backbone": Choices(choices=("resnet18",)),
    }
    study = study_of(search(space, sampler=Sampler(name="grid")))
    found = [settings["alpha"] for settings in proposals(study, 9)]
    assert found == pytest.approx(values)
    assert max(float(alpha or 0) for alpha in found) <= 0.3
    assert study.ask() is None


@pytest.mark.parametrize("name", ["gp-curves", "tpe", "random"])
def test_steps_that_do_not_divide_the_range_end_below_its_edge(name: Any) -> None:
    space = SPACE | {"decay_rate": Range(low=0.8, high=0.98, step=0.05)}
    found = proposals(study_of(search(space, sampler=Sampler(name=name, startup_trials=4))), 16)
    assert len(found) == 16
    assert {round(float(s["decay_rate"] or 0), 9) for s in found} <= {0.8, 0.85, 0.9, 0.95}


@pytest.mark.parametrize("name", sorted([*SAMPLERS, "grid"]))
def test_nothing_is_proposed_twice_while_something_is_new(name: Any) -> None:
    space: dict[str, Parameter] = {
        "backbone": Choices(choices=("resnet18", "resnet50", "squeezenet1_1")),
        "decay_rate": Range(low=0.8, high=1.0, step=0.05),
        "unfreeze_epoch": Range(low=0, high=1, when={"backbone": ("resnet50",)}),
    }
    objectives = ("val_mae", "latency_ms") if name == "nsga2" else ("val_mae",)
    spec = search(
        space,
        sampler=Sampler(name=name, startup_trials=4, seed=3),
        objectives=objectives,
    )
    found = proposals(study_of(spec), 21)
    assert len({configuration(settings) for settings in found}) == 20 == len(list(grid(spec)))
    assert len(found) == (20 if name == "grid" else 21), "the others begin again"
    assert all(spec.holds(settings) for settings in found)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_range_of_one_value_has_it(name: Any) -> None:
    space: dict[str, Parameter] = {
        "learning_rate": Range(low=3e-5, high=3e-5, log=True),
        "unfreeze_epoch": Range(low=3, high=3),
        "bin_width": Choices(choices=(3.0,)),
        "alpha": Range(low=0.1, high=1, log=True),
        "decay_rate": Range(low=0.8, high=1),
        "backbone": Choices(choices=("resnet18", "resnet50")),
    }
    objectives = ("val_mae", "latency_ms") if name == "nsga2" else ("val_mae",)
    sampler = Sampler(name=name, startup_trials=4, seed=3)
    found = proposals(study_of(search(space, sampler=sampler, objectives=objectives)), 9)
    only = {(s["learning_rate"], s["unfreeze_epoch"], s["bin_width"]) for s in found}
    assert only == {(3e-5, 3, 3.0)}


def test_a_quasi_random_search_draws_each_conditional_value_anew() -> None:
    space: dict[str, Parameter] = {
        "learning_rate": SPACE["learning_rate"],
        "backbone": Choices(choices=("squeezenet1_1", "resnet18")),
        "alpha": Range(low=0.1, high=1, when={"backbone": ("resnet18",)}),
        "decay_rate": Range(low=0.8, high=1, when={"backbone": ("squeezenet1_1",)}),
    }
    found = proposals(study_of(search(space, sampler=Sampler(name="qmc", seed=3))), 12)
    assert len({s.get("alpha", s.get("decay_rate")) for s in found}) == 12


def tell(study: Study, number: int, values: list[float], reason: ExitReason) -> None:
    for epoch, value in enumerate(values, start=1):
        study.record_epoch(number, EpochRecord(epoch, 0, {"val_mae": value}, "", restored=False))
    study.finish(number, reason)


def test_the_gaussian_process_learns_from_trials_that_were_stopped() -> None:
    space = {"learning_rate": SPACE["learning_rate"]}
    study = study_of(search(space, sampler=Sampler(name="gp", startup_trials=4, seed=3)))
    rates: list[float] = []
    for _ in range(12):
        asked = study.ask()
        assert asked is not None
        rates.append(math.log10(float(asked[1]["learning_rate"] or 0)))
        tell(study, asked[0], [6 + (rates[-1] + 4.2) ** 2], ExitReason.PAUSED)
    assert sum(abs(rate + 4.2) < 0.1 for rate in rates[6:]) >= 4, "of random ones, one in ten"


@pytest.mark.parametrize("name", ["tpe", "gp-curves"])
def test_what_diverges_late_is_no_better_than_what_was_stopped_before(name: Any) -> None:
    sampler = Sampler(name=name, startup_trials=4, seed=0, local_share=0.0)
    spec = search({"learning_rate": Range(low=1e-5, high=1e-1, log=True)}, sampler=sampler)
    study = study_of(spec.model_copy(update={"budget": Budget(trials=50, epochs=27)}))
    rates: list[float] = []
    for _ in range(24):
        asked = study.ask()
        assert asked is not None
        rate = float(asked[1]["learning_rate"] or 0)
        diverges = rate > 1e-2
        values = [20.0] * 8 + [math.nan] if diverges else [12.0 - epoch for epoch in range(6)]
        reason = ExitReason.DIVERGED if diverges else ExitReason.PAUSED
        tell(study, asked[0], values, reason)
        rates.append(rate)
    assert sum(rate > 1e-2 for rate in rates[12:]) <= 3, "a quarter of the space diverges"


def test_what_is_to_be_tried_first_twice_is_tried_twice() -> None:
    first = {"backbone": "resnet18", "decay_rate": 0.9, "unfreeze_epoch": 0}
    space = {name: SPACE[name] for name in first}
    assert proposals(study_of(search(space, try_first=(first, first))), 2) == [first, first]


def test_a_proposal_takes_one_thread_and_leaves_the_others_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Threads that wait for each other on cores which trainings share take ten times as long."""
    during: list[list[int]] = []

    class Watched(RandomSampler):
        def sample_relative(self, *_: Any) -> dict[str, Any]:
            during.append(blas_threads())
            return {}

    def blas_threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    monkeypatch.setitem(SAMPLERS, "random", lambda _, seed: Watched(seed))
    with threadpool_limits(2, "blas"):
        study_of(search(sampler=Sampler(name="random"))).ask()
        after = blas_threads()
    assert set(during[0]) == {1}
    assert set(after) == {2}


def test_a_space_that_is_exhausted_repeats_itself() -> None:
    space: dict[str, Parameter] = {"backbone": Choices(choices=("resnet18", "resnet50"))}
    found = proposals(study_of(search(space, sampler=Sampler(name="random"))), 4)
    assert {str(s["backbone"]) for s in found[:2]} == {"resnet18", "resnet50"}
    assert len(found) == 4
