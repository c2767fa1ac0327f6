"""``hopetune submit``, ``run``, ``ls``, ``show``, ``logs``, ``sync``: searches."""

import dataclasses
import hashlib
import math
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster import jobs
from cluster.settings import Settings, at, is_own, load_settings
from tuning.cli.output import say, say_json, say_table
from usererror import UserError

if TYPE_CHECKING:
    from tuning.records import SearchRecord, TrialRecord
    from tuning.spec import SearchSpec
    from tuning.storage import Storage

SEARCH_FILE = "search.yaml"
LATEST = "latest"
INTERRUPTED = "interrupted"
"""State of a search that has neither ended nor a living driver."""

SearchFile = Annotated[Path, typer.Argument(help="A search file, see search_spaces/.")]
SearchName = Annotated[
    str, typer.Argument(help="Name of a search as `hopetune ls` prints it; or `latest`.")
]
Name = Annotated[
    str | None, typer.Option(help="Name of this search; default: the file's and the time.")
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def submit(
    file: SearchFile,
    address: Annotated[
        str | None, typer.Option(help="http://HEAD:8265 of any cluster; default: the settings'.")
    ] = None,
    name: Name = None,
    follow: Annotated[bool, typer.Option(help="Show progress until the search ends.")] = False,
    json: Json = False,
) -> None:
    """Check a search file and run it as a job on the cluster; it needs this terminal no more.

    Example: `hopetune submit search_spaces/quickstart.yaml --address http://head:8265`
    """
    from tuning.spec import load_spec

    if json and follow:
        raise UserError("hopetune submit", "--json and --follow do not go together")
    spec = load_spec(file)
    settings = load_settings()
    cluster = at(settings, address)
    search = _named(name, spec)
    text = file.read_bytes()
    metadata = {"search_file_sha256": hashlib.sha256(text).hexdigest()}
    job = _job_for(cluster, search, metadata, to_find(address), is_ours=is_own(settings, address))
    with tempfile.TemporaryDirectory(prefix="hopetune-submit-") as folder:
        (Path(folder) / SEARCH_FILE).write_bytes(text)
        jobs.submit(
            cluster,
            submission_id=job,
            entrypoint=f"python -m tuning.driver {SEARCH_FILE} --name {search}",
            working_dir=Path(folder),
            metadata=metadata,
        )
    if json:
        say_json({"name": search, "address": cluster.require("ray_jobs_address")})
    else:
        follow_it = f"`hopetune logs {search} --follow{to_find(address)}`"
        say(f"search {search} is submitted; follow it with {follow_it}")
    if follow:
        follow_job(cluster, job)


def to_find(address: str | None) -> str:
    """What a command that is to be typed next needs in order to ask the same cluster."""
    return f" --address {address}" if address else ""


def _job_for(
    cluster: Settings,
    search: str,
    metadata: Mapping[str, str],
    to_find_it: str,
    *,
    is_ours: bool,
) -> str:
    """The name of a new search's job: a job whose answer got lost may be submitted once more, and
    one that died before its search began is followed by the next.

    Raises:
        UserError: a search of that name was submitted before, and is known, or its job succeeded
            or was submitted with another file.
    """
    known = jobs.again(cluster, search)
    if not known:
        return search
    latest = jobs.get(cluster, known[-1])
    if not latest.finished and latest.metadata == metadata:
        return latest.submission_id
    has_begun = latest.finished and _has_begun(search)
    # Of another cluster's searches the studies at hand need not know.
    if latest.status in ("FAILED", "STOPPED") and is_ours and not has_begun:
        return jobs.next_name(search, known)
    ways = [f"see `hopetune logs {search}{to_find_it}`"]
    if not latest.finished:
        ways.append(f"end it with `hopetune stop {search}{to_find_it}`")
    elif has_begun:
        ways.append(f"go on with `hopetune resume {search}{to_find_it}`")
    raise UserError(
        search,
        "a search of this name was submitted before",
        got=f"job {latest.submission_id}, {latest.status}",
        remedy=", ".join([*ways, "or choose another --name"]),
    )


def _has_begun(search: str) -> bool:
    """Whether the studies know a search; it is believed where they cannot be asked."""
    try:
        with open_storage() as storage:
            return search in storage.names()
    except UserError:
        return True


def run(file: SearchFile, name: Name = None) -> None:
    """Run a search in the foreground, with this terminal as its driver.

    Example: `hopetune run search_spaces/quickstart.yaml`
    """
    from tuning.driver import drive
    from tuning.spec import load_spec

    spec = load_spec(file)
    drive(_named(name, spec), spec, load_settings())


def ls(json: Json = False) -> None:
    """List all searches, the oldest first.

    Example: `hopetune ls`
    """
    with open_storage() as storage:
        searches = [storage.open(name).record() for name in storage.names()]
        drivers = storage.drivers()
    states = {search.name: state_of(search, search.name in drivers) for search in searches}
    if json:
        say_json([_search_summary(search, states[search.name]) for search in searches])
        return
    rows = []
    for search in searches:
        best = search.best()
        rows.append(
            (
                search.name,
                states[search.name],
                f"{len(search.trials)}/{search.spec.budget.trials}",
                f"{best.value:.2f}°" if best else "",
                _when(search.created_ms),
            )
        )
    say_table(("search", "state", "trials", "best val MAE", "started"), rows)
    if INTERRUPTED in states.values():
        say(f"what is {INTERRUPTED} has no driver any more: go on with `hopetune resume SEARCH`")


def show(search: SearchName = "latest", json: Json = False) -> None:
    """Show a search and each of its trials: settings, best error, why it ended.

    Example: `hopetune show latest`
    """
    from tuning.extension import changes
    from tuning.pareto import front
    from tuning.progress import describe, overview
    from tuning.records import undriven
    from tuning.study import now_ms

    with open_storage() as storage:
        record = storage.open(resolve(storage, search)).record()
        if record.name not in storage.drivers():
            record = undriven(record)
    state = state_of(record, record.driven)
    if json:
        trials = [_trial_summary(trial) for trial in record.trials]
        say_json({**_search_summary(record, state), "trials": trials})
        return
    say(f"{record.name}: {state}")
    if state == INTERRUPTED:
        say(f"it has no driver any more: go on with `hopetune resume {record.name}`")
    files = [spec for _, spec in record.earlier] + [record.spec]
    for (until_ms, before), after in zip(record.earlier, files[1:], strict=True):
        say(f"extended {_when(until_ms)}: {changes(before, after)}")
    say(overview(record, now_ms()))
    by_error = sorted(record.trials, key=lambda t: math.inf if t.value is None else t.value)
    rows = [
        (
            trial.number,
            trial.exit_reason or trial.state.lower(),
            len(trial.epochs),
            "" if trial.value is None else f"{trial.value:.2f}°",
            describe(trial.parameters),
        )
        for trial in by_error
    ]
    say_table(("trial", "state", "epochs", "val MAE", "settings"), rows)
    if len(record.spec.objectives) > 1:
        ends = [(own.trial, *(f"{value:.4g}" for value in own.values)) for own in front(record)]
        say("Pareto front: no other trial is better in all objectives")
        say_table(("trial", *record.spec.objectives), ends)
    for node, why in record.avoided_nodes.items():
        say(f"node {node} is avoided: {why}")
    for trial in record.trials:
        if lost := [attempt.in_words for attempt in trial.attempts if attempt.cause]:
            say(f"trial {trial.number:>3} lost attempts {'; '.join(lost)}")
        if trial.state == "FAIL" and trial.detail:
            say(f"trial {trial.number:>3} failed: {trial.detail}")


def logs(
    search: SearchName = "latest",
    address: Annotated[str | None, typer.Option(help="http://HEAD:8265 of its cluster.")] = None,
    follow: Annotated[bool, typer.Option(help="Go on until the search ends.")] = False,
) -> None:
    """Print what the latest driver of a submitted search wrote.

    Example: `hopetune logs latest --follow`
    """
    name = record_of(search).name if search == LATEST else search
    cluster = at(load_settings(), address)
    known = jobs.again(cluster, name)
    for text in jobs.logs(cluster, known[-1] if known else name, follow=follow):
        typer.echo(text, nl=False)


def sync(
    search: SearchName = "latest",
    all_: Annotated[
        bool, typer.Option("--all", help="All searches of the study database.")
    ] = False,
) -> None:
    """Bring the MLflow runs of a search up to date from the study, from nothing if need be.

    Runs that a dead driver left running are ended, too.

    Example: `hopetune sync latest`
    """
    from tuning.mlflow_client import MlflowRuns
    from tuning.objects import Objects
    from tuning.projection import run_states

    settings = load_settings()
    objects = Objects(settings)
    behind: list[str] = []
    with open_storage() as storage:
        names = storage.names() if all_ else [resolve(storage, search)]
        for name in names:
            runs = MlflowRuns(settings, objects)
            try:
                record = storage.open(name).record()
                states = run_states(record, driven=name in storage.drivers())
                runs.bring(name, states)
            except UserError as error:
                if not all_:
                    raise
                runs.ask()  # where the server is away, the others would wait for nothing
                behind.append(name)
                say(f"{name} is behind: {error}")
            else:
                say(f"{len(states)} runs of {name} are up to date")
    if behind:
        what = f"{len(behind)} of {len(names)} searches are not up to date"
        raise UserError("hopetune sync --all", what, got=", ".join(behind))


def record_of(search: str) -> "SearchRecord":
    """What is known of a search, by its name or ``latest``.

    Raises:
        UserError: there is no such search.
    """
    with open_storage() as storage:
        return storage.open(resolve(storage, search)).record()


def resolve(storage: "Storage", search: str) -> str:
    """The name of a search, of which ``latest`` is one.

    Raises:
        UserError: there are no searches.
    """
    if search != LATEST:
        return search
    names = storage.names()
    if not names:
        remedy = "start one: `hopetune submit search_spaces/quickstart.yaml`"
        raise UserError(LATEST, "there are no searches yet", remedy=remedy)
    return names[-1]


def open_storage() -> "Storage":
    """The studies; raises UserError where they cannot be reached."""
    from tuning.storage import Storage

    return Storage(load_settings().require("study_url"))


def _named(name: str | None, spec: "SearchSpec") -> str:
    """The name of a new search, which its jobs and its runs in MLflow bear, too."""
    if name is None:
        return f"{spec.name}-{datetime.now():%Y%m%d-%H%M%S}"
    if name == LATEST:
        raise UserError("--name", "not legal", got=name, rule="it stands for the latest search")
    jobs.check_first_name(name, "--name")
    return name


def _when(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000):%Y-%m-%d %H:%M}"


