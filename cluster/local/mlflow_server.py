"""The MLflow server: runs in PostgreSQL, artifacts through the server into S3."""

import os
import sys

from cluster.local import http, postgres
from cluster.local.credentials import Credentials
from cluster.local.ports import LOOPBACK, Ports
from cluster.local.seaweed import endpoint
from cluster.local.server import Server
from cluster.local.state import StateDir

NAME = "mlflow"
FOLDER_IN_BUCKET = "mlflow"


def artifact_root(bucket: str) -> str:
    """Where in S3 the server keeps artifacts."""
    return f"s3://{bucket}/{FOLDER_IN_BUCKET}"


def server(state: StateDir, ports: Ports, credentials: Credentials, bucket: str) -> Server:
    """The MLflow server; PostgreSQL has to be up."""
    port, sql_port = ports[NAME]["http"], ports[postgres.NAME]["sql"]
    s3_endpoint = endpoint(ports["s3"])
    address = f"http://{LOOPBACK}:{port}"
    return Server(
        name=NAME,
        address=address,
        command=(
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", LOOPBACK, "--port", str(port), "--workers", "1"),
            *("--serve-artifacts", "--artifacts-destination", artifact_root(bucket)),
        ),
        environment={
            # By environment: command lines are there for every user to see.
            "MLFLOW_BACKEND_STORE_URI": postgres.url("mlflow", sql_port, credentials),
            "MLFLOW_S3_ENDPOINT_URL": s3_endpoint,
            "AWS_ENDPOINT_URL_S3": s3_endpoint,
            "AWS_SHARED_CREDENTIALS_FILE": str(credentials.s3_credentials_file),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            # Eight processes and 1.4 GB less, and half the start (measured with 3.17).
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            # The default of 5 + 10 connections hangs at 32 writers (measured with 3.17).
            "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "20",
            "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "20",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        },
        folder=state.data(NAME),
        # Both are baked into its environment: with another port there it has to start again.
        fingerprint=f"postgresql:{sql_port} s3:{ports['s3']['s3']}",
        check=lambda: _check(address),
    )


def _check(address: str) -> None:
    http.get(f"{address}/health")
