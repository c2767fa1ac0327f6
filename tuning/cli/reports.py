"""``hopetune report``: a search's table in the papers' form."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.settings import Settings, load_settings
from tuning.cli.output import say, say_json
from tuning.cli.searches import Json, SearchName, open_storage, resolve
from usererror import UserError

if TYPE_CHECKING:
    from headpose.evaluate import PoseErrors
    from tuning.records import SearchRecord


def report(
    search: SearchName = "latest",
    test: Annotated[
        bool, typer.Option("--test", help="Evaluate completed trials on the search's test set.")
    ] = False,
    to: Annotated[Path, typer.Option(help="Folder in which the search gets one of its own.")] = (
        Path("reports")
    ),
    json: Json = False,
) -> None:
    """Write a search's table as Markdown, CSV and a figure, published figures beside it.

    The files are logged to the search's run in MLflow too.
    Example: `hopetune report latest --test`
    """
    from headpose.figures import bar_chart
    from tuning.records import undriven
    from tuning.report import as_csv, as_markdown, report_of, series
    from tuning.study import now_ms

    settings = load_settings()
    with open_storage() as storage:
        record = storage.open(resolve(storage, search)).record()
        if record.name not in storage.drivers():
            record = undriven(record)
    tested = _tested(record, settings, quiet=json) if test else {}
    found = report_of(record, tested, now_ms())
    folder = to.expanduser() / record.name
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name for name in ("report.md", "report.csv", "report.png")]
    files[0].write_text(as_markdown(found), encoding="utf-8")
    files[1].write_text(as_csv(found), encoding="utf-8")
    labels, by_kind = series(found)
    bar_chart(
        files[2],
        labels,
        by_kind,
        title=record.name,
        x_label="mean absolute error in degrees",
        y_label=", ".join(found.parameters),
    )
    if json:
        say_json(dataclasses.asdict(found))
    else:
        say(as_markdown(found))
        say(f"written: {', '.join(str(file) for file in files)}")
    _log(record, files, settings, quiet=json)


def _tested(record: "SearchRecord", settings: Settings, *, quiet: bool) -> "dict[int, PoseErrors]":
    """Errors of all completed trials whose checkpoints are still there."""
    from tuning.trained import errors_on_test

    return errors_on_test(record, settings, (lambda _text: None) if quiet else say)


def _log(record: "SearchRecord", files: list[Path], settings: Settings, *, quiet: bool) -> None:
    """MLflow is a convenience here: where it is away, the files are there all the same."""
    from tuning.mlflow_client import MlflowRuns
    from tuning.objects import Objects

    try:
        runs = MlflowRuns(settings, Objects(settings))
        runs.log_files(record.name, record.created_ms, files, "report")
    except UserError as error:
        if not quiet:
            say(f"not logged to MLflow: {error}")


COMMANDS = (report,)
