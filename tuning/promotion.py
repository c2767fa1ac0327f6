"""From the best trial of a search to the champion, on evidence.

The candidate is evaluated once on the held-out set, beside the answer that costs nothing (always
the mean of the training poses) and beside the present champion. It replaces the champion only where
a paired bootstrap over the test images says that it is better.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.settings import Settings
from headpose.config import TRAINING_CODE_VERSION
from headpose.data.prepared import PreparedSet
from headpose.evaluate import PoseErrors, constant_baseline, pose_errors
from tuning.datasets import describe, open_set
from tuning.gate import Comparison, compare
from tuning.mlflow_client import CHECKPOINT_TAG, REPLACES_TAG, Candidate, MlflowRuns, Registry
from tuning.objects import Objects
from tuning.places import data_cache
from tuning.records import SearchRecord, TrialRecord
from tuning.trained import fetch_weights, place_of_test_set, predict_test
from usererror import UserError


@dataclass(frozen=True)
class Verdict:
    """What a promotion found and did."""

    search: str
    trial: int
    model_name: str
    errors: PoseErrors
    baseline: PoseErrors
    against_champion: Comparison | None
    """None where there was no champion, or a forced promotion could not evaluate it."""
    version: int | None
    """The new version; none where the champion stays."""
    reason: str


def promote(
    search: SearchRecord,
    settings: Settings,
    *,
    trial_number: int | None = None,
    force_why: str | None = None,
    tell: Callable[[str], None],
) -> Verdict:
    """Evaluates the best completed trial (or the one named) and makes it the champion if it is.

    Raises:
        UserError: no completed trial, no test set, a server that cannot be reached, a champion that
            cannot be evaluated, or another promotion that came first.
    """
    trial = _chosen(search, trial_number)
    objects = Objects(settings)
    runs = MlflowRuns(settings, objects)
    runs.check()  # before minutes of evaluation
    registry = Registry(settings, runs)
    cache = data_cache(settings)
    test = open_set(place_of_test_set(search), cache, objects)
    train = describe(search.spec.data.train, objects, search.fingerprint)
    with tempfile.TemporaryDirectory(prefix="hopetune-promote-") as scratch:
        weights, key = fetch_weights(trial, settings, objects, Path(scratch))
        tell(f"evaluating trial {trial.number} on {len(test.angles_deg)} test images")
        predicted = predict_test(weights, test)
        champion, comparison = registry.champion(search.spec.model_name), None
        if champion is not None:
            rival = _champions_answer(
                test, registry, search.spec.model_name, champion, Path(scratch), tell, force_why
            )
            comparison = None if rival is None else _compared(predicted, rival, test)
        errors = pose_errors(predicted, test.angles_deg)
        baseline = constant_baseline(train.angles_deg, test.angles_deg)
        reason = _refusal(comparison, force_why)
        version = None
        if reason is None:
            evidence = _evidence(search, trial, key, errors, baseline, test.fingerprint)
            evidence |= _of_the_decision(champion, comparison, force_why)
            fixed_too = {**search.spec.fixed, **trial.parameters}
            candidate = Candidate(
                search=search.name,
                created_ms=search.created_ms,
                trial=trial.number,
                weights_file=weights,
                params={name: str(value) for name, value in fixed_too.items()},
                metrics=errors.as_dict("test_") | {"baseline_test_mae": baseline.mae},
                evidence=evidence,
            )
            version = registry.register(search.spec.model_name, candidate, replaces=champion)
    return Verdict(
        search=search.name,
        trial=trial.number,
        model_name=search.spec.model_name,
        errors=errors,
        baseline=baseline,
        against_champion=comparison,
        version=version,
        reason=reason or _why(comparison, force_why),
    )


def _chosen(search: SearchRecord, number: int | None) -> TrialRecord:
    if number is not None:
        trial = search.trial(number)
        if trial is None:
            remedy = f"see `hopetune show {search.name}`"
            raise UserError(search.name, "no such trial", got=number, remedy=remedy)
        if trial.best_epoch is None:
            raise UserError(f"{search.name}: trial {number}", "has no checkpoint")
        return trial
    best = search.best()
    if best is None:
        remedy = f"see `hopetune show {search.name}`"
        raise UserError(search.name, "no trial is complete", remedy=remedy)
    return best


def _champions_answer(
    test: PreparedSet,
    registry: Registry,
    model_name: str,
    version: int,
    scratch: Path,
    tell: Callable[[str], None],
    force_why: str | None,
) -> NDArray[np.floating] | None:
    """Its angles, degrees (N, 3); none where it has none and the promotion is forced.

    Raises:
        UserError: this test set is none for the champion.
    """
    tell(f"evaluating the champion, version {version}, on the same images")
    folder = scratch / "champion"
    folder.mkdir()
    try:
        return predict_test(registry.download(model_name, version, folder), test)
    except UserError as error:
        if force_why is not None:
            tell(f"not compared: {error}")
            return None
        raise UserError(
            f"the champion, models:/{model_name}/{version}",
            "cannot be evaluated on this test set",
            got=str(error),
            remedy="mend that, give the search another `model_name`, or promote all the same with "
            "--force --why",
        ) from error


def _compared(
    predicted: NDArray[np.floating], rival: NDArray[np.floating], test: PreparedSet
) -> Comparison:
    return compare(_image_errors(predicted, test), _image_errors(rival, test))


def _image_errors(predicted: NDArray[np.floating], test: PreparedSet) -> NDArray[np.floating]:
    """Mean absolute error of each image over its three angles: (N, 3) to (N,) degrees."""
    errors: NDArray[np.floating] = np.abs(predicted - test.angles_deg).mean(axis=1)
    return errors


def _refusal(comparison: Comparison | None, force_why: str | None) -> str | None:
    if force_why is not None or comparison is None or comparison.is_better:
        return None
    return f"the champion stays: the candidate's gain is {comparison}, not surely above zero"


def _why(comparison: Comparison | None, force_why: str | None) -> str:
    if force_why is not None:
        return f"forced: {force_why}"
    return "the first champion" if comparison is None else f"better by {comparison}"


def _evidence(
    search: SearchRecord,
    trial: TrialRecord,
    checkpoint_key: str,
    errors: PoseErrors,
    baseline: PoseErrors,
    test_fingerprint: str,
) -> dict[str, str]:
    found = {f"test_{name}": f"{value:.4f}" for name, value in errors.as_dict("").items()}
    found |= {
        "baseline_mae": f"{baseline.mae:.4f}",
        "seeds": "1",
        "search": search.name,
        "trial": str(trial.number),
        "data_fingerprint": search.fingerprint,
        "test_fingerprint": test_fingerprint,
        "training_code": TRAINING_CODE_VERSION,
        CHECKPOINT_TAG: checkpoint_key,
    }
    return found


def _of_the_decision(
    champion: int | None, comparison: Comparison | None, force_why: str | None
) -> dict[str, str]:
    found = {}
    if champion is not None:
        found[REPLACES_TAG] = str(champion)
        found["gain_over_champion"] = str(comparison) if comparison else "not known"
    if force_why is not None:
        found["forced"] = force_why
    return found
