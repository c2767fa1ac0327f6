"""The real servers' life: up, again, killed, down, and up again with everything found.

One state directory, with a space and too long a name for unix sockets, passes through the tests
of this module in their order.
"""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from sqlalchemy import make_url

from cluster import jobs
from cluster.local import credentials, ports, postgres, processes, ray_head
from cluster.local.ports import is_free
from cluster.local.reservations import Reserve, reservations
from cluster.local.server import UnhealthyError
from cluster.local.servers import NAMES, ServerStatus, _end_leftovers, down, status, up
from cluster.local.state import StateDir
from cluster.settings import Settings, load_settings
from usererror import UserError

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("local") / "a state" / ("long" * 25)
    yield folder
    down(folder)


@contextlib.contextmanager
def occupied(port: int) -> Iterator[int]:
    """Something else listens on this port (or did before)."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            other.bind(("127.0.0.1", port))
            other.listen()
        yield port


def by_name(state_dir: Path) -> dict[str, ServerStatus]:
    return {server.name: server for server in status(state_dir)}


def pids(state_dir: Path) -> dict[str, int | None]:
    return {name: server.pid for name, server in by_name(state_dir).items()}


def all_processes(state_dir: Path) -> list[psutil.Process]:
    state = StateDir(state_dir)
    found = processes.marked(state_dir, NAMES)
    for name in NAMES:
        found += processes.family(processes.read_record(state.record(name)))
    return list(dict.fromkeys(found))


def s3(settings: Settings) -> Any:
    import boto3

    session = boto3.Session()
    session._session.set_config_variable("credentials_file", str(settings.s3_credentials_file))
    return session.client("s3", endpoint_url=settings.s3_endpoint)


@contextlib.contextmanager
def study(settings: Settings) -> Iterator[optuna.Study]:
    storage = optuna.storages.RDBStorage(settings.require("study_url"))
    try:
        yield optuna.create_study(study_name="kept", storage=storage, load_if_exists=True)
    finally:
        storage.engine.dispose()


def values(settings: Settings) -> list[float | None]:
    with study(settings) as kept:
        return [trial.value for trial in kept.trials]


def test_before_the_first_start(state_dir: Path) -> None:
    assert not any(server.healthy or server.pid for server in status(state_dir))
    down(state_dir)
    assert not state_dir.exists()


@contextlib.contextmanager
def taken_once_chosen(state_dir: Path) -> Iterator[list[int]]:
    """Listens on PostgreSQL's port as soon as `up` has chosen it, before PostgreSQL does."""
    taken: list[int] = []
    over = threading.Event()

    def take() -> None:
        while not (chosen := ports.load(StateDir(state_dir).ports)):
            if over.wait(0.005):
                return
        port = chosen["postgresql"]["sql"]
        with socket.create_server(("127.0.0.1", port)) as other:
            taken.append(port)
            other.settimeout(0.1)
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    other.accept()[0].close()

    taker = threading.Thread(target=take)
    taker.start()
    try:
        yield taken
    finally:
        over.set()
        taker.join()


def test_up_from_nothing_beside_taken_ports(state_dir: Path) -> None:
    lines: list[str] = []
    with occupied(5000), taken_once_chosen(state_dir) as taken:
        began_s = time.monotonic()
        settings = up(state_dir, logical_gpus=3, progress=lines.append)
        print(f"up from nothing: {time.monotonic() - began_s:.1f} s")
    assert settings.mlflow_uri != "http://127.0.0.1:5000"
    assert [f"port {port} was taken" in "".join(lines) for port in taken] == [True]
    assert make_url(settings.require("study_url")).port not in taken
    found = by_name(state_dir)
    assert set(found) == set(NAMES)
    assert all(server.healthy for server in found.values()), found
    assert load_settings(state_dir) == settings


def test_private(state_dir: Path) -> None:
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
    for file in (state_dir / "settings.toml", *(state_dir / "secrets").iterdir()):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_loopback_only(state_dir: Path) -> None:
    listening = {
        connection.laddr.ip
        for process in all_processes(state_dir)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_no_secret_on_a_command_line(state_dir: Path) -> None:
    settings = load_settings(state_dir)
    secrets = {settings.require("study_url")} | {
        word
        for file in (state_dir / "secrets").iterdir()
        for word in file.read_text().split()
        if len(word) >= 20
    }
    assert len(secrets) >= 6
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            assert not [secret for secret in secrets if secret in line], process.name()


def test_away_from_the_terminal(state_dir: Path) -> None:
    for name, pid in pids(state_dir).items():
        assert pid is not None
        assert os.getsid(pid) == pid != os.getsid(0), name
        assert psutil.Process(pid).ppid() != os.getpid(), name


def test_wrong_keys_are_refused(state_dir: Path) -> None:
    import boto3
    from botocore.exceptions import ClientError

    settings = load_settings(state_dir)
    stranger = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        aws_access_key_id="somebody",
        aws_secret_access_key="else",  # noqa: S106
        region_name="us-east-1",
    )
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        stranger.list_objects_v2(Bucket=settings.s3_bucket)
    stranger.close()


