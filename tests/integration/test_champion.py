"""From a finished search to a champion that says where a head is looking."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.settings import Settings

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

LOAD = """
import sys, mlflow, numpy as np
for name in ("ray", "optuna", "tuning"):
    sys.modules[name] = None  # a user of the champion has none of these
model = mlflow.pyfunc.load_model("models:/small-model@champion")
degrees = model.predict(np.full((2, 50, 50, 3), 128, np.uint8))
assert degrees.shape == (2, 3) and np.abs(degrees).max() <= 99, degrees
print("loaded")
"""


@pytest.fixture(scope="module")
def promoted(
    servers: Settings, hopetune: Callable, published: tuple[str, str], tmp_path_factory
) -> dict[str, object]:  # type: ignore[no-untyped-def]
    """The verdict on the first candidate of a registry that had no champion."""
    path = tmp_path_factory.mktemp("search") / "promoted.yaml"
    path.write_text(
        f"""
name: promoted
model_name: small-model
data: {{train: {published[0]}, test: {published[1]}, validation_fraction: 0.2}}
parameters: {{learning_rate: {{choices: [1e-3]}}}}
fixed: {{backbone: squeezenet1_1, image_px: 32, batch_size: 16, alpha: 0.1}}
budget: {{trials: 1, epochs: 2}}
""",
        encoding="utf-8",
    )
    ran = hopetune("run", str(path), "--name", "promoted")
    assert ran.returncode == 0, ran.stderr
    done = hopetune("promote", "promoted", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_first_candidate_becomes_champion_with_both_errors_told(
    promoted: dict[str, object],
) -> None:
    assert promoted["version"] == 1
    assert promoted["against_champion"] is None
    for errors in ("errors", "baseline"):
        assert 0 < promoted[errors]["mae"] < 99  # type: ignore[index]


def test_the_champion_answers_where_only_mlflow_is_known(
    servers: Settings, promoted: dict[str, object], tmp_path: Path
) -> None:
    keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    loaded = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD],
        env=keep | {"MLFLOW_TRACKING_URI": servers.require("mlflow_uri")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "loaded" in loaded.stdout, loaded.stderr


def test_an_equal_candidate_is_refused(hopetune: Callable, promoted: dict[str, object]) -> None:
    refused = hopetune("promote", "promoted")
    assert refused.returncode == 3
    assert "the champion stays" in refused.stdout


def test_a_forced_promotion_is_recorded(
    servers: Settings, hopetune: Callable, promoted: dict[str, object]
) -> None:
    forced = hopetune("promote", "promoted", "--force", "--why", "a drill", "--json")
    assert forced.returncode == 0, forced.stderr
    assert json.loads(forced.stdout)["reason"] == "forced: a drill"
    from tuning.mlflow_client import connect

    version = connect(servers).get_model_version_by_alias("small-model", "champion")
    assert version.tags["forced"] == "a drill"
    assert version.tags["data_fingerprint"]


def test_predict_says_degrees_and_draws_axes(
    hopetune: Callable, promoted: dict[str, object], faces: Path, tmp_path: Path
) -> None:
    picture = next(p for p in sorted((faces / "AFLW2000").glob("*.jpg")))
    copy = tmp_path / "a face.jpg"
    copy.write_bytes(picture.read_bytes())
    done = hopetune(
        "predict", str(copy), "--model", "small-model", "--out", str(tmp_path / "out"), "--json"
    )
    assert done.returncode == 0, done.stderr
    (prediction,) = json.loads(done.stdout)
    assert all(abs(prediction[f"{name}_deg"]) <= 99 for name in ("yaw", "pitch", "roll"))
    drawing = Path(prediction["drawing"])
    assert drawing.read_bytes() != b""
    assert copy.read_bytes() == picture.read_bytes()


def test_a_model_without_a_champion_is_a_clear_error(hopetune: Callable, faces: Path) -> None:
    picture = str(next((faces / "AFLW2000").glob("*.jpg")))
    done = hopetune("predict", picture, "--model", "nobody")
    assert done.returncode == 2
    assert "error: models:/nobody@champion: no champion" in done.stderr
