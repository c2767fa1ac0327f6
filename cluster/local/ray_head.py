"""A Ray head with token authentication, dashboard and job submission, on loopback only."""

import importlib.metadata
import json
import re
import shutil
import socket
import sys
import time
from pathlib import Path

from cluster.cpus import usable_cpus
from cluster.gpus import real_gpus
from cluster.local import http
from cluster.local.credentials import Credentials
from cluster.local.ports import LOOPBACK
from cluster.local.server import Server, UnhealthyError
from cluster.local.state import StateDir
from cluster.settings import RAY_ON_LOOPBACK, SETTINGS_VARIABLE
from usererror import UserError

NAME = "ray"
DEFAULT_LOGICAL_GPUS = 2
_ANSWER_S = 30.0
"""How long a head may take to say what runs on it before it counts as dead; untuned."""

# Tune and the trials keep little in the object store (data sets are memory-mapped); untuned.
_OBJECT_STORE_BYTES = 512 * 2**20
_OLD_SESSIONS_KEPT = 3
_JOB_STOP_GRACE_S = 45
"""Time between SIGTERM and SIGKILL of a stopped job; 3 s by default. Longer than a driver takes to
end in good order (`tuning/signals.py`)."""


def gcs_address(ports: dict[str, int]) -> str:
    """``host:port`` that drivers connect to."""
    return f"{LOOPBACK}:{ports['gcs']}"


def dashboard_address(ports: dict[str, int]) -> str:
    """The URL that takes jobs."""
    return f"http://{LOOPBACK}:{ports['dashboard']}"


def python(short_folder: Path) -> Path:
    """The Python that runs this, by a path that is one plain word: Ray has a shell start workers by
    it, unquoted (2.60, ``runtime_env/context.py``), and with a space none ever starts."""
    own = Path(sys.executable)
    # What `shlex.quote` leaves as it is, and the letters of all languages.
    if re.fullmatch(r"[\w@%+=:,./-]+", sys.executable):
        return own
    return short_folder / "environment" / own.parent.name / own.name


def environment() -> str:
    """The code that a head runs: its jobs and workers are started by its own Python, and drivers
    of another version of Ray cannot join it."""
    return f"{Path(sys.prefix).resolve()} with Ray {importlib.metadata.version('ray')}"


def server(
    state: StateDir,
    ports: dict[str, int],
    credentials: Credentials,
    short_folder: Path,
    logical_gpus: int,
) -> Server:
    """The Ray head on these ports (``gcs``, ``dashboard``, ``agent``, ``client``).

    Args:
        short_folder: holds a link ``ray`` to this server's folder, and ``environment`` to that of
            the Python which runs it, needed where that one's own path will not do.
        logical_gpus: trials at a time on a machine without a GPU; Ray counts real ones itself.
    """
    return Server(
        name=NAME,
        address=dashboard_address(ports),
        command=_command(ports, short_folder, None if real_gpus() else logical_gpus),
        environment={
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(credentials.ray_token_file),
            **RAY_ON_LOOPBACK,
            "RAY_USAGE_STATS_ENABLED": "0",
            # Workers find everything through this; no address or secret is inherited.
            SETTINGS_VARIABLE: str(state.settings),
            # Tune's own loggers cost the driver two thirds of its time (measured with 2.60).
            "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
            "RAY_JOB_STOP_WAIT_TIME_S": str(_JOB_STOP_GRACE_S),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        },
        folder=state.data(NAME),
        prepare=lambda: _prepare(state),
        fingerprint=environment(),
        check=lambda: _check(ports, credentials.ray_token),
        may_restart=lambda started_for: _refuse_beside_jobs(
            ports, credentials.ray_token, started_for
        ),
        start_timeout_s=120.0,
        # Ray gives its own start 30 s (2.60, `_private/node.py`), too few on a busy machine.
        start_attempts=3,
    )


def _command(
    ports: dict[str, int], short_folder: Path, logical_gpus: int | None
) -> tuple[str, ...]:
    options: dict[str, object] = {
        "node-ip-address": LOOPBACK,
        "port": ports["gcs"],
        "dashboard-host": LOOPBACK,
        "dashboard-port": ports["dashboard"],
        "dashboard-agent-listen-port": ports["agent"],
        "ray-client-server-port": ports["client"],
        # Any free ones. The default, 10002 to 19999, clashes with whatever else was chosen there.
        "min-worker-port": 0,
        "max-worker-port": 0,
        "include-dashboard": "true",
        "object-store-memory": _OBJECT_STORE_BYTES,
        # A link, as Ray's sockets need a short path and its worker command bears no space.
        "temp-dir": short_folder / "ray",
        "log-style": "record",
        "log-color": "false",
    }
    if logical_gpus is not None:
        options["num-gpus"] = logical_gpus
        options["num-cpus"] = max(logical_gpus, usable_cpus())
    return (
        *(
            str(python(short_folder)),
            "-m",
            "ray.scripts.scripts",
            "start",
            "--head",
            "--disable-usage-stats",
        ),
        # With --block all of Ray's processes are this one's descendants and end with it; no
        # monitor, as nothing scales here.
        *("--block", "--no-monitor"),
        *(f"--{name}={value}" for name, value in options.items()),
    )


def _prepare(state: StateDir) -> None:
    environment = state.data("environment")
    environment.unlink(missing_ok=True)
    environment.symlink_to(Path(sys.executable).parent.parent)
    sessions = sorted(path for path in state.data(NAME).glob("session_2*") if path.is_dir())
    for old in sessions[:-_OLD_SESSIONS_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _refuse_beside_jobs(ports: dict[str, int], token: str, started_for: str) -> None:
    """Never end what runs on a head that another environment started."""
    body = _jobs(f"{dashboard_address(ports)}/api/jobs/", token)
    if body is None:
        return  # one that does not answer is restarted in any case
    # Drivers that run in a terminal are among them.
    if running := [job for job in json.loads(body) if job["status"] in ("PENDING", "RUNNING")]:
        raise UserError(
            f"local server {NAME}",
            "runs from another environment, and jobs run on it",
            got=f"{started_for or 'an earlier version'}; {len(running)} jobs",
            rule=f"this one is {environment()}",
            remedy="wait for their end, or end all with `hopetune down`, then `hopetune up` again",
        )


def _jobs(url: str, token: str) -> bytes | None:
    """Its answer, which a head on a busy machine takes seconds for; none where it is gone."""
    until_s = time.monotonic() + _ANSWER_S
    while True:
        try:
            return _get(url, token)
        except UnhealthyError as error:
            if error.is_refusal or time.monotonic() >= until_s:
                return None
            time.sleep(1.0)


def _get(url: str, token: str) -> bytes:
    return http.get(url, {"Authorization": f"Bearer {token}"})


def _check(ports: dict[str, int], token: str) -> None:
    """The dashboard takes our token and knows a living node, whose agent can take jobs."""
    url = f"{dashboard_address(ports)}/nodes?view=summary"
    body = _get(url, token)
    try:
        nodes = json.loads(body)["data"]["summary"]
        states = [node["raylet"]["state"] for node in nodes]
    except (ValueError, KeyError, TypeError) as error:
        raise UnhealthyError(f"GET {url}: unexpected answer") from error
    if "ALIVE" not in states:
        raise UnhealthyError("no living node yet")
    try:
        # Not by trying to bind: that could take the port in the very moment when the agent comes.
        socket.create_connection((LOOPBACK, ports["agent"]), timeout=1.0).close()
    except OSError as error:
        raise UnhealthyError("the agent, which takes jobs, does not listen yet") from error
