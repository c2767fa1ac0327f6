"""From a finished search to a champion that says where a head is looking."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cluster.settings import Settings
from headpose.bins import Binning
from headpose.data.prepared import PreparedSet
from headpose.networks.network import build_network
from headpose.networks.snapshots import LoadedNetwork, weights_to_bytes
from tuning import promotion
from tuning.mlflow_client import Candidate, MlflowRuns, Registry, connect
from tuning.objects import Objects
from tuning.storage import Storage
from usererror import UserError

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

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
    version = connect(servers).get_model_version_by_alias("small-model", "champion")
    assert version.tags["forced"] == "a drill"
    assert version.tags["data_fingerprint"]
    run = connect(servers).get_run(version.run_id)
    assert run.data.params.keys() >= {"learning_rate", "image_px", "backbone"}, "fixed ones too"


def test_a_rollback_brings_back_the_version_that_the_champion_replaced(
    servers: Settings, hopetune_here: Callable, promoted: dict[str, object], storage: Storage
) -> None:
    client = connect(servers)
    registry = Registry(servers, MlflowRuns(servers, Objects(servers)))
    former = client.create_model_version("small-model", "models:/small-model/1", tags={})
    present = client.create_model_version(
        "small-model", "models:/small-model/1", tags={"replaces_version": former.version}
    )
    champion = registry.champion("small-model")
    client.set_registered_model_alias("small-model", "champion", present.version)
    try:
        done = hopetune_here("rollback", "--model", "small-model")
        told = f"small-model version {former.version} is champion again, instead of version"
        assert told in done.stdout, done.stderr
        assert registry.champion("small-model") == int(former.version)
        done = hopetune_here("rollback", "--model", "small-model")
        assert done.returncode == 2
        assert f"models:/small-model/{former.version}: the champion replaced no" in done.stderr
        client.set_registered_model_alias("small-model", "champion", present.version)
        client.delete_model_version("small-model", former.version)
        done = hopetune_here("rollback", "--model", "small-model")
        assert done.returncode == 2
        assert f"replaced was deleted; got 'version {former.version}'" in done.stderr
        assert registry.champion("small-model") == int(present.version)
    finally:
        client.set_registered_model_alias("small-model", "champion", str(champion))
    assert "no champion to roll back" in hopetune_here("rollback", "--model", "nobody").stderr


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred")
def test_a_champion_that_cannot_be_evaluated_is_told_and_replaced_only_by_force(
    servers: Settings,
    storage: Storage,
    promoted: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record, whole, asked = storage.open("promoted").record(), promotion.predict_test, []

    def of_the_candidate_alone(weights: Path, test: PreparedSet) -> NDArray[np.floating]:
        asked.append(weights)
        if len(asked) % 2 == 0:
            raise UserError("image_px", "the prepared pictures are too coarse")
        return whole(weights, test)

    monkeypatch.setattr(promotion, "predict_test", of_the_candidate_alone)
    told = r"^the champion, models:/small-model/\d+: cannot be evaluated .*too coarse.*--force"
    with pytest.raises(UserError, match=told):
        promotion.promote(record, servers, tell=lambda _: None)
    forced = promotion.promote(record, servers, force_why="a drill", tell=lambda _: None)
    assert forced.against_champion is None
    version = connect(servers).get_model_version_by_alias("small-model", "champion")
    assert int(version.version) == forced.version
    assert version.tags["gain_over_champion"] == "not known"


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred")
def test_of_two_promotions_at_once_the_later_one_replaces_nobody(
    servers: Settings, promoted: dict[str, object], tmp_path: Path
) -> None:
    weights = tmp_path / "weights.safetensors"
    network = LoadedNetwork(build_network("squeezenet1_1", 66, seed=1), Binning(), 32)
    weights.write_bytes(weights_to_bytes(network))
    candidate = Candidate("promoted", 0, 0, weights, {}, {}, {})
    registry = Registry(servers, MlflowRuns(servers, Objects(servers)))
    champion = registry.champion("small-model")
    for compared_with in (None, 99):
        with pytest.raises(
            UserError, match=f"another promotion came first; got 'version {champion}"
        ):
            registry.register("small-model", candidate, replaces=compared_with)
    assert registry.champion("small-model") == champion


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


def test_a_model_without_a_champion_is_a_clear_error(
    hopetune: Callable, promoted: dict[str, object], faces: Path
) -> None:
    picture = str(next((faces / "AFLW2000").glob("*.jpg")))
    done = hopetune("predict", picture, "--model", "nobody")
    assert done.returncode == 2
    assert "error: models:/nobody@champion: no champion" in done.stderr
    assert "or name another model with --model: small-model\n" in done.stderr
