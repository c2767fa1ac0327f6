"""``hopetune plan`` and ``replay``: what a search will cost, and what other rules would have."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from tuning.cli.output import say, say_json, say_table
from tuning.cli.searches import Json, SearchFile, SearchName, record_of


def plan(
    file: SearchFile,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Trials that the cluster has room for; default: the file's "
            "`resources.parallel_trials`, else 1.",
            min=1,
        ),
    ] = None,
    epoch_seconds: Annotated[
        float, typer.Option(help="Seconds of an epoch of ResNet18 on your data.", min=0.001)
    ] = 100.0,
    json: Json = False,
) -> None:
    """Simulate a search file on made-up learning curves: trials, epochs, GPU-hours, hours.

    Nothing is trained and no server is asked. The curves are of three shapes; what the search finds
    on them says nothing about your data, what it spends does.
    Example: `hopetune plan search_spaces/quickstart.yaml --workers 2 --epoch-seconds 4`
    """
    from tuning.simulation.forecast import forecast
    from tuning.spec import load_spec

    spec = load_spec(Path(file))
    limits = [limit for limit in (workers, spec.resources.parallel_trials) if limit]
    found = forecast(spec, min(limits, default=1), epoch_seconds)
    if json:
        say_json([dataclasses.asdict(row) for row in found])
        return
    rows = [
        (
            row.family,
            row.trials,
            row.epochs,
            f"{row.epochs / max(1, row.whole_epochs):.0%}",
            f"{row.gpu_hours:.2f}",
            f"{row.hours:.2f}",
            row.ended,
        )
        for row in found
    ]
    spent = f"{spec.resources.unit}-h"
    say_table(("curves", "trials", "epochs", "of whole", spent, "hours", "ends by"), rows)


def replay(search: SearchName = "latest", json: Json = False) -> None:
    """Run every early-stopping rule over the recorded curves of a search: saved and lost.

    Epochs that were never trained are taken as no better than those before them; the column
    `unrecorded` counts them, and where it is large the row says little.
    Example: `hopetune replay latest`
    """
    from tuning.going_on import within
    from tuning.simulation.forecast import replay as run

    record = record_of(search)
    found = run(record)
    if json:
        say_json([dataclasses.asdict(row) for row in found])
        return
    trained = sum(len(trial.epochs) for trial in within(record))
    say(f"{record.name}: {trained} epochs by rule {record.spec.stopping.rule!r}")
    if outside := len(record.trials) - len(within(record)):
        say(f"left out are {outside} trials outside the bounds of the extended search")
    rows = [
        (
            row.rule,
            row.epochs,
            row.unrecorded,
            "" if row.best_deg is None else f"{row.best_deg:.2f}°",
            "" if row.lost_deg is None else f"{row.lost_deg:.2f}°",
        )
        for row in found
    ]
    say_table(("rule", "epochs", "unrecorded", "best", "lost"), rows)


COMMANDS = (plan, replay)
