"""``hopetune up``, ``status``, ``down``: the servers that a laptop needs."""

import dataclasses
from typing import Annotated

import typer

from cluster.local import servers as local
from cluster.settings import load_settings, state_dir_of_environment
from tuning.cli.output import say, say_json, say_table
from usererror import UserError


def up(
    gpus: Annotated[
        int | None,
        typer.Option(
            help="Logical GPUs to offer where the machine has none, 2 by default; heeded where Ray "
            "starts, not where it runs already.",
            min=0,
        ),
    ] = None,
) -> None:
    """Start PostgreSQL, S3, MLflow and a Ray head on this machine, or those that are not running.

    Example: `hopetune up --gpus 2`
    """
    settings = local.up(load_settings().state_dir, logical_gpus=gpus, progress=say)
    say(f"MLflow UI     {settings.require('mlflow_uri')}")
    say(f"Ray dashboard {settings.require('ray_jobs_address')}")


def status(json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Say which local servers run, and where.

    Exits with 1 where one of them does not. Example: `hopetune status --json`
    """
    found = local.status(load_settings().state_dir)
    if json:
        say_json([dataclasses.asdict(server) for server in found])
    else:
        rows = [
            (
                s.name,
                "up" if s.healthy else "down",
                s.address or "",
                s.pid or "",
                " ".join(s.detail.split()),
            )
            for s in found
        ]
        say_table(("server", "state", "address", "pid", "trouble"), rows)
    if not found or not all(server.healthy for server in found):
        raise typer.Exit(1)


def down() -> None:
    """Stop the local servers; their data stays for the next `up`.

    Example: `hopetune down`
    """
    try:
        state_dir = load_settings().state_dir
    except UserError:
        # A damaged settings file must not keep anybody from stopping servers.
        state_dir = state_dir_of_environment()
    local.down(state_dir, progress=say)


COMMANDS = (up, status, down)
