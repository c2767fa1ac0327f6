"""``hopetune stop``, ``resume``, ``extend``: searches end before their time, go on, get more."""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster import jobs
from cluster.settings import Settings, at, load_settings
from tuning.cli.output import say
from tuning.cli.searches import SearchName, follow_job, open_storage, resolve, to_find
from usererror import UserError

if TYPE_CHECKING:
    from tuning.records import SearchRecord
    from tuning.spec import SearchSpec
    from tuning.storage import Storage
    from tuning.study import Study

STOP_GRACE_S = 30.0  # untuned: a driver looks once a second, so seconds are enough
JOB_S = 45.0  # untuned: a driver that begins is known within seconds, an ended one gone as soon
ENDING_S = 120.0  # untuned: a driver that has ended its search waits for its workers

Address = Annotated[str | None, typer.Option(help="http://HEAD:8265 of its cluster.")]
Follow = Annotated[bool, typer.Option(help="Show progress until the search ends.")]
Foreground = Annotated[
    bool, typer.Option("--foreground", help="With this terminal as its driver, not as a job.")
]


def stop(search: SearchName, address: Address = None) -> None:
    """End a search; what it has found stays, and `hopetune resume` goes on with it.

    Example: `hopetune stop quickstart-20261122-064100`
    """
    cluster = at(load_settings(), address)
    with open_storage() as storage:
        name = resolve(storage, search)
        if name not in storage.names() and _has_ended_its_job(cluster, name):
            say(f"search {name} is not in the study yet; its job is ended")
            return
        study = storage.open(name)
        if name not in storage.drivers() and study.record().ended:
            say(f"search {name} has ended already")
            return
        study.want_stop()  # of a driver that waits for checkpoints, too
        until = time.monotonic() + STOP_GRACE_S
        while holder := storage.drivers().get(name):
            if study.record().ended or time.monotonic() > until:
                break
            time.sleep(0.5)
        if study.record().ended:
            say(f"search {name} is stopped; its workers end within seconds")
            return
        if holder is None:  # there was none, or it died meanwhile
            _end_without_driver(storage, name)
            _has_ended_its_job(cluster, name)  # one that begins, or hung and lost its search
            return
        # Its driver hangs, so its job is ended from outside.
        known = jobs.again(cluster, name)
        if known and jobs.stop(cluster, known[-1]):
            answer = f"its driver did not answer in {STOP_GRACE_S:.0f} s"
            say(f"search {name}: {answer}; its job is being ended")
            _wait_for_job(cluster, known[-1], ENDING_S)
            _end_without_driver(storage, name)
        else:
            what = "its driver does not answer"
            raise UserError(name, what, got=str(holder), remedy="end it there")


def _has_ended_its_job(cluster: Settings, name: str) -> bool:
    """Ends the job of a search that no driver has in hand, if there is one."""
    try:
        known = jobs.again(cluster, name)
        return bool(known) and jobs.stop(cluster, known[-1])
    except UserError:  # no cluster answers: nothing is known of that name
        return False


def _wait_for_job(cluster: Settings, job: str, seconds: float) -> bool:
    """Until it is over, but no longer than that; says whether it is."""
    until = time.monotonic() + seconds
    while not jobs.get(cluster, job).finished:
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def _end_without_driver(storage: "Storage", name: str) -> None:
    with storage.driving(name, say):
        _end(storage.open(name), "stopped by its user")
    say(f"search {name} had no driver any more; it is stopped")
    say(f"bring its runs up to date with `hopetune sync {name}`")


def _end(study: "Study", why: str) -> None:
    """What its driver would have written; for whoever has taken its place."""
    from tuning.exits import ExitReason

    study.adopt()
    study.finish_running(ExitReason.SEARCH_ENDED, why)
    study.end(why)


def resume(
    search: SearchName,
    address: Address = None,
    follow: Follow = False,
    foreground: Foreground = False,
) -> None:
    """Go on with a search whose driver died, or that was stopped: from its checkpoints, with the
    search file that the study keeps. Budgets count from the beginning of the search.

    Example: `hopetune resume quickstart-20261122-064100 --follow`
    """
    settings = at(load_settings(), address)
    with _taken_over(search, settings, foreground, to_find(address)) as study:
        study.adopt()
        if _has_only_to_end(study):
            return
        _refuse_without_work(study)
        study.reopen()
    start(settings, study.name, to_find(address), follow=follow, foreground=foreground)


def _has_only_to_end(study: "Study") -> bool:
    """Ends a search that has nothing left to train, where its driver died before it did so."""
    record = study.record()
    why = _nothing_left(record)
    if why is None or (record.ended and not record.count("RUNNING")):
        return False
    _end(study, why)
    say(f"search {study.name} lacked nothing but its end, which its driver did not write: {why}")
    say(f"bring its runs up to date with `hopetune sync {study.name}`")
    return True


