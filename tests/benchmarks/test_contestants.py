"""The comparison drives Ray's and Optuna's own classes as their manuals do."""

import warnings

import numpy as np
import pytest
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from tuning.simulation.clock import VirtualClock
from tuning.simulation.simulator import Simulator
from tuning.simulation.surrogates import SPACE, Curve, Surrogate

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of Ray's own modules
    from benchmarks.contestants import PlainOptuna, PlainRay

EPOCHS = 9


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_plain_ray_tells_stopped_trials_as_complete_and_leaves_nan_running() -> None:
    events = PlainRay(SPACE, EPOCHS, seed=1)
    curves = iter(
        Curve(np.full(EPOCHS, v), np.full(EPOCHS, v), 100)
        for v in [5.0, 6.0, 7.0, 8.0, 9.0, *[np.nan] * 100]
    )
    for _ in Simulator(events, lambda _: next(curves), VirtualClock(), 1, 40).steps():
        pass
    trials = events._searcher._ot_study.trials
    lengths = [len(t.intermediate_values) for t in trials[:6]]
    assert {t.state for t in trials[:5]} == {TrialState.COMPLETE}
    assert min(lengths[:5]) < EPOCHS - 1 <= max(lengths)
    assert trials[5].state == TrialState.RUNNING


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_plain_optuna_prunes_and_completes() -> None:
    events = PlainOptuna(SPACE, EPOCHS, RandomSampler(1), SuccessiveHalvingPruner())
    curve = Surrogate("smooth", 0, EPOCHS).curve
    Simulator(events, curve, VirtualClock(), 2, 100).run()
    states = {t.state for t in events._study.trials}
    assert {TrialState.COMPLETE, TrialState.PRUNED} <= states
