"""The writer of runs, with as much of a server as it needs: slow, or with pages that shift."""

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any, cast
from unittest import mock

import mlflow.environment_variables as mlflow_environment
import pytest
from botocore.exceptions import EndpointConnectionError
from mlflow.entities import Experiment, Metric, Run, RunData, RunInfo, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList

from cluster.settings import Settings
from tuning.mlflow_client import (
    MlflowRuns,
    Registry,
    _whole_models,
    by_trial,
    connect,
    reachable,
)
from tuning.objects import Objects
from tuning.projection import Point, RunState
from usererror import UserError

CREATED_MS = 1000
SETTINGS = Settings(mlflow_uri="http://127.0.0.1:1", s3_endpoint="http://127.0.0.1:2")
NO_OBJECTS = cast("Objects", None)


def run(run_id: str, start_ms: int = CREATED_MS, **tags: str) -> Run:
    """Tags are given without ``hopetune.``, that of the parent run as ``parent``."""
    names = {"parent": "mlflow.parentRunId"}
    own = [RunTag(names.get(name, f"hopetune.{name}"), value) for name, value in tags.items()]
    info = RunInfo(run_id, "1", "", "RUNNING", start_ms, None, "active")
    return Run(info, RunData(tags=own))


def copied(experiment: str, original: Run) -> Run:
    info = original.info
    other = RunInfo(
        f"copy of {info.run_id}", experiment, "", info.status, info.start_time, None, "active"
    )
    return Run(other, original.data)


class Server:
    """Runs in pages of two, and creations of which the answer may come too late."""

    def __init__(self, *runs: Run) -> None:
        self.runs = {run.info.run_id: run for run in runs}
        self.late: list[Run] = []
        self.is_slow = False
        self.values: dict[str, list[float]] = {}
        self._numbers = itertools.count()

    def search_experiments(self, page_token: str | None) -> PagedList[Experiment]:  # noqa: ARG002
        return PagedList([self.get_experiment_by_name("hopetune")], None)

    def get_experiment_by_name(self, name: str) -> Experiment:
        return Experiment("1", name, "s3://bucket/1", "active")

    def search_runs(
        self,
        experiments: list[str],
        wanted: str,  # noqa: ARG002
        order_by: list[str],
        page_token: str | None,
    ) -> PagedList[Run]:
        assert (experiments, order_by) == (["1"], ["attributes.start_time ASC"])
        start = int(page_token or 0)
        ordered = sorted(self.runs.values(), key=lambda run: run.info.start_time)
        rest = len(ordered) > start + 2
        return PagedList(ordered[start : start + 2], str(start + 2) if rest else None)

    def create_run(
        self, experiment_id: str, start_ms: int, tags: dict[str, str], run_name: str
    ) -> Run:
        info = RunInfo(
            f"{run_name}-{next(self._numbers)}",
            experiment_id,
            "",
            "RUNNING",
            start_ms,
            None,
            "active",
        )
        made = Run(info, RunData(tags=[RunTag(name, value) for name, value in tags.items()]))
        if self.is_slow:
            self.late.append(made)
            raise MlflowException("Read timed out")
        self.runs[made.info.run_id] = made
        return made

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Any] = (),  # noqa: ARG002
        tags: Sequence[Any] = (),  # noqa: ARG002
    ) -> None:
        self.values.setdefault(run_id, []).extend(metric.value for metric in metrics)

    def set_terminated(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        pass

    def get_run(self, run_id: str) -> Run:
        return self.runs[run_id]

    def delete_run(self, run_id: str) -> None:
        del self.runs[run_id]


def writer(server: Server, monkeypatch: pytest.MonkeyPatch) -> MlflowRuns:
    monkeypatch.setattr("tuning.mlflow_client.connect", lambda *_, **__: server)
    return MlflowRuns(SETTINGS, NO_OBJECTS)


def states(status: str, *values: float) -> list[RunState]:
    """Of a search and its one trial."""
    tags = {"hopetune.search": "small", "hopetune.created_ms": str(CREATED_MS)}
    points = tuple(Point("val_mae", value, i, CREATED_MS + i) for i, value in enumerate(values))
    trial = RunState(
        0, "small-000", CREATED_MS, tags | {"hopetune.trial": "0"}, points=points, status=status
    )
    return [RunState(None, "small", CREATED_MS, tags, status=status), trial]


def test_a_run_that_a_slow_server_made_late_is_no_second_one_when_the_search_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server()
    runs = writer(server, monkeypatch)
    runs.bring("small", states("RUNNING")[:1])
    server.is_slow = True
    with pytest.raises(UserError, match="Read timed out"):
        runs.bring("small", states("RUNNING", 9.0))
    server.is_slow = False
    runs.bring("small", states("RUNNING", 9.0))
    server.runs |= {late.info.run_id: late for late in server.late}
    runs.bring("small", states("FINISHED", 9.0, 8.0))
    (trial,) = (run for run in server.runs.values() if "hopetune.trial" in run.data.tags)
    assert server.values[trial.info.run_id] == [9.0, 8.0]


def test_who_only_asks_for_a_run_deletes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [run(f"r{i}", CREATED_MS + i, trial="0", parent="p0") for i in range(3)]
    server = Server(run("p0"), run("p1"), *trials)
    assert writer(server, monkeypatch).parent_id("small", CREATED_MS) == "p0"
    assert len(server.runs) == 5


def test_a_run_that_is_in_two_pages_is_no_twin_of_its_own() -> None:
    repeated = [run("p"), run("a", trial="0"), run("a", trial="0"), run("b", 1001, trial="0")]
    found = by_trial(repeated, CREATED_MS)
    assert {t: [r.info.run_id for r in twins] for t, twins in found.items()} == {
        None: ["p"],
        0: ["a", "b"],
    }


@pytest.mark.parametrize("home", ["1", "2"])
def test_copies_in_another_experiment_are_left_alone(home: str) -> None:
    search = [run("p1"), run("a1", 1005, trial="0"), run("b1", 1006, trial="1")]
    copies = [copied("2", original) for original in search]
    found = by_trial([*copies, *search], CREATED_MS, {home})
    assert {t: [r.info.experiment_id for r in twins] for t, twins in found.items()} == {
        None: [home],
        0: [home],
        1: [home],
    }


def test_trials_whose_own_parent_was_deleted_are_known_by_where_searches_are() -> None:
    search = [run("a1", 1005, trial="0"), run("b1", 1006, trial="1")]
    copies = [copied("2", original) for original in search]
    for home, expected in (({"1"}, {"1"}), (set[str](), {"1", "2"})):
        found = by_trial([*copies, *search], CREATED_MS, home)
        assert {r.info.experiment_id for twins in found.values() for r in twins} == expected


def test_runs_of_another_search_of_that_name_are_none_of_this_one() -> None:
    ours = [
        run("parent", created_ms="1000"),
        run("child", 1005, created_ms="1000", trial="0"),
        run("of an earlier version", 1005, trial="1", parent="parent"),
        run("of no parent", 1006, trial="2"),
    ]
    others = [
        run("parent of another", 1001),
        run("tagged parent of another", 1000, created_ms="1001"),
        run("child of another", 1005, created_ms="1001", trial="0"),
        run("older child of another", 1005, trial="1", parent="parent of another"),
        run("from before this search was", 999, trial="2"),
        run("promotion", 1005, kind="promotion", trial="0"),
    ]
    found = by_trial([*others, *ours], CREATED_MS)
    assert {t: [r.info.run_id for r in twins] for t, twins in found.items()} == {
        None: ["parent"],
        0: ["child"],
        1: ["of an earlier version"],
        2: ["of no parent"],
    }


@pytest.fixture
def environment() -> Iterator[None]:
    """What a test writes into it is gone afterwards."""
    with mock.patch.dict(os.environ):
        for name in list(os.environ):
            if name.startswith(("MLFLOW_", "AWS_")):
                del os.environ[name]
        yield


def limits() -> tuple[int, int]:
    """Seconds for a request, and how often MLflow repeats it."""
    return (
        mlflow_environment.MLFLOW_HTTP_REQUEST_TIMEOUT.get(),
        mlflow_environment.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get(),
    )


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("theirs", "asking", "of_models"),
    [(None, (20, 1), (120, 1)), (("900", "5"), (900, 5), (900, 5))],
)
def test_whole_models_have_mlflows_own_time_and_what_the_environment_says_of_it_holds(
    theirs: tuple[str, str] | None, asking: tuple[int, int], of_models: tuple[int, int]
) -> None:
    if theirs:
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"], retries = theirs
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = retries
    connect(SETTINGS)
    assert limits() == asking
    with _whole_models():
        assert limits() == of_models
    assert limits() == asking


