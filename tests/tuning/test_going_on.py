"""Searches that end before their time and go on: a real study in memory, no workers."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuning.conductor import Conductor
from tuning.driver import require_a_success
from tuning.events import Idle, Work
from tuning.exits import ExitReason
from tuning.extension import changes, with_budget, with_space
from tuning.going_on import nothing_left, unfinished
from tuning.ledger import Ledger
from tuning.pareto import front
from tuning.projection import run_states
from tuning.records import EpochRecord
from tuning.retention import DAY_MS, best_trials, needed
from tuning.simulation.simulator import Silent
from tuning.space import Choices, Range
from tuning.spec import Budget, Checkpoints, Data, Sampler, SearchSpec, Stopping
from tuning.storage import Storage
from tuning.storing import AtOnce
from tuning.study import Study
from usererror import UserError

SPEC = SearchSpec(
    name="small",
    data=Data(train="/data/train"),
    parameters={
        "learning_rate": Range(low=1e-5, high=1e-3, log=True),
        "backbone": Choices(choices=("resnet18", "squeezenet1_1")),
    },
    sampler=Sampler(name="random"),
    stopping=Stopping(rule="none"),
    budget=Budget(trials=3, epochs=3),
)


class Now:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        self.ms += 1000
        return self.ms


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def study(now: Now) -> Study:
    return Storage.in_memory().create("x", SPEC, "abc", now)


def driver_of(study: Study, now: Now) -> Conductor:
    return Conductor(study, Silent(), AtOnce(), now)


def begun(driver: Conductor) -> Work:
    work = driver.next_trial()
    assert isinstance(work, Work)
    return work


def train(driver: Conductor, work: Work, epochs: range) -> None:
    for epoch in epochs:
        record = EpochRecord(epoch, 1, {"val_mae": 9.0 - epoch}, f"key{epoch}", restored=False)
        driver.on_epoch(work.number, work.attempt, record)


def test_the_study_is_whole_as_soon_as_the_end_is_asked_for(study: Study, now: Now) -> None:
    driver = driver_of(study, now)
    work = begun(driver)
    train(driver, work, range(1, 2))
    begun(driver)
    driver.ask_to_end("stopped by SIGTERM", at_once=True)
    assert driver.must_end()
    record = study.record()
    assert (record.ended, record.count("RUNNING")) == ("stopped by SIGTERM", 0)
    assert {t.exit_reason for t in record.trials} == {ExitReason.SEARCH_ENDED}
    # What a worker says afterwards is heard no more.
    train(driver, work, range(2, 3))
    assert study.record() == record
    assert driver.next_trial() is Idle.DONE


def test_a_clock_that_is_set_back_delays_no_stop(study: Study, now: Now) -> None:
    driver = driver_of(study, now)
    begun(driver)
    assert not driver.must_end()
    now.ms -= 600_000
    study.want_stop()
    assert driver.must_end()
    assert study.record().ended == "stopped by its user"


def test_interrupted_trials_go_on_under_their_numbers(study: Study, now: Now) -> None:
    stopped = driver_of(study, now)
    work = begun(stopped)
    train(stopped, work, range(1, 3))
    other = begun(stopped)
    stopped.ask_to_end("stopped by its user")
    assert stopped.must_end()
    assert [t.number for t in unfinished(study.record())] == [work.number, other.number]

    study.reopen()
    assert study.record().ended is None
    driver = driver_of(study, now)
    assert not driver.must_end()
    again = begun(driver)
    assert (again.number, again.parameters) == (work.number, work.parameters)
    train(driver, again, range(1, 4))  # a worker reports once more what is stored
    assert begun(driver).number == other.number
    train(driver, other, range(1, 4))
    train(driver, begun(driver), range(1, 4))
    driver.next_trial()
    record = study.record()
    assert [sorted(t.curve) for t in record.trials] == [[1, 2, 3]] * 3
    assert {t.state for t in record.trials} == {"COMPLETE"}


def test_a_search_that_did_all_its_trials_has_nothing_to_go_on_with(study: Study, now: Now) -> None:
    driver = driver_of(study, now)
    assert nothing_left(study.record(), now()) is None
    for _ in range(3):
        train(driver, begun(driver), range(1, 4))
    assert driver.next_trial() is Idle.DONE
    study.end(driver.ended_by)
    why = nothing_left(study.record(), now())
    assert why == "nothing is left to train: all trials done"


def test_a_used_up_budget_is_said_beforehand(now: Now) -> None:
    budget = Budget(trials=3, epochs=3, total_epochs=2)
    spec = SPEC.model_copy(update={"budget": budget})
    study = Storage.in_memory().create("x", spec, "abc", now)
    driver = driver_of(study, now)
    train(driver, begun(driver), range(1, 3))
    assert driver.must_end()
    assert nothing_left(study.record(), now()) == "its budget is used up: 2 of 2 epochs used"


def test_a_grid_that_was_walked_to_its_end_goes_on_in_a_larger_space(
    now: Now, tmp_path: Path
) -> None:
    spec = SPEC.model_copy(
        update={
            "parameters": {"backbone": Choices(choices=("resnet18", "squeezenet1_1"))},
            "sampler": Sampler(name="grid"),
            "budget": Budget(trials=9, epochs=3),
        }
    )
    study = Storage.in_memory().create("x", spec, "abc", now)
    driver = driver_of(study, now)
    while isinstance(work := driver.next_trial(), Work):
        train(driver, work, range(1, 4))
    study.end(driver.ended_by)
    told = "nothing is left to train: every configuration of the space was tried"
    assert nothing_left(study.record(), now()) == told

    def of(choices: str) -> SearchSpec:
        file = tmp_path / "bounds.yaml"
        file.write_text(f"parameters: {{backbone: {{choices: [{choices}]}}}}")
        return with_space(spec, file)

    record = study.record()
    assert nothing_left(replace(record, spec=of("squeezenet1_1")), now()) == told
    wider = of("resnet18, mobilenet_v2, squeezenet1_1")
    assert nothing_left(replace(record, spec=wider), now()) is None
    study = extended(study, wider, now)
    driver = driver_of(study, now)
    work = begun(driver)
    assert work.parameters == {"backbone": "mobilenet_v2"}
    train(driver, work, range(1, 4))
    assert driver.next_trial() is Idle.DONE
    assert nothing_left(study.record(), now()) == told


def test_time_without_a_driver_costs_nothing(study: Study, now: Now) -> None:
    dead = driver_of(study, now)
    work = begun(dead)
    train(dead, work, range(0))
    hours = study.record().gpu_hours(now.ms)
    now.ms += 10 * 3600 * 1000
    successor = driver_of(study, now)
    assert begun(successor).number == work.number
    record = study.record()
    assert record.gpu_hours(now.ms) < hours + 0.01
    assert successor._ledger.usage(now.ms).gpu_hours < hours + 0.01


def extended(study: Study, spec: SearchSpec, now: Now) -> Study:
    """The study as the next driver opens it."""
    study.extend(spec)
    study.reopen()
    return Study(study._study, now)


def test_complete_trials_go_on_to_a_longer_horizon(study: Study, now: Now) -> None:
    driver = driver_of(study, now)
    for _ in range(3):
        train(driver, begun(driver), range(1, 4))
    assert driver.next_trial() is Idle.DONE
    study.end(driver.ended_by)
    study = extended(study, with_budget(SPEC, {"epochs": 5, "trials": None}), now)
    assert nothing_left(study.record(), now()) is None
    driver = driver_of(study, now)
    for number in range(3):
        work = begun(driver)
        assert (work.number, work.trained_epochs) == (number, 3)
        train(driver, work, range(1, 6))
    assert driver.next_trial() is Idle.DONE
    record = study.record()
    assert [sorted(t.curve) for t in record.trials] == [[1, 2, 3, 4, 5]] * 3
    assert [(until > 0, spec) for until, spec in record.earlier] == [(True, SPEC)]
    assert changes(SPEC, record.spec) == "epochs 3 → 5"


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (ExitReason.SEARCH_ENDED, "KILLED"),
        (ExitReason.DIVERGED, "FAILED"),
        (ExitReason.CRASHED, "FAILED"),
        (None, "RUNNING"),
    ],
)
def test_what_was_complete_stays_so_whatever_becomes_of_its_longer_horizon(
    study: Study, now: Now, end: ExitReason | None, status: str
) -> None:
    driver = driver_of(study, now)
    for number in range(3):
        work = begun(driver)
        for epoch, error in enumerate((5.0 + number, 4.0 + number, 6.0), start=1):
            record = EpochRecord(epoch, 1, {"val_mae": error}, f"{number}/{epoch}", restored=False)
            driver.on_epoch(work.number, work.attempt, record)
    study.end(driver.ended_by)
    study = extended(study, with_budget(SPEC, {"epochs": 5}), now)
    study.take_up(0)
    study.record_epoch(0, EpochRecord(4, 1, {"val_mae": 4.5}, "0/4", restored=False))
    if end == ExitReason.DIVERGED:
        study.record_epoch(0, EpochRecord(5, 1, {"val_mae": math.nan}, "0/5", restored=False))
    if end:
        study.finish(0, end)
        study.end("stopped by its user")
    record = study.record()
    best = record.best()
    assert best is not None
    assert (best.number, best.value) == (0, 4.0)
    assert [t.number for t in best_trials(record)] == [0, 1, 2]
    kept = needed([record], registered=(), loadable=(), now_ms=now.ms + 99 * DAY_MS)
    assert {"0/2", "1/2", "2/2"} <= set(kept)
    assert [own.trial for own in front(record)] == [0]
    run = run_states(record)[1]
    assert (run.status, run.checkpoint_key) == (status, "0/2" if end else None)
    require_a_success(record)


def test_weights_of_before_stay_until_better_ones_can_be_counted_upon(
    study: Study, now: Now
) -> None:
    driver = driver_of(study, now)
    train(driver, begun(driver), range(1, 4))
    study = extended(study, with_budget(SPEC, {"epochs": 5}), now)
    study.take_up(0)
    study.record_epoch(0, EpochRecord(4, 1, {"val_mae": 1.0}, "key4", restored=False))
    study.finish(0, ExitReason.STOPPED_EARLY)
    kept = needed([study.record()], registered=(), loadable=(), now_ms=now.ms)
    assert {"key3", "key4"} <= set(kept)


def test_an_extension_goes_on_with_those_whose_states_are_kept(
    study: Study, now: Now, tmp_path: Path
) -> None:
    spec = SPEC.model_copy(update={"try_first": ({"backbone": "squeezenet1_1"},)})
    spec = spec.model_copy(update={"checkpoints": Checkpoints(keep_top=1)})
    study = Storage.in_memory().create("y", spec, "abc", now)
    for error in (5.0, 6.0, 7.0):
        number, settings = study.ask() or (-1, {})
        for epoch in (1, 2, 3):
            record = EpochRecord(epoch, 1, {"val_mae": error}, f"{number}/{epoch}", restored=False)
            study.record_epoch(number, record)
        study.finish(number, ExitReason.COMPLETED)
    study.end("all trials done")
    assert settings["backbone"] == "resnet18", "another one than that of the best"
    file = tmp_path / "without the best.yaml"
    file.write_text("parameters: {backbone: {choices: [resnet18]}}")
    study = extended(study, with_budget(with_space(spec, file), {"epochs": 5}), now)
    assert unfinished(study.record()) == []
    study = extended(study, with_budget(spec, {"epochs": 5}), now)
    assert [t.number for t in unfinished(study.record())] == [0]


def test_a_search_whose_rule_pauses_gets_a_longer_horizon(now: Now) -> None:
    """Its rungs move: from 2 and 6 of 10 epochs to 4 and 11 of 20."""
    spec = SPEC.model_copy(update={"stopping": Stopping(), "budget": Budget(trials=7, epochs=10)})
    study = Storage.in_memory().create("x", spec, "abc", now)
    driver = driver_of(study, now)
    while isinstance(work := driver.next_trial(), Work):
        train(driver, work, range(1, 11))
    study.end(driver.ended_by)
    resting = [t.number for t in study.record().trials if t.exit_reason == ExitReason.PAUSED]
    assert resting
    study = extended(study, with_budget(spec, {"epochs": 20}), now)
    assert nothing_left(study.record(), now()) is None
    driver = driver_of(study, now)
    while isinstance(work := driver.next_trial(), Work):
        train(driver, work, range(1, 21))
    assert study.record().count("RUNNING") == 0
    assert max(max(t.curve) for t in study.record().trials) == 20


def test_a_driver_that_died_while_it_ended_a_trial_leaves_it_running(
    study: Study, now: Now, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is two writes: the reason, and Optuna's state."""
    driver = driver_of(study, now)
    work = begun(driver)
    train(driver, work, range(1, 2))
    driver.ask_to_end("stopped by Ctrl-C", at_once=True)
    with monkeypatch.context() as dying:
        dying.setattr(study._study, "tell", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            driver.must_end()
    left = study.record().trials[0]
    assert (left.state, left.exit_reason, left.detail) == ("RUNNING", None, None)
    assert unfinished(study.record()) == []
    successor = driver_of(Study(study._study, now), now)
    again = begun(successor)
    assert again.number == work.number
    other = begun(successor)
    assert other.number != work.number, "it is handed out once"
    train(successor, again, range(1, 4))
    done = study.record().trials[0]
    assert (done.state, done.exit_reason, done.detail) == ("COMPLETE", "completed", None)


def test_only_time_with_a_worker_is_counted(study: Study, now: Now) -> None:
    hour_ms = 3600 * 1000
    driver = driver_of(study, now)

    def used() -> float:
        hours = study.record().gpu_hours(now.ms)
        assert driver._ledger.usage(now.ms).gpu_hours == pytest.approx(hours, abs=0.01)
        assert Ledger.of(study.record()).usage(now.ms).gpu_hours == pytest.approx(hours, abs=0.01)
        return round(hours, 1)

    def reports(work: Work, epoch: int) -> None:
        record = EpochRecord(epoch, now.ms, {"val_mae": 9.0}, f"key{epoch}", restored=False)
        driver.on_epoch(work.number, work.attempt, record)

    work = begun(driver)
    now.ms += hour_ms  # no worker is free
    assert used() == 0
    driver.on_start(work.number, work.attempt, "10.0.0.7", 4711)
    now.ms += hour_ms
    reports(work, 1)
    assert used() == 1
    driver.on_end(work.number, work.attempt, ExitReason.PREEMPTED, "its node is gone")
    now.ms += hour_ms
    assert used() == 1
    again = begun(driver)
    driver.on_start(again.number, again.attempt, "10.0.0.8", 4711)
    now.ms += hour_ms
    reports(again, 2)
    assert used() == 2
    driver = driver_of(study, now)  # after hours without a driver
    now.ms += 9 * hour_ms
    assert used() == 2
    last = begun(driver)
    driver.on_start(last.number, last.attempt, "10.0.0.8", 4712)
    now.ms += hour_ms
    assert used() == 3
    reports(last, 3)
    now.ms += 9 * hour_ms
    assert used() == 3
    assert study.record().trials[0].state == "COMPLETE"


def test_trials_outside_new_bounds_stay_as_history(study: Study, now: Now, tmp_path: Path) -> None:
    driver = driver_of(study, now)
    for _ in range(2):
        train(driver, begun(driver), range(1, 4))
    interrupted = begun(driver)
    driver.ask_to_end("stopped by its user")
    assert driver.must_end()
    before = study.record()
    rate = interrupted.parameters["learning_rate"]
    assert isinstance(rate, float)
    file = tmp_path / "new bounds.yaml"
    file.write_text(
        f"parameters: {{learning_rate: {{low: {2 * rate}, high: {64 * rate}, log: true}},"
        " backbone: {choices: [mobilenet_v2, resnet18]}}"
    )
    spec = with_budget(with_space(SPEC, file), {"trials": 8})
    study = extended(study, spec, now)
    assert interrupted.number not in {t.number for t in unfinished(study.record())}
    driver = driver_of(study, now)
    new = [begun(driver) for _ in range(5)]
    for work in new:
        assert spec.holds(work.parameters)
        train(driver, work, range(1, 4))
    assert {w.parameters["backbone"] for w in new} <= {"mobilenet_v2", "resnet18"}
    record = study.record()
    assert record.trials[:3] == before.trials
    study._sampled_from.look()
    shown = study._sampled_from.get_trials()
    inside = [t.number for t in record.trials if spec.holds(t.parameters)]
    assert sorted(t.number for t in shown) == inside
    assert len(inside) < len(record.trials)
    for trial in shown:
        assert trial.distributions == shown[-1].distributions, "samplers compare them"


NAMED = ("resnet101", "resnet50", "resnet18")


def named_search(**stopping: Any) -> SearchSpec:
    return SPEC.model_copy(
        update={
            "parameters": SPEC.parameters | {"backbone": Choices(choices=NAMED)},
            "try_first": tuple({"backbone": name} for name in NAMED),
            "sampler": Sampler(name="random", variations=4),
            "stopping": Stopping.model_validate({"rule": "none"} | stopping),
            "budget": Budget(trials=12, epochs=3),
        }
    )


@pytest.mark.parametrize(
    ("begun_before", "kept", "next_ones"),
    [
        (1, ("resnet50", "resnet18"), ["resnet50", "resnet18"]),
        (2, ("resnet50", "resnet18"), ["resnet18"]),
        (2, ("resnet101", "resnet18"), ["resnet18"]),
        (1, ("resnet101", "resnet18"), ["resnet18"]),
        (1, ("resnet101", "resnet50"), ["resnet50"]),
        (3, ("resnet50", "resnet18"), []),
        (0, ("resnet18", "resnet50"), ["resnet50", "resnet18"]),
    ],
)
def test_narrower_bounds_pass_over_no_setting_that_is_to_be_tried_first(
    begun_before: int, kept: tuple[str, ...], next_ones: list[str], now: Now, tmp_path: Path
) -> None:
    spec = named_search()
    study = Storage.in_memory().create("x", spec, "abc", now)
    driver = driver_of(study, now)
    for _ in range(begun_before):
        train(driver, begun(driver), range(1, 4))
    file = tmp_path / "narrower.yaml"
    file.write_text(f"parameters: {{backbone: {{choices: [{', '.join(kept)}]}}}}")
    for _ in range(2):  # twice is as once
        study = extended(study, with_space(study.spec, file), now)
    driver = driver_of(study, now)
    new = []
    while isinstance(work := driver.next_trial(), Work):
        assert study.spec.holds(work.parameters)
        new.append(work)
        train(driver, work, range(1, 4))
        study = Study(study._study, now)  # a driver that starts again proposes the same
        driver = driver_of(study, now)
    assert [w.parameters["backbone"] for w in new][: len(next_ones)] == next_ones
    first = {t.number for t in study.record().trials if t.tried_first}
    assert first == {*range(begun_before), *(w.number for w in new[: len(next_ones)])}
    assert begun_before + len(new) == 12


def test_what_is_tried_first_after_an_extension_is_protected(now: Now, tmp_path: Path) -> None:
    spec = named_search(rule="stopping", protect_until=3, rungs=(1,))
    study = Storage.in_memory().create("x", spec, "abc", now)
    driver = driver_of(study, now)
    train(driver, begun(driver), range(1, 4))
    file = tmp_path / "narrower.yaml"
    file.write_text("parameters: {backbone: {choices: [resnet50, resnet18]}}")
    study = extended(study, with_space(spec, file), now)
    driver = driver_of(study, now)
    for error in (9.0, 10.0, 11.0, 12.0):  # ever worse
        work = begun(driver)
        for epoch in (1, 2, 3):
            record = EpochRecord(epoch, 1, {"val_mae": error}, f"key{epoch}", restored=False)
            driver.on_epoch(work.number, work.attempt, record)
    epochs = [len(t.curve) for t in study.record().trials]
    assert epochs[:3] == [3, 3, 3]
    assert epochs[4] == 1


def test_a_search_may_be_narrowed_to_where_a_condition_never_holds(tmp_path: Path) -> None:
    """Which settings are searched must stay, so the conditional one cannot be left out."""
    space = {
        "rotate_deg": Choices(choices=(0.0, 10.0, 20.0)),
        "rotate_share": Choices(choices=(0.44, 1.0), when={"rotate_deg": (20.0,)}),
    }
    first = ({"rotate_deg": 10.0}, {"rotate_share": 0.44})
    spec = SPEC.model_copy(update={"parameters": space, "try_first": first})
    file = tmp_path / "narrower.yaml"
    file.write_text("parameters: {rotate_deg: {choices: [0.0, 10.0]}}")
    found = with_space(spec, file)
    assert not found.holds({"rotate_deg": 20.0, "rotate_share": 0.44})
    assert found.try_first == ({"rotate_deg": 10.0},), "the other's setting cannot be had any more"
    file.write_text(
        "parameters: {rotate_deg: {choices: [0.0, 10.0]},"
        " rotate_share: {choices: [1.0], when: {rotate_deg: [20.0]}}}"
    )
    with pytest.raises(UserError, match=r"rotate_share\.when\.rotate_deg\.0: never so; got 20"):
        with_space(spec, file)


def test_what_a_new_condition_names_is_drawn_before_it(now: Now, tmp_path: Path) -> None:
    space = {
        "rotate_share": Range(low=0.2, high=1.0),
        "rotate_deg": Choices(choices=(0.0, 10.0, 20.0)),
        "learning_rate": SPEC.parameters["learning_rate"],
    }
    spec = SPEC.model_copy(update={"parameters": space, "budget": Budget(trials=8, epochs=3)})
    file = tmp_path / "x.yaml"
    file.write_text(
        "name: small\ndata: {train: /data/train}\nparameters:\n"
        "  learning_rate: {low: 1e-5, high: 1e-3, log: true}\n"
        "  rotate_deg: {choices: [0.0, 10.0, 20.0]}\n"
        "  rotate_share: {low: 0.2, high: 1.0, when: {rotate_deg: [10.0, 20.0]}}\n"
        "sampler: {name: random}\nbudget: {trials: 1, epochs: 1}\n"
    )
    found = with_space(spec, file)
    assert list(found.parameters) == ["rotate_deg", "rotate_share", "learning_rate"]
    driver = driver_of(Storage.in_memory().create("x", found, "abc", now), now)
    drawn = [begun(driver).parameters for _ in range(8)]
    assert all(map(found.holds, drawn))
    assert {len(settings) for settings in drawn} == {2, 3}


def test_a_grid_gets_no_parameter_without_one_from_a_file_of_another_sampler(
    tmp_path: Path,
) -> None:
    space = {"alpha": Range(low=0.5, high=1.0, step=0.5)}
    spec = SPEC.model_copy(update={"parameters": space, "sampler": Sampler(name="grid")})
    file = tmp_path / "x.yaml"
    file.write_text(
        "name: small\ndata: {train: /data/train}\nparameters: {alpha: {low: 0.1, high: 2.0}}\n"
        "sampler: {name: random}\nbudget: {trials: 1, epochs: 1}\n"
    )
    with pytest.raises(UserError, match=r"x\.yaml:3: parameters\.alpha: has no grid"):
        with_space(spec, file)


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"epochs": 2}, "budget.epochs: would be less than before; got 2; at least 3, in all"),
        ({"trials": 1}, "budget.trials: would be less than before"),
        ({"gpu_hours": 5.0}, "no limit before"),
    ],
)
def test_a_search_never_gets_less(wishes: dict[str, float | None], told: str) -> None:
    with pytest.raises(UserError, match=told):
        with_budget(SPEC, wishes)


