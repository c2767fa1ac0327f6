"""``hopetune stop``, ``resume``: searches end before their time, and go on."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from cluster import jobs
from cluster.settings import Settings, load_settings
from tuning.cli.output import say
from tuning.cli.searches import SearchName, at, follow_job, open_storage, resolve
from usererror import UserError

if TYPE_CHECKING:
    from tuning.study import Storage, Study

STOP_GRACE_S = 30.0  # untuned: a driver looks once a second, so seconds are enough
ENDING_S = 120.0  # untuned: a driver that has ended its search waits for epochs in flight

Address = Annotated[str | None, typer.Option(help="http://HEAD:8265 of its cluster.")]
Follow = Annotated[bool, typer.Option(help="Show progress until the search ends.")]
Foreground = Annotated[
    bool, typer.Option("--foreground", help="With this terminal as its driver, not as a job.")
]


def stop(search: SearchName, address: Address = None) -> None:
    """End a search; what it has found stays, and `hopetune resume` goes on with it.

    Example: `hopetune stop quickstart-20261122-064100`
    """
    with open_storage() as storage:
        name = resolve(storage, search)
        study = storage.open(name)
        if study.record().ended:
            say(f"search {name} has ended already")
            return
        study.want_stop()
        if name not in storage.drivers():
            _end_without_driver(storage, name)
            return
        until = time.monotonic() + STOP_GRACE_S
        while time.monotonic() < until:
            if study.record().ended:
                say(f"search {name} is stopped; workers finish the epoch that is in flight")
                return
            time.sleep(0.5)
        holder = storage.drivers().get(name)
    # Its driver hangs, so its job is ended from outside.
    cluster = at(load_settings(), address)
    if known := jobs.again(cluster, name):
        jobs.stop(cluster, known[-1])
        say(f"search {name}: its driver did not answer in {STOP_GRACE_S:.0f} s; its job is ended")
    elif holder:
        raise UserError(name, "its driver does not answer", got=str(holder), remedy="end it there")


def _end_without_driver(storage: "Storage", name: str) -> None:
    from tuning.exits import ExitReason

    with storage.driving(name, say):
        study = storage.open(name)
        study.adopt()
        study.finish_running(ExitReason.SEARCH_ENDED, "stopped by its user")
        study.end("stopped by its user")
    say(f"search {name} had no driver any more; it is stopped")
    say(f"bring its runs up to date with `hopetune sync {name}`")


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
    with open_storage() as storage:
        name = resolve(storage, search)
        _wait_for_its_driver(storage, name)
        if not foreground:
            _refuse_beside_a_job(settings, name)
        with storage.driving(name, say):
            study = storage.open(name)
            study.adopt()
            _refuse_without_work(study)
            study.reopen()
    start(settings, name, follow=follow, foreground=foreground)


def start(settings: Settings, name: str, *, follow: bool, foreground: bool) -> None:
    """A driver for a search that the study knows: this process, or a job of a new name."""
    if foreground:
        from tuning.driver import drive

        drive(name, None, settings)
        return
    job = jobs.next_name(name, jobs.again(settings, name))
    jobs.submit(settings, submission_id=job, entrypoint=f"python -m tuning.driver --name {name}")
    say(f"search {name} goes on as job {job}; follow it with `hopetune logs {name} --follow`")
    if follow:
        follow_job(settings, job)


def _wait_for_its_driver(storage: "Storage", name: str) -> None:
    """A stopped search's driver waits for its workers a moment; one that drives is not waited for.

    Raises:
        UserError: the search is running.
    """
    until = time.monotonic() + ENDING_S
    is_told = False
    while holder := storage.drivers().get(name):
        if not storage.open(name).record().ended or time.monotonic() > until:
            remedy = f"follow it: `hopetune logs {name} --follow`; end it: `hopetune stop {name}`"
            raise UserError(name, "the search is running", got=str(holder), remedy=remedy)
        if not is_told:
            say(f"waiting for the end of its driver, {holder}")
            is_told = True
        time.sleep(0.5)


def _refuse_beside_a_job(settings: Settings, name: str) -> None:
    known = jobs.again(settings, name)
    if known and jobs.status(settings, known[-1]) == "PENDING":
        raise UserError(name, "a job of this search is about to start", got=known[-1])


def _refuse_without_work(study: "Study") -> None:
    from tuning.going_on import nothing_left
    from tuning.study import now_ms

    if why := nothing_left(study.record(), now_ms()):
        raise UserError(
            study.name,
            why,
            rule="budgets count from the beginning of the search",
            remedy="give it more: see `hopetune extend --help`",
        )


COMMANDS = (stop, resume)
