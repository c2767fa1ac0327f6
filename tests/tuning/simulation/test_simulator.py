"""Whole searches under a virtual clock: the real study, rules and decisions, made-up trainings."""

import numpy as np
import pytest

from tuning.conductor import Conductor
from tuning.events import Idle, Work
from tuning.exits import ExitReason
from tuning.ledger import Ledger
from tuning.records import EpochRecord
from tuning.simulation.clock import VirtualClock
from tuning.simulation.simulator import Silent, Simulator, simulate
from tuning.simulation.surrogates import FAMILIES, SPACE, Curve, Surrogate
from tuning.space import Choices, Settings
from tuning.spec import Budget, Data, Resources, Sampler, SearchSpec, Stopping
from tuning.storage import Storage
from tuning.storing import AtOnce

EPOCHS = 27


def spec(sampler: Sampler, trials: int, rule: str = "promotion", **budget: float) -> SearchSpec:
    return SearchSpec(
        name="simulated",
        data=Data(train="simulated"),
        parameters=SPACE,
        sampler=sampler,
        stopping=Stopping(rule=rule, first_rung=1, compare="best"),  # type: ignore[arg-type]
        budget=Budget(trials=trials, epochs=EPOCHS, **budget),  # type: ignore[arg-type]
    )


class Noted:
    """Passes everything on and keeps what was decided; workers here outlive a driver, so all that
    they say is said in the name of the latest attempt."""

    def __init__(self, inner: Conductor) -> None:
        self.inner = inner
        self.decisions: list[object] = []

    def next_trial(self) -> Work | Idle:
        work = self.inner.next_trial()
        if work is not Idle.WAIT:
            self.decisions.append(
                (work.number, work.parameters) if isinstance(work, Work) else work
            )
        return work

    def on_start(self, number: int, attempt: int, node: str, pid: int) -> None:
        self.inner.on_start(number, attempt, node, pid)

    def on_epoch(self, number: int, attempt: int, record: EpochRecord) -> bool:
        attempt = self.inner._running._last[number]
        goes_on = self.inner.on_epoch(number, attempt, record)
        if record.epoch in (1, 3, 9):
            self.decisions.append((number, record.epoch, goes_on))
        return goes_on

    def on_note(self, number: int, text: str) -> None:
        self.inner.on_note(number, text)

    def on_end(self, number: int, attempt: int, cause: ExitReason, detail: str | None) -> None:
        self.inner.on_end(number, attempt, cause, detail)

    def hung(self) -> list[tuple[int, int]]:
        return self.inner.hung()

    def must_end(self) -> bool:
        return self.inner.must_end()


@pytest.mark.timeout(300)  # two searches by gp: two minutes on a busy machine
@pytest.mark.parametrize("rule", ["promotion", "stopping", "hyperband", "median"])
def test_a_driver_rebuilt_in_the_middle_takes_the_same_next_decisions(rule: str) -> None:
    """At least 50 of them, about proposals, pauses and trials to be taken up."""
    instance = Surrogate("rough", 3, EPOCHS)

    def decisions(restart_after: int | None) -> list[object]:
        clock, storage = VirtualClock(), Storage.in_memory()
        name = "gp-curves" if rule == "promotion" else "tpe"  # each takes seconds, and is seen once
        sampler = Sampler(name=name, startup_trials=20, seed=11)  # type: ignore[arg-type]
        study = storage.create("s", spec(sampler, 120, rule), "simulated", clock)
        noted = Noted(Conductor(study, Silent(), AtOnce(), clock))
        for step, _ in enumerate(Simulator(noted, instance.curve, clock, workers=8).steps()):
            if step == restart_after:
                successor = Conductor(storage.open("s", clock), Silent(), AtOnce(), clock)
                for _ in range(len(successor._waiting)):
                    successor.next_trial()
                noted.inner = successor
                noted.decisions.append("restart")
        return noted.decisions

    straight, restarted = decisions(None), decisions(150)
    before = restarted.index("restart")
    restarted.remove("restart")
    assert len(straight) - before > 50
    assert restarted == straight


def test_thousands_of_trials_thin_out_from_rung_to_rung() -> None:
    trials = 4_000
    trace, study = simulate(
        spec(Sampler(name="random"), trials), lambda _: flat_curve(float(next(values))), 16
    )
    record = study.record()
    assert len(record.trials) == trials
    thirds = [sum(len(t.epochs) >= e for t in record.trials) / trials for e in (2, 4, 10)]
    # ASHA lets a little more than each third go on: what led when few had come stays.
    assert thirds == pytest.approx([1 / 3, 1 / 9, 1 / 27], rel=0.15)
    assert record.count("RUNNING") == 0
    assert trace.epochs == sum(len(t.epochs) for t in record.trials)


values = iter(np.random.default_rng(5).normal(10, 1, size=20_000))


def flat_curve(value: float) -> Curve:
    level = np.full(EPOCHS, value)
    return Curve(level, level, seconds=100)


def test_every_trial_exists_once_however_often_it_was_paused() -> None:
    instance = Surrogate("crossing", 1, EPOCHS)
    trace, study = simulate(spec(Sampler(name="random"), 300), instance.curve, 8)
    record = study.record()
    assert len(record.trials) == 300
    assert trace.stretches > 300, "some were taken up again"
    assert trace.epochs == sum(len(t.epochs) for t in record.trials), "none was trained twice"
    reasons = {t.exit_reason for t in record.trials}
    assert reasons == {ExitReason.PAUSED, ExitReason.COMPLETED}
    held_h = sum(t.seconds(0) for t in record.trials) / 3600
    assert held_h == pytest.approx(trace.gpu_s / 3600)