def test_objects_are_not_served_without_keys(state_dir: Path) -> None:
    """SeaweedFS's inner parts listen as well; its filer would hand out every object."""
    settings = load_settings(state_dir)
    client = s3(settings)
    client.put_object(Bucket=settings.s3_bucket, Key="private", Body=b"x")
    client.close()
    filer = ports.load(StateDir(state_dir).ports)["s3"]["filer"]
    url = f"http://127.0.0.1:{filer}/buckets/{settings.s3_bucket}/private"
    with pytest.raises(urllib.error.HTTPError, match="401") as caught:
        urllib.request.urlopen(url)
    caught.value.close()


def test_second_up_only_reports(state_dir: Path) -> None:
    before, lines = pids(state_dir), list[str]()
    began_s = time.monotonic()
    up(state_dir, progress=lines.append)
    print(f"up again: {time.monotonic() - began_s:.1f} s")
    assert pids(state_dir) == before
    assert len(lines) == len(NAMES)
    assert all("already up" in line for line in lines)


def test_databases_are_made_on_a_machine_that_stalls(state_dir: Path) -> None:
    state, pid = StateDir(state_dir), pids(state_dir)[postgres.NAME]
    assert pid is not None
    port = ports.load(state.ports)[postgres.NAME]["sql"]
    server = postgres.server(state, port, credentials.load_or_create(state.secrets))
    os.kill(pid, signal.SIGSTOP)
    goes_on = threading.Timer(5, os.kill, (pid, signal.SIGCONT))  # later than a look gives up
    try:
        with pytest.raises(UnhealthyError):
            server.check()
        goes_on.start()
        server.provide()
    finally:
        goes_on.cancel()
        os.kill(pid, signal.SIGCONT)


def test_of_the_environment_only_the_room_on_disk_counts(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pids(state_dir)
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")  # RFC 5737: nobody's
    monkeypatch.setenv("HOPETUNE_SPOOL_BYTES", "5000000000")
    monkeypatch.setenv("HOPETUNE_S3_BUCKET", "theirs")
    settings = up(state_dir)
    assert pids(state_dir) == before
    assert values(settings) == []
    for name in ("HOPETUNE_SPOOL_BYTES", "HOPETUNE_S3_BUCKET"):
        monkeypatch.delenv(name)
    workers = load_settings(state_dir)
    assert (workers.spool_bytes, workers.s3_bucket) == (5_000_000_000, "hopetune")


def test_a_head_of_another_environment_gives_way_unless_jobs_run_on_it(state_dir: Path) -> None:
    settings, before = load_settings(state_dir), pids(state_dir)
    file = StateDir(state_dir).record("ray")
    record = json.loads(file.read_text())
    assert record["fingerprint"] == ray_head.environment()
    file.write_text(json.dumps(record | {"fingerprint": "/opt/other with Ray 2.0"}))
    jobs.submit(settings, submission_id="theirs", entrypoint="sleep 300")
    with pytest.raises(UserError, match=r"jobs run on it; got '/opt/other with Ray 2\.0; 1 job"):
        up(state_dir)
    assert pids(state_dir) == before
    jobs.stop(settings, "theirs")
    deadline = time.monotonic() + 60
    while not jobs.get(settings, "theirs").finished:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert up(state_dir) == settings
    after = pids(state_dir)
    assert {name for name in NAMES if after[name] != before[name]} == {"ray"}


def test_two_at_once(state_dir: Path) -> None:
    before = pids(state_dir)
    both = [in_background(state_dir) for _ in range(2)]
    assert [process.wait(200) for process in both] == [0, 0]
    assert pids(state_dir) == before


def in_background(state_dir: Path) -> subprocess.Popen[bytes]:
    code = (
        "import sys, pathlib; from cluster.local.servers import up; up(pathlib.Path(sys.argv[1]))"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(state_dir)])


def test_damaged_settings_are_told(state_dir: Path) -> None:
    file = state_dir / "settings.toml"
    good = file.read_text()
    try:
        file.write_text(good + "mlflow_uri = \n")
        with pytest.raises(UserError, match=r"settings\.toml: not a settings file"):
            up(state_dir)
        file.write_text('ray_address = "head:6379"\n')
        with pytest.raises(UserError, match="did not start"):
            up(state_dir)
    finally:
        file.write_text(good)


def another_chooses(reserve: Reserve, ours: ports.Ports) -> set[int]:
    """What an `up` on another state directory would take now, if it had our ports last time."""
    return all_of(ports.choose(ours, (), lambda port: reserve(port, is_free)))


def all_of(chosen: ports.Ports) -> set[int]:
    return {port for name, roles in chosen.items() for port in ports.listened(name, roles.values())}


