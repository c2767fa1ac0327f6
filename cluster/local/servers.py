"""``hopetune up``, ``status`` and ``down``: the local servers as one thing.

Safe to run at any time and again: ``up`` starts what is not running and reports the rest, ``down``
ends everything that any ``up`` on this state directory has started, and data is found again.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from cluster.local import credentials as secret_files
from cluster.local import mlflow_server, ports, postgres, processes, ray_head, seaweed
from cluster.local.credentials import Credentials
from cluster.local.files import write_private
from cluster.local.reservations import Reserve, reservations
from cluster.local.server import Progress, Server, UnhealthyError, ensure_running, stop
from cluster.local.state import StateDir
from cluster.settings import (
    Settings,
    is_written_by_up,
    load_settings,
    read_settings_file,
    to_toml,
)
from usererror import UserError

NAMES = (postgres.NAME, seaweed.NAME, mlflow_server.NAME, ray_head.NAME)
BUCKET = "hopetune"

_LEFTOVER_GRACE_S = 10.0
_STATUS_PATIENCE_S = 20.0
"""How long a server that runs may go unanswering, on a machine that stalls, before it is called
down; untuned."""
_PORT_PATIENCE_S = 3.0
_PORT_CHOICES = 3
_LOOK_PAUSE_S = 0.5
_NOT_STARTED = Path("/nonexistent")


@dataclass(frozen=True)
class ServerStatus:
    """How one local server is.

    Attributes:
        address: where it listens; None if it was never started.
        pid: None if it does not run.
        healthy: it runs and answers.
        detail: what is wrong, in words; empty if nothing is.
    """

    name: str
    address: str | None
    pid: int | None
    healthy: bool
    detail: str


def up(state_dir: Path, *, logical_gpus: int | None = None, progress: Progress = print) -> Settings:
    """Have all local servers running and well, starting those that are not.

    Args:
        state_dir: holds all data, logs and secrets; made if missing.
        logical_gpus: how many GPUs Ray is to count on a machine without one (2), which is how
            many trials run at a time; acts when Ray starts, not on one that already runs.
        progress: takes a line now and then, from several threads in turn.

    Returns:
        The settings, which are also in ``state_dir/settings.toml``.

    Raises:
        UserError: bad arguments, damaged files, servers that run on another machine, or a server
            that does not get well (names its log).
    """
    if logical_gpus is not None and logical_gpus < 0:
        raise UserError("--gpus", "too few", got=logical_gpus, rule="at least 0")
    state = StateDir(state_dir.expanduser().absolute())
    state.create()
    with state.lock(progress) as lock_fd, reservations() as reserve:
        _refuse_another_machine(state)
        _refuse_other_settings(state)
        credentials = secret_files.load_or_create(state.secrets)
        gpus = ray_head.DEFAULT_LOGICAL_GPUS if logical_gpus is None else logical_gpus
        chosen = _start_where_there_is_room(
            state, credentials, gpus, reserve, lock_fd, _one_at_a_time(progress)
        )
        settings = _settings(state, chosen, credentials)
        write_private(state.settings, to_toml(settings))
    return settings


def status(state_dir: Path) -> list[ServerStatus]:
    """How each local server is; changes nothing."""
    state = StateDir(state_dir.expanduser().absolute())
    remembered = ports.load(state.ports)
    if not remembered:
        return [ServerStatus(name, None, None, False, "never started") for name in NAMES]
    credentials = secret_files.load_or_create(state.secrets)
    servers = _build(state, remembered, credentials)
    with ThreadPoolExecutor(len(servers)) as pool:
        return list(pool.map(lambda server: _status_of(server, state), servers.values()))


def down(state_dir: Path, *, progress: Progress = print) -> None:
    """End every process that ``up`` started on this state directory; the data stays.

    Raises:
        UserError: another ``up`` or ``down`` does not end, the servers run on another machine, or
            a process could not be ended.
    """
    state = StateDir(state_dir.expanduser().absolute())
    if not state.root.is_dir():  # nor can anybody be starting servers there
        _end_leftovers(state, NAMES)
        return
    with state.lock(progress):
        _refuse_another_machine(state)
        remembered = ports.load(state.ports)
        if remembered:
            credentials = secret_files.load_or_create(state.secrets)
            servers = _build(state, remembered, credentials)
            # Those that use the others go first.
            for names in ((ray_head.NAME, mlflow_server.NAME), (seaweed.NAME, postgres.NAME)):
                with ThreadPoolExecutor(len(names)) as pool:
                    list(pool.map(lambda name: stop(servers[name], state), names))
            seaweed.remove_sockets(remembered[seaweed.NAME])
        _end_leftovers(state, NAMES)
        state.remove_short_folder()
        if is_written_by_up(state.settings):
            state.settings.unlink()


def _start_where_there_is_room(
    state: StateDir,
    credentials: Credentials,
    logical_gpus: int,
    reserve: Reserve,
    lock_fd: int,
    progress: Progress,
) -> ports.Ports:
    """The ports on which all servers are up; others are chosen where one was taken in between.

    A reservation holds off another ``up``, not a program that asks nobody.
    """
    for choices_left in reversed(range(_PORT_CHOICES)):
        alive = _alive(state)  # looked at once: what dies from here on is found when it is started
        _hold_ports(state, reserve)
        _end_leftovers(state, [name for name in NAMES if name not in alive])
        chosen = _choose_ports(state, alive, reserve)
        servers = _build(
            state,
            chosen,
            credentials,
            short_folder=state.short_folder(),
            logical_gpus=logical_gpus,
        )
        try:
            _start(servers, state, lock_fd, progress)
        except UserError:
            if not choices_left or not (lost := _lost_ports(state, chosen)):
                raise
            progress(f"port {lost[0]} was taken by another program meanwhile; choosing again")
        else:
            break
    return chosen


def _lost_ports(state: StateDir, chosen: ports.Ports) -> list[int]:
    """Ports on which somebody listens although the server they were chosen for does not run."""
    alive = _alive(state)
    # Not the others': a start that was broken off beside it may still be under way.
    ended = [name for name in NAMES if name not in alive and state.record(name).exists()]
    theirs = [port for name in ended for port in ports.listened(name, chosen[name].values())]
    return [port for port in theirs if not ports.is_free(port)]


def _build(
    state: StateDir,
    chosen: ports.Ports,
    credentials: Credentials,
    *,
    short_folder: Path = _NOT_STARTED,
    logical_gpus: int = ray_head.DEFAULT_LOGICAL_GPUS,
) -> dict[str, Server]:
    """The servers by name; what only a start needs may be left out to look at them or end them."""
    return {
        server.name: server
        for server in (
            postgres.server(state, chosen[postgres.NAME]["sql"], credentials),
            seaweed.server(state, chosen[seaweed.NAME], credentials, BUCKET, short_folder),
            mlflow_server.server(state, chosen, credentials, BUCKET),
            ray_head.server(state, chosen[ray_head.NAME], credentials, short_folder, logical_gpus),
        )
    }


def _hold_ports(state: StateDir, reserve: Reserve) -> None:
    """Of servers that do not answer or were killed, which start again where they were: before what
    is left of them ends, so that no other ``up`` comes in between."""
    remembered = ports.load(state.ports)
    for name in NAMES:
        if state.record(name).exists():
            for port in ports.listened(name, remembered.get(name, {}).values()):
                reserve(port)


def _choose_ports(state: StateDir, alive: list[str], reserve: Reserve) -> ports.Ports:
    remembered = ports.load(state.ports)
    # A server that was just killed may hold its ports for another moment. One that ended in
    # order has no record, and whoever holds its ports by now may keep them.
    died = [name for name in NAMES if name not in alive and state.record(name).exists()]
    deadline = time.monotonic() + _PORT_PATIENCE_S
    wanted = [port for name in died for port in remembered.get(name, {}).values()]
    while not all(map(ports.is_free, wanted)) and time.monotonic() < deadline:
        time.sleep(0.1)
    # Reserved first, looked at then: whoever held it before us may listen on it by now.
    chosen = ports.choose(remembered, alive, lambda port: reserve(port, _suits))
    ports.save(state.ports, chosen)
    return chosen


def _suits(port: int) -> bool:
    """Whether a server could start on a port now."""
    return ports.is_free(port) and not seaweed.is_barred(port)


def _alive(state: StateDir) -> list[str]:
    records = {name: processes.read_record(state.record(name)) for name in NAMES}
    return [name for name, record in records.items() if record is not None and record.alive]


def _start(servers: dict[str, Server], state: StateDir, lock_fd: int, progress: Progress) -> None:
    """All at once, but for MLflow, which needs PostgreSQL at its start."""
    cancelled = threading.Event()

    def run(*names: str) -> None:
        for name in names:
            ensure_running(
                servers[name], state, lock_fd=lock_fd, progress=progress, cancelled=cancelled
            )

    chains = ((ray_head.NAME,), (postgres.NAME, mlflow_server.NAME), (seaweed.NAME,))
    with ThreadPoolExecutor(len(chains)) as pool:
        futures: list[Future[None]] = [pool.submit(run, *names) for names in chains]
        try:
            for future in futures:
                future.result()
        except BaseException:
            cancelled.set()
            raise


def _settings(state: StateDir, chosen: ports.Ports, credentials: Credentials) -> Settings:
    # Not Settings(…): the environment wins there, and says nothing of these servers. The room on
    # this machine's disk is its user's, though, and workers inherit no variables of theirs.
    return Settings.model_construct(
        state_dir=state.root,
        study_url=SecretStr(postgres.url("hopetune", chosen[postgres.NAME]["sql"], credentials)),
        mlflow_uri=f"http://{ports.LOOPBACK}:{chosen[mlflow_server.NAME]['http']}",
        mlflow_artifact_root=mlflow_server.artifact_root(BUCKET),
        s3_endpoint=seaweed.endpoint(chosen[seaweed.NAME]),
        s3_bucket=BUCKET,
        s3_credentials_file=credentials.s3_credentials_file,
        ray_address=ray_head.gcs_address(chosen[ray_head.NAME]),
        ray_jobs_address=ray_head.dashboard_address(chosen[ray_head.NAME]),
        ray_token_file=credentials.ray_token_file,
        spool_bytes=load_settings(state.root).spool_bytes,
    )


def _status_of(server: Server, state: StateDir) -> ServerStatus:
    record = processes.read_record(state.record(server.name))
    until_s = time.monotonic() + _STATUS_PATIENCE_S
    while record is not None and record.alive:
        try:
            server.check()
        except UnhealthyError as error:
            if error.is_refusal or time.monotonic() > until_s:
                return ServerStatus(server.name, server.address, record.pid, False, str(error))
        else:
            return ServerStatus(server.name, server.address, record.pid, True, "")
        time.sleep(_LOOK_PAUSE_S)
    return ServerStatus(server.name, server.address, None, False, "not running")


def _end_leftovers(state: StateDir, names: Iterable[str]) -> None:
    """End what outlived its server: a killed one's children, a job's driver.

    They bear their server's mark. PostgreSQL writes over it, but notes its pid beside its data.
    """
    if postgres.NAME in names and (pid := postgres.stray(state)) is not None:
        family = processes.family_of(pid)
        processes.end(family, signal_number=signal.SIGINT, grace_s=_LEFTOVER_GRACE_S)
    if remaining := processes.end_marked(state.root, names):
        raise UserError(
            str(state.root), "some processes of its servers could not be ended", got=remaining
        )


def _refuse_another_machine(state: StateDir) -> None:
    """Never take servers for dead that run on a machine which shares this folder: two of them on
    one database would damage it."""
    for file in map(state.record, NAMES):
        record = processes.read_record(file)
        if record is not None and record.is_elsewhere:
            raise UserError(
                str(state.root),
                f"its servers run on {record.host}",
                remedy="`hopetune down` there, or set HOPETUNE_STATE_DIR to another folder here; "
                f"if that machine or container is gone, delete {file.parent}",
            )


def _refuse_other_settings(state: StateDir) -> None:
    """Never write over settings that a person wrote for other servers."""
    read_settings_file(state.settings)
    if state.settings.exists() and not is_written_by_up(state.settings):
        raise UserError(
            str(state.settings),
            "names servers that `hopetune up` did not start",
            remedy="use those servers, or move the file away, or name another state directory",
        )


def _one_at_a_time(progress: Progress) -> Callable[[str], None]:
    lock = threading.Lock()

    def report(line: str) -> None:
        with lock:
            progress(line)

    return report
