"""Jobs on a real Ray head: submitted once by name, followed, stopped; and wrong addresses."""

import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from cluster import job_client, jobs
from cluster.local.ports import is_free
from cluster.settings import Settings
from tests.chaos.gate import Gate
from usererror import UserError


def wait_for(settings: Settings, name: str, *statuses: str) -> None:
    deadline = time.monotonic() + 60
    while (status := jobs.status(settings, name)) not in statuses:
        assert time.monotonic() < deadline, f"{name} is still {status}"
        time.sleep(0.2)


@pytest.mark.servers
def test_submitted_once_by_name_and_followed(servers: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "say.py").write_text(
        "import os, sys, time\n"
        "print(os.environ['HOPETUNE_SETTINGS']); print(os.environ['MINE'])\n"
        "print(sys.executable, flush=True); time.sleep(1); print('end')\n"
    )
    for _ in range(2):
        name = jobs.submit(
            servers,
            submission_id="search-1.a_b",
            entrypoint="python say.py",
            working_dir=folder,
            env={"MINE": "a value"},
        )
        assert name == "search-1.a_b"
    text = "".join(jobs.logs(servers, name, follow=True))
    assert str(servers.state_dir / "settings.toml") in text
    assert "a value" in text
    assert sys.executable in text  # the same Python, through PATH
    assert text.rstrip().endswith("end")
    wait_for(servers, name, "SUCCEEDED")
    assert text.count("a value") == 1
    assert "a value" in "".join(jobs.logs(servers, name))
    # Whatever became of it, the name is taken.
    assert jobs.submit(servers, submission_id=name, entrypoint="exit 1") == name
    assert jobs.status(servers, name) == "SUCCEEDED"
    assert not jobs.stop(servers, name)


@pytest.mark.servers
def test_repeated_name_that_only_the_server_knows_of(
    servers: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once: both find no such job, and the second is answered HTTP 500."""
    jobs.submit(servers, submission_id="twice", entrypoint="true")
    truly, answers = jobs._find, [None]
    monkeypatch.setattr(
        jobs, "_find", lambda client, name: answers.pop() if answers else truly(client, name)
    )
    assert jobs.submit(servers, submission_id="twice", entrypoint="true") == "twice"
    assert not answers


@pytest.mark.servers
def test_stopped(servers: Settings) -> None:
    name = jobs.submit(servers, submission_id="long", entrypoint="sleep 99")
    wait_for(servers, name, "RUNNING")
    assert jobs.stop(servers, name)
    wait_for(servers, name, "STOPPED")
    assert name in [job.submission_id for job in jobs.list_jobs(servers)]
    assert jobs.get(servers, name).finished


@pytest.mark.servers
@pytest.mark.parametrize("fault", ["cut", "silent"])
def test_a_followed_log_outlives_its_connection(
    servers: Settings, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(jobs, "SILENCE_S", 4.0)
    gate = Gate(int(servers.require("ray_jobs_address").rpartition(":")[2]))

    def break_it() -> None:
        if fault == "silent":
            gate.strand()
        else:
            gate.shut("refuse")
            threading.Timer(2.0, gate.reopen).start()

    door = f"http://127.0.0.1:{gate.door('terminal')}"
    name = jobs.submit(
        servers,
        submission_id=f"followed-{fault}",
        entrypoint="for i in 0 1 2 3 4 5 6 7; do echo line $i; sleep 1; done",
    )
    text = ""
    through = servers.model_copy(update={"ray_jobs_address": door})
    for piece in jobs.logs(through, name, follow=True):
        if "line" not in text and "line" in piece:
            break_it()
        text += piece
    gate.close()
    lines = [line for line in text.splitlines() if line.startswith("line")]
    assert lines == [f"line {number}" for number in range(8)]
    assert jobs.status(servers, name) == "SUCCEEDED"


@pytest.mark.servers
def test_logical_gpus_and_loopback(servers: Settings, tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text(
        "import os, ray\n"
        f"ray.init({servers.ray_address!r}, log_to_driver=False)\n"
        "print('counted', ray.cluster_resources()['GPU'], ray.util.get_node_ip_address())\n"
        "names = ('OMP_NUM_THREADS', 'TUNE_DISABLE_AUTO_CALLBACK_LOGGERS')\n"
        "get = ray.remote(num_gpus=1)(lambda: [os.environ.get(name) for name in names])\n"
        "print('worker', ray.get(get.remote()))\n"
    )
    name = jobs.submit(
        servers, submission_id="count", entrypoint="python count.py", working_dir=tmp_path
    )
    text = "".join(jobs.logs(servers, name, follow=True))
    assert "counted 2.0 127.0.0.1" in text
    assert "worker ['1', '1']" in text


@pytest.mark.servers
def test_unknown_job(servers: Settings) -> None:
    for ask in (jobs.status, jobs.stop, lambda *a: list(jobs.logs(*a))):
        with pytest.raises(UserError, match="no such job on this cluster; got 'nobody'"):
            ask(servers, "nobody")


@pytest.mark.servers
def test_refused_token(servers: Settings, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0" * 64)
    wrong = servers.model_copy(update={"ray_token_file": tmp_path / "token"})
    with pytest.raises(UserError, match="refuses the token"):
        jobs.list_jobs(wrong)
    with pytest.raises(UserError, match="refuses the token; got 'no token'"):
        jobs.list_jobs(servers.model_copy(update={"ray_token_file": None}))


@pytest.mark.servers
def test_environment_does_not_lead_elsewhere(
    servers: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    jobs.list_jobs(servers)


def test_unreachable_address() -> None:
    port = next(port for port in range(24_000, 25_000) if is_free(port))
    nobody = Settings(ray_jobs_address=f"http://127.0.0.1:{port}")
    with pytest.raises(UserError, match=r"no Ray cluster answers.*hopetune up"):
        jobs.submit(nobody, submission_id="x", entrypoint="true")


def test_a_head_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_client, "TIMEOUTS_S", (1.0, 0.5))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = Settings(ray_jobs_address=f"http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(UserError, match=r"no Ray cluster answers.*timed out"):
            jobs.list_jobs(silent)


@pytest.mark.parametrize("address", ["head:8265", "ray://head:10001", "auto", "http://"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UserError, match="not the address of a Ray dashboard"):
        jobs.list_jobs(Settings(ray_jobs_address=address))


def test_missing_token_file(tmp_path: Path) -> None:
    settings = Settings(ray_jobs_address="http://h:1", ray_token_file=tmp_path / "absent")
    with pytest.raises(UserError, match="token of the Ray cluster cannot be read"):
        jobs.list_jobs(settings)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-x", "é", "a" * 201])
def test_illegal_name(name: str) -> None:
    with pytest.raises(UserError, match="job name: not legal"):
        jobs.submit(Settings(), submission_id=name, entrypoint="true")