def follow_job(cluster: Settings, name: str) -> None:
    """Prints what a job writes until it ends.

    Raises:
        UserError: it did not end well.
    """
    for text in jobs.logs(cluster, name, follow=True):
        typer.echo(text, nl=False)
    job = jobs.get(cluster, name)
    if job.status != "SUCCEEDED":
        remedy = "the log above says why"
        raise UserError(name, "its driver did not end well", got=job.status, remedy=remedy)


def state_of(search: "SearchRecord", has_driver: bool) -> str:
    """Why it ended, or whether somebody drives it."""
    return search.ended or ("running" if has_driver else INTERRUPTED)


def _search_summary(search: "SearchRecord", state: str) -> dict[str, object]:
    best = search.best()
    return {
        "name": search.name,
        "state": state,
        "ended": search.ended,
        "created_ms": search.created_ms,
        "trials_wanted": search.spec.budget.trials,
        "trials_begun": search.count("RUNNING", "COMPLETE", "PRUNED", "FAIL"),
        "best_trial": best.number if best else None,
        "best_val_mae": best.value if best else None,
        **_front_summary(search),
    }


def _front_summary(search: "SearchRecord") -> dict[str, object]:
    from tuning.pareto import front

    names = search.spec.objectives
    if len(names) == 1:
        return {}
    found = [
        {"trial": own.trial, **dict(zip(names, own.values, strict=True))} for own in front(search)
    ]
    return {"pareto_front": found}


def _trial_summary(trial: "TrialRecord") -> dict[str, object]:
    return {
        "number": trial.number,
        "state": trial.state,
        "exit_reason": trial.exit_reason,
        "detail": trial.detail,
        "parameters": trial.parameters,
        "val_mae": trial.value,
        "curve": trial.curve,
        "node": trial.node,
        "attempts": [dataclasses.asdict(attempt) for attempt in trial.attempts],
    }


COMMANDS = (submit, run, ls, show, logs, sync)