def test_nan_crash_memory_and_repetition_end_as_they_must() -> None:
    fates: dict[object, Curve] = {
        "nan": Curve(np.full(9, 9.0), np.array([9.0, np.nan, *[9.0] * 7]), 100),
        "crash": Curve(np.full(9, 9.0), np.full(9, 9.0), 100, crashes_in=2),
        "memory": Curve(np.full(9, 9.0), np.full(9, 9.0), 100, out_of_memory=True),
        "good": Curve(np.full(9, 8.0), np.full(9, 8.0), 100),
    }
    names = ("resnet18", "resnet34", "resnet50", "resnet101")
    by_name = dict(zip(names, fates.values(), strict=True))
    search = SearchSpec(
        name="fates",
        data=Data(train="simulated"),
        parameters={"backbone": Choices(choices=names)},
        stopping=Stopping(rule="none"),
        sampler=Sampler(seed=2),
        budget=Budget(trials=5, epochs=9),
    )
    trace, study = simulate(search, lambda s: by_name[str(s["backbone"])], 1)
    ended = {t.parameters["backbone"]: t for t in study.record().trials[:4]}
    stated = {
        name: (ended[name].state, ended[name].exit_reason, len(ended[name].epochs))
        for name in names
    }
    assert stated == {
        "resnet18": ("PRUNED", "diverged", 2),
        "resnet34": ("FAIL", "crashed", 1),
        "resnet50": ("PRUNED", "out_of_memory", 0),
        "resnet101": ("COMPLETE", "completed", 9),
    }
    # The space holds four; the fifth proposal repeats one, and what was trained is not again.
    fifth = study.record().trials[4]
    assert fifth.exit_reason == ended[fifth.parameters["backbone"]].exit_reason
    assert study.record().count("RUNNING") == 0
    # The crash comes in the second epoch of each of its three attempts.
    assert trace.epochs <= 2 + 4 + 9 + 4


@pytest.mark.parametrize("how", ["diverges", "crashes"])
def test_where_the_leader_fails_late_one_of_those_that_waited_is_trained_to_its_end(
    how: str,
) -> None:
    seen = [np.full(EPOCHS, level) for level in (9.0, 8.0, 7.0)]
    if how == "diverges":
        seen[2][4] = np.nan
    crashes = [None, None, 5 if how == "crashes" else None]
    names = ("resnet18", "resnet34", "resnet50")
    curves = {
        n: Curve(s, s, 100, crashes_in=c) for n, s, c in zip(names, seen, crashes, strict=True)
    }
    search = spec(Sampler(name="grid"), 3).model_copy(
        update={"parameters": {"backbone": Choices(choices=names)}}
    )
    _, study = simulate(search, lambda s: curves[str(s["backbone"])], 1)
    ends = [t.exit_reason for t in study.record().trials]
    assert ends[:2] == [ExitReason.PAUSED, ExitReason.COMPLETED]
    assert study.record().ended == "all trials done"


@pytest.mark.parametrize(
    ("budget", "why"),
    [
        ({"total_epochs": 100}, "100 of 100 epochs used"),
        ({"gpu_hours": 2.0}, "of 2 GPU-hours used"),
        ({"wall_clock_minutes": 60.0}, "of 60 wall-clock minutes used"),
        ({"target_mae_deg": 9.0}, "target reached"),
        ({"patience": 10}, "no better error in 1"),
    ],
)
def test_the_first_end_that_is_reached_is_said(budget: dict[str, float], why: str) -> None:
    search = spec(Sampler(name="random", seed=1), 10_000, **budget)
    _, study = simulate(search, Surrogate("smooth", 0, EPOCHS).curve, 4)
    assert why in (study.record().ended or "")


def test_a_budget_of_cpus_is_used_up_in_cpu_hours() -> None:
    search = spec(Sampler(name="random", seed=1), 10_000, gpu_hours=2.0)
    search = search.model_copy(update={"resources": Resources(gpus_per_trial=0)})
    _, study = simulate(search, Surrogate("smooth", 0, EPOCHS).curve, 4)
    assert "of 2 CPU-hours used" in (study.record().ended or "")


def test_a_ledger_that_was_rebuilt_equals_the_one_that_ran_through() -> None:
    clock, storage = VirtualClock(), Storage.in_memory()
    search = spec(Sampler(name="random", seed=1), 60)
    study = storage.create("s", search, "simulated", clock)
    conductor = Conductor(study, Silent(), AtOnce(), clock)
    simulator = Simulator(conductor, Surrogate("rough", 0, EPOCHS).curve, clock, 4)
    for _ in simulator.steps():
        kept, again = conductor._ledger, Ledger.of(study.record())
        assert again.usage(clock()) == kept.usage(clock())
        assert again.running == kept.running


def test_surrogates_repeat_themselves_and_differ_by_seed() -> None:
    settings: Settings = {
        "alpha": 1.0,
        "bin_width": 3.0,
        "learning_rate": 1e-4,
        "decay_rate": 0.95,
        "unfreeze_epoch": 5,
        "backbone": "resnet18",
    }
    for family in FAMILIES:
        first, again, other = (
            Surrogate(family, seed, EPOCHS).curve(settings).seen_deg for seed in (1, 1, 2)
        )
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)
