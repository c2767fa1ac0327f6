"""A search that cannot begin leaves nothing behind."""

from pathlib import Path
from typing import Any

import pytest
import ray
from pydantic import SecretStr

from cluster.settings import Settings
from tuning import driver, ray_nodes
from tuning.spec import Budget, Choices, Data, SearchSpec
from tuning.storage import Storage
from usererror import UserError


class Reached:
    """A store that is there."""

    def __init__(self, _settings: Settings) -> None:
        """Without a server."""

    def check(self, _bucket: str) -> None:
        """It is."""

    def check_writing(self, _folder: object) -> None:
        """It may be written to."""


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray says on a machine without a node of the cluster, or where its head does not answer."""

    def init(address: str, **_: Any) -> None:
        raise ConnectionError(f"Failed to connect to Ray cluster at {address}")

    monkeypatch.setattr(ray, "init", init)


@pytest.mark.usefixtures("nowhere")
def test_a_machine_outside_the_cluster_is_told_so() -> None:
    with pytest.raises(UserError, match=r"settings\.ray_address: .*got 'head:6379'.*submit"):
        ray_nodes.connect("head:6379", "any")


@pytest.mark.usefixtures("nowhere")
def test_a_search_without_its_cluster_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SearchSpec(
        name="small",
        data=Data(train="/data/train"),
        parameters={"backbone": Choices(choices=("resnet18",))},
        budget=Budget(trials=1, epochs=1),
    )
    url = f"sqlite:///{tmp_path}/study.db"
    settings = Settings(state_dir=tmp_path, study_url=SecretStr(url), ray_address="head:6379")
    monkeypatch.setattr(driver, "Objects", Reached)
    monkeypatch.setattr(driver, "_fingerprint", lambda *_: "abc")
    monkeypatch.setattr(driver, "require_stored", lambda *_: None)
    with pytest.raises(UserError, match=r"settings\.ray_address"):
        driver.drive("small-1", spec, settings)
    with Storage(url) as storage:
        assert storage.names() == []
        assert storage.drivers() == {}