@pytest.mark.usefixtures("environment")
def test_mlflow_repeats_no_creation_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    repeats: list[int] = []

    class Noting(Server):
        def create_run(self, *arguments: Any, **named: Any) -> Run:
            repeats.append(limits()[1])
            return super().create_run(*arguments, **named)

    connect(SETTINGS)
    writer(Noting(), monkeypatch).bring("small", states("RUNNING", 9.0))
    assert repeats == [0, 0]
    assert limits() == (20, 1)


@pytest.mark.usefixtures("environment")
def test_the_registry_finds_artifacts_in_s3_by_itself(tmp_path: Any) -> None:
    settings = SETTINGS.model_copy(update={"s3_credentials_file": tmp_path / "keys"})
    os.environ["MLFLOW_S3_ENDPOINT_URL"] = "http://a.persons.choice"
    Registry(settings, MlflowRuns(settings, NO_OBJECTS))
    assert os.environ["MLFLOW_S3_ENDPOINT_URL"] == "http://a.persons.choice"
    assert os.environ["AWS_SHARED_CREDENTIALS_FILE"] == str(tmp_path / "keys")
    del os.environ["MLFLOW_S3_ENDPOINT_URL"]
    Registry(settings, MlflowRuns(settings, NO_OBJECTS))
    assert os.environ["MLFLOW_S3_ENDPOINT_URL"] == "http://127.0.0.1:2"


def test_artifacts_that_cannot_be_reached_in_s3_are_told_in_a_line() -> None:
    told = "^http://mlflow: the S3 server where it has its artifacts cannot be used; got .*:2"
    with pytest.raises(UserError, match=told), reachable("http://mlflow"):
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:2")