WHOLE = """
name: small
data: {{train: {data}}}
parameters:
  learning_rate: {{low: 1e-6, high: 1e-3, log: true}}
  backbone: {{choices: [resnet18, squeezenet1_1]}}
fixed: {fixed}
sampler: {{name: random, seed: {seed}}}
budget: {{trials: 1, epochs: 1}}
"""


def test_a_file_whose_parameters_are_none_is_a_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "wider.yaml"
    file.write_text("parameters: 5\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"wider\.yaml:1: parameters: not parameters; got 5"):
        with_space(SPEC, file)


def test_of_a_whole_search_file_only_the_parameters_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(WHOLE.format(data="/data/train", fixed="{}", seed=0))
    found = with_space(SPEC, file)
    assert found.budget == SPEC.budget
    assert changes(SPEC, found) == "learning_rate 1e-05…0.001 log True → 1e-06…0.001 log True"
    assert math.isclose(found.parameters["learning_rate"].low, 1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (WHOLE.format(data="/other", fixed="{}", seed=0), "3: data: differs from the search"),
        (WHOLE.format(data="/data/train", fixed="{dropout: 0.1}", seed=0), "fixed"),
        (WHOLE.format(data="/data/train", fixed="{}", seed=1), "sampler.seed: differs"),
        ("parameters: {alpha: {low: 1, high: 2}}", "parameters: differs from the search"),
        ("parameters: {learning_rate: {low: 2, hihg: 3}}", "did you mean 'high'"),
        ("parameters: {backbone: {choices: [resnet17]}}", "backbone"),
    ],
)
def test_what_would_make_history_untrue_is_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=told):
        with_space(SPEC, file)
