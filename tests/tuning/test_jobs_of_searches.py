"""What `submit`, `stop` and `resume` make of jobs: begun again, ended, found on their cluster."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster import jobs
from cluster.jobs import Job
from tuning.cli import control
from tuning.cli.main import app
from tuning.spec import load_spec
from tuning.storage import Storage
from usererror import UserError

FILE = Path(__file__).parents[2] / "search_spaces" / "quickstart.yaml"
SHA256 = {"search_file_sha256": hashlib.sha256(FILE.read_bytes()).hexdigest()}
OTHER = "http://other:8265"


def job(name: str, status: str, metadata: dict[str, str]) -> Job:
    return Job(name, status, "", "", None, None, metadata)


class Cluster:
    """Jobs as a head knows them, the latest last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known: list[Job] = []
        self.submitted: list[str] = []
        for name in ("again", "get", "status", "stop", "submit"):
            monkeypatch.setattr(jobs, name, getattr(self, name))

    def again(self, _: object, search: str) -> list[str]:
        return [job.submission_id for job in self.known if job.submission_id.startswith(search)]

    def get(self, _: object, name: str) -> Job:
        return next(job for job in self.known if job.submission_id == name)

    def status(self, settings: object, name: str) -> str:
        return self.get(settings, name).status

    def stop(self, settings: object, name: str) -> bool:
        return not self.get(settings, name).finished

    def submit(self, _: object, *, submission_id: str, **__: Any) -> str:
        self.submitted.append(submission_id)
        return submission_id


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    url = f"sqlite:///{tmp_path}/study.db"
    monkeypatch.setenv("HOPETUNE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("HOPETUNE_STUDY_URL", url)
    monkeypatch.setenv("HOPETUNE_RAY_JOBS_ADDRESS", "http://127.0.0.1:1")
    with Storage(url) as opened:
        yield opened


def hopetune(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def submit(name: str, *more: str) -> str:
    return hopetune("submit", str(FILE), "--name", name, *more)


@pytest.mark.parametrize("status", ["FAILED", "STOPPED"])
def test_a_job_that_died_before_its_search_began_is_followed_by_the_next(
    storage: Storage, cluster: Cluster, status: str
) -> None:
    cluster.known = [job("foo", status, {})]
    assert "search foo is submitted" in submit("foo")
    assert cluster.submitted == ["foo.r2"]
    cluster.known.append(job("foo.r2", "RUNNING", SHA256))  # and its answer got lost
    submit("foo")
    assert cluster.submitted == ["foo.r2", "foo.r2"]
    assert "its job is ended" in hopetune("stop", "foo")


def test_ones_own_cluster_may_be_named_otherwise(storage: Storage, cluster: Cluster) -> None:
    cluster.known = [job("foo", "FAILED", {})]
    submit("foo", "--address", "http://localhost:1/")
    assert cluster.submitted == ["foo.r2"]


def test_a_search_that_began_is_gone_on_with(storage: Storage, cluster: Cluster) -> None:
    storage.create("foo", load_spec(FILE), "fingerprint")
    cluster.known = [job("foo", "FAILED", SHA256)]
    with pytest.raises(UserError, match="go on with `hopetune resume foo`, or choose"):
        submit("foo")
    with pytest.raises(UserError, match=r"logs foo --address http://.*resume foo --addr"):
        submit("foo", "--address", OTHER)
    assert cluster.submitted == []


def test_what_is_not_in_the_study_is_not_resumed(storage: Storage, cluster: Cluster) -> None:
    cluster.known = [job("foo", "SUCCEEDED", {})]
    with pytest.raises(UserError, match="submitted before") as caught:
        submit("foo")
    assert "resume" not in str(caught.value)


@pytest.mark.parametrize("own", ["http://127.0.0.1:1", None])
def test_of_another_clusters_search_the_study_at_hand_does_not_say_that_it_never_began(
    storage: Storage, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    if own is None:
        monkeypatch.delenv("HOPETUNE_RAY_JOBS_ADDRESS")
    cluster.known = [job("foo", "FAILED", SHA256)]
    with pytest.raises(UserError, match="submitted before") as caught:
        submit("foo", "--address", OTHER)
    assert "resume" not in str(caught.value)
    assert cluster.submitted == []


def test_where_no_study_can_be_asked_nothing_is_begun_anew(
    storage: Storage, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOPETUNE_STUDY_URL", "sqlite:////nowhere/study.db")
    cluster.known = [job("foo", "FAILED", SHA256)]
    with pytest.raises(UserError, match="hopetune resume foo`"):
        submit("foo")
    assert cluster.submitted == []


def test_the_next_command_finds_the_same_cluster(storage: Storage, cluster: Cluster) -> None:
    assert "with `hopetune logs foo --follow`" in submit("foo")
    told = submit("foo", "--address", OTHER)
    assert f"with `hopetune logs foo --follow --address {OTHER}`" in told
    storage.create("foo", load_spec(FILE), "fingerprint")
    cluster.known = [job("foo", "FAILED", SHA256)]
    told = hopetune("resume", "foo", "--address", OTHER)
    assert f"as job foo.r2; follow it with `hopetune logs foo --follow --address {OTHER}`" in told
    cluster.known = [job("foo", "PENDING", SHA256)]
    with pytest.raises(UserError, match=f"logs foo --address {OTHER}`.* stop foo --addr"):
        hopetune("resume", "foo", "--address", OTHER)
    with (
        storage.driving("foo", print),
        pytest.raises(UserError, match=f"logs foo --follow --address {OTHER}`.* stop foo --addr"),
    ):
        hopetune("resume", "foo", "--address", OTHER)


@pytest.mark.parametrize("known", [[], [job("foo", "FAILED", SHA256)]])
def test_stop_ends_a_search_whose_driver_dies_meanwhile(
    storage: Storage, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, known: list[Job]
) -> None:
    storage.create("foo", load_spec(FILE), "fingerprint")
    cluster.known = known
    monkeypatch.setattr(control, "STOP_GRACE_S", 2.0)
    with contextlib.ExitStack() as driver:
        driver.enter_context(storage.driving("foo", print))
        monkeypatch.setattr(control, "time", Waiting(driver.close))
        told = hopetune("stop", "foo")
    assert "search foo had no driver any more; it is stopped" in told
    assert storage.open("foo").record().ended == "stopped by its user"


class Waiting:
    """A clock whose first sleep does something."""

    def __init__(self, first: Callable[[], None]) -> None:
        self._now_s, self._first = 0.0, first

    def monotonic(self) -> float:
        return self._now_s

    def sleep(self, seconds: float) -> None:
        self._now_s += seconds
        self._first()
