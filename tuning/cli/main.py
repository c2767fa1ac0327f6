"""The command ``hopetune``: errors in one form, exit codes that mean something.

0: done · 1: a server does not run (`status`) · 2: a mistake in the input or the surroundings, or a
search without a result · 3: the champion stays · 130, 143: ended by Ctrl-C, by SIGTERM
"""

import errno
import importlib.metadata
import os
import sys
from typing import Annotated

import typer

from tuning.cli import (
    collection,
    control,
    data,
    forecasts,
    models,
    reports,
    searches,
    servers,
)
from usererror import UserError

INTERRUPTED = 130  # 128 + SIGINT, as shells have it

REFUSALS = frozenset(
    (
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
        *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
    )
)
"""What a file system says no with to a place that a person has chosen."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
)


def _say_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"hopetune {importlib.metadata.version('hopetune')}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Finds the best head-pose network that a GPU cluster can train."""


app.add_typer(data.app, name="data")
for module in (servers, searches, control, forecasts, reports, models, collection):
    for command in module.COMMANDS:
        app.command()(command)


def main() -> None:
    """Runs the command line; a user's mistake is one line, never a traceback."""
    try:
        app()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        place = str(error.filename or "the disk")
        words = UserError(
            place, "cannot be used", got=os.strerror(error.errno), remedy="choose another place"
        )
        sys.stderr.write(f"error: {words}\n")
        sys.exit(words.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