def extend(
    search: SearchName,
    trials: Annotated[int | None, typer.Option(help="Trials in all.")] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs of a whole trial; the best complete ones go on."),
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(
            help="YAML with new bounds: `parameters:` alone, those that change; or a search file, "
            "of which only the parameters are taken."
        ),
    ] = None,
    total_epochs: Annotated[int | None, typer.Option(help="Epochs of all trials in all.")] = None,
    gpu_hours: Annotated[float | None, typer.Option(help="GPU-hours in all.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Minutes in all, since the search began.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Trials that may begin without a new best.")
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="Error in degrees that ends it, lower than before.")
    ] = None,
    address: Address = None,
    follow: Follow = False,
    foreground: Foreground = False,
) -> None:
    """Give a search more trials, longer ones, a lower target or other bounds, and go on with it.
    All figures count from the beginning of the search. Trials outside new bounds stay as history.

    Example: `hopetune extend quickstart-20261122-064100 --trials 20 --epochs 30`
    """
    wishes: dict[str, float | None] = {
        "trials": trials,
        "epochs": epochs,
        "total_epochs": total_epochs,
        "gpu_hours": gpu_hours,
        "wall_clock_minutes": minutes,
        "patience": patience,
        "target_mae_deg": target,
    }
    settings = at(load_settings(), address)
    with _taken_over(search, settings, foreground, to_find(address)) as study:
        say(_extended(study, wishes, space))
    start(settings, study.name, to_find(address), follow=follow, foreground=foreground)


def _extended(study: "Study", wishes: Mapping[str, float | None], space: Path | None) -> str:
    from tuning.extension import changes, with_budget, with_space

    spec = with_budget(study.spec, wishes)
    if space is not None:
        spec = with_space(spec, space)
    if spec == study.spec:
        rule = "--trials, --epochs, --space and so on say what it gets"
        raise UserError(study.name, "nothing is changed", rule=rule)
    study.adopt()
    _refuse_without_work(study, spec)
    study.extend(spec)
    study.reopen()
    begun = len(study.record().trials)
    lost = sum(settings not in spec.try_first for settings in study.spec.try_first[begun:])
    note = f"; {lost} of `try_first` lie outside and are left out" if lost else ""
    return f"search {study.name} is extended: {changes(study.spec, spec)}{note}"


def start(
    settings: Settings, name: str, to_find_it: str, *, follow: bool, foreground: bool
) -> None:
    """A driver for a search that the study knows: this process, or a job of a new name."""
    if foreground:
        from tuning.driver import drive

        drive(name, None, load_settings())
        return
    job = jobs.next_name(name, jobs.again(settings, name))
    jobs.submit(settings, submission_id=job, entrypoint=f"python -m tuning.driver --name {name}")
    follow_it = f"`hopetune logs {name} --follow{to_find_it}`"
    say(f"search {name} goes on as job {job}; follow it with {follow_it}")
    if follow:
        follow_job(settings, job)


@contextmanager
def _taken_over(
    search: str, settings: Settings, foreground: bool, to_find_it: str
) -> "Iterator[Study]":
    """The study of a search that nobody drives, nor begins to meanwhile."""
    with open_storage() as storage:
        name = resolve(storage, search)
        _wait_for_its_driver(storage, name, to_find_it)
        if not foreground:
            _refuse_beside_a_job(storage, settings, name, to_find_it)
        with storage.driving(name, say):
            yield storage.open(name)


def _wait_for_its_driver(storage: "Storage", name: str, to_find_it: str) -> None:
    """A stopped search's driver waits for its workers a moment; one that drives is not waited for.

    Raises:
        UserError: the search is running.
    """
    until = time.monotonic() + ENDING_S
    is_told = False
    while holder := storage.drivers().get(name):
        if not storage.open(name).record().ended or time.monotonic() > until:
            remedy = f"follow it: `hopetune logs {name} --follow{to_find_it}`; "
            remedy += f"end it: `hopetune stop {name}{to_find_it}`"
            raise UserError(name, "the search is running", got=str(holder), remedy=remedy)
        if not is_told:
            say(f"waiting for the end of its driver, {holder}")
            is_told = True
        time.sleep(0.5)


def _refuse_beside_a_job(
    storage: "Storage", settings: Settings, name: str, to_find_it: str
) -> None:
    """A job that begins drives its search only seconds later, and one that has driven it ends only
    seconds later: of the latter the end is waited for.

    Raises:
        UserError: its latest job begins, or does not end.
    """
    known = jobs.again(settings, name)
    until = time.monotonic() + JOB_S
    while known and (status := jobs.status(settings, known[-1])) not in jobs.FINISHED:
        if status == "PENDING" or name in storage.drivers() or time.monotonic() > until:
            what = "a job of this search is starting or ending"
            remedy = f"see `hopetune logs {name}{to_find_it}`; "
            remedy += f"end it: `hopetune stop {name}{to_find_it}`"
            raise UserError(name, what, got=f"{known[-1]}, {status}", remedy=remedy)
        time.sleep(0.5)


def _nothing_left(record: "SearchRecord") -> str | None:
    from tuning.going_on import nothing_left
    from tuning.study import now_ms

    return nothing_left(record, now_ms())


def _refuse_without_work(study: "Study", spec: "SearchSpec | None" = None) -> None:
    record = study.record()
    if why := _nothing_left(dataclasses.replace(record, spec=spec or record.spec)):
        raise UserError(
            study.name,
            why,
            rule="budgets count from the beginning of the search",
            remedy="give it more: see `hopetune extend --help`",
        )


COMMANDS = (stop, resume, extend)