def test_killed_ones_start_again_where_they_were(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, before = load_settings(state_dir), pids(state_dir)
    ours, chosen_beside = ports.load(StateDir(state_dir).ports), list[set[int]]()

    def end_leftovers(state: StateDir, names: list[str]) -> None:
        with reservations() as reserve:
            chosen_beside.append(another_chooses(reserve, ours))
        _end_leftovers(state, names)

    monkeypatch.setattr("cluster.local.servers._end_leftovers", end_leftovers)
    with study(settings) as kept:
        kept.add_trial(optuna.trial.create_trial(value=1.5))
    lines: list[str] = []
    with reservations() as reserve:  # of another `up`, under way before they were killed
        chosen_beside.append(another_chooses(reserve, ours))
        for name in ("postgresql", "mlflow"):
            os.kill(before[name] or 0, signal.SIGKILL)  # only the first of each family
        assert up(state_dir, progress=lines.append) == settings
    assert len(chosen_beside) >= 2
    assert not any(all_of(ours) & theirs for theirs in chosen_beside)
    after = pids(state_dir)
    assert {name for name in NAMES if after[name] != before[name]} == {"postgresql", "mlflow"}
    assert values(settings) == [1.5]


@contextlib.contextmanager
def kept_from_another_up(wanted: list[int]) -> Iterator[None]:
    """Nobody else's `up` takes these ports; the tests beside this one start servers as well."""
    with reservations() as reserve:
        deadline = time.monotonic() + 60  # one may be looking at them now
        while not all(map(reserve, wanted)):
            assert time.monotonic() < deadline, wanted
            time.sleep(0.1)
        yield


def test_down_leaves_no_process_and_up_finds_everything(state_dir: Path) -> None:
    import mlflow

    settings = load_settings(state_dir)
    client = mlflow.MlflowClient(settings.mlflow_uri)
    experiment = client.create_experiment("kept")
    run = client.create_run(experiment, run_name="kept").info.run_id
    client.log_metric(run, "val_mae", 4.5, step=1)
    client.log_text(run, "hello", "note.txt")
    bucket = s3(settings)
    bucket.put_object(Bucket=settings.s3_bucket, Key="a/b", Body=b"c" * 1_000_000)
    listed = bucket.list_objects_v2(Bucket=settings.s3_bucket, Prefix="mlflow/")
    assert [item["Key"].rpartition("/")[2] for item in listed["Contents"]] == ["note.txt"]
    bucket.close()

    running = all_processes(state_dir)
    assert len(running) > 10
    used = [int(str(uri).rpartition(":")[2]) for uri in (settings.mlflow_uri, settings.s3_endpoint)]
    with kept_from_another_up(used):
        began_s = time.monotonic()
        down(state_dir)
        print(f"down: {time.monotonic() - began_s:.1f} s")
        assert [process for process in running if _runs(process)] == []
        assert all_processes(state_dir) == []
        assert all(is_free(port) for port in used)
        assert not list(
            Path("/tmp").glob(  # noqa: S108
                "seaweedfs-*-grpc-" + str(used[1] + 10_000) + ".sock"
            )
        )
    assert not (state_dir / "settings.toml").exists()
    assert not any(server.pid for server in status(state_dir))

    # An `up` that is killed in the middle, and then, beside a port that is taken by now:
    broken_off = in_background(state_dir)
    time.sleep(2.5)
    broken_off.kill()
    broken_off.wait()
    began_s = time.monotonic()
    settings = up(state_dir)
    print(f"up with data, after one killed: {time.monotonic() - began_s:.1f} s")
    assert all(server.healthy for server in status(state_dir))
    seaweeds = [p for p in all_processes(state_dir) if p.name() == "weed"]
    assert len(seaweeds) == 1
    check_everything_is_there(settings, experiment, run)


def check_everything_is_there(settings: Settings, experiment: str, run: str) -> None:
    import mlflow

    assert values(settings) == [1.5]
    client = mlflow.MlflowClient(settings.mlflow_uri)
    assert [found.info.run_id for found in client.search_runs([experiment])] == [run]
    assert client.get_run(run).data.metrics == {"val_mae": 4.5}
    assert [item.path for item in client.list_artifacts(run)] == ["note.txt"]
    bucket = s3(settings)
    body = bucket.get_object(Bucket=settings.s3_bucket, Key="a/b")["Body"].read()
    bucket.close()
    assert body == b"c" * 1_000_000


def test_s3_moves_to_another_port_with_its_data_and_mlflow_follows(state_dir: Path) -> None:
    before, old = pids(state_dir), load_settings(state_dir)
    family = processes.family_of(before["s3"] or 0)
    processes.end(family, signal_number=signal.SIGKILL, grace_s=5)
    port = int(str(old.s3_endpoint).rpartition(":")[2])
    with occupied(port):
        assert not is_free(port)
        settings = up(state_dir)
    assert settings.s3_endpoint != old.s3_endpoint
    after = pids(state_dir)
    assert {name for name in NAMES if after[name] != before[name]} == {"s3", "mlflow"}
    import mlflow

    client = mlflow.MlflowClient(settings.mlflow_uri)
    experiment = client.get_experiment_by_name("kept")
    assert experiment is not None
    run = client.search_runs([experiment.experiment_id])[0].info.run_id
    check_everything_is_there(settings, experiment.experiment_id, run)
    folder = client.download_artifacts(run, "note.txt")
    assert Path(folder).read_text() == "hello"


def test_down_twice(state_dir: Path) -> None:
    down(state_dir)
    down(state_dir)
    assert all_processes(state_dir) == []


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
