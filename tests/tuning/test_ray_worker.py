"""What a worker says of attempts that fail for no reason of its process."""

import importlib
from pathlib import Path
from typing import Any

import pytest
from ray.tune.execution.class_cache import _ActorClassCache

from tuning.exits import ExitReason
from tuning.ray_worker import (
    DETAIL,
    ENDED,
    FINGERPRINT,
    PARAMETERS,
    SPEC,
    TRAINED,
    HeadposeTrainable,
)
from tuning.spec import Budget, Choices, Data, SearchSpec


def work(place: str) -> dict[str, Any]:
    spec = SearchSpec(
        name="small",
        data=Data(train=place),
        parameters={"backbone": Choices(choices=("squeezenet1_1",))},
        budget=Budget(trials=1, epochs=1),
    )
    return {
        SPEC: spec.model_dump_json(),
        PARAMETERS: {"backbone": "squeezenet1_1"},
        TRAINED: (0, 0.0),
        FINGERPRINT: "0" * 64,
    }


def test_no_secret_of_the_drivers_environment_travels_to_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever sees the dashboard sees what an actor's environment is set to."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "secret")
    importlib.import_module("tuning.ray_tune")
    actor = _ActorClassCache().get(HeadposeTrainable)
    assert "secret" not in str(actor._default_options)
    assert "PL_DISABLE_FORK" in str(actor._default_options), "there it would be"


def test_a_node_without_settings_is_told_from_a_wrong_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOPETUNE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("HOPETUNE_S3_CREDENTIALS_FILE", str(tmp_path / "absent"))
    worker = HeadposeTrainable(work(str(tmp_path / "set")))
    try:
        said = worker.step()
        assert said[ENDED] == ExitReason.UNFIT_NODE
        assert f"{tmp_path}/absent: no S3 credentials file" in said[DETAIL]
        # Mended, the same process goes on to what is missing next.
        monkeypatch.delenv("HOPETUNE_S3_CREDENTIALS_FILE")
        worker.reset_config(work(str(tmp_path / "set")))
        said = worker.step()
        assert said[ENDED] == ExitReason.UNFIT_NODE
        assert f"{tmp_path}/set: no prepared data set" in said[DETAIL]
    finally:
        worker.cleanup()
