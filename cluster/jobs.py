"""Ray jobs by their own names: submit, watch, stop, through the dashboard's Jobs API.

The same calls serve the local head and any cluster. A job submitted twice under one name exists
once, so a caller who does not know whether it got through may simply ask again.
"""

import asyncio
import contextlib
import os
import re
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.settings import Settings
from usererror import UserError

if TYPE_CHECKING:  # at run time only where it is needed: it takes a second
    from cluster.job_client import JobClient

FINISHED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
"""The statuses that a job never leaves. The others are PENDING and RUNNING."""

NO_AGENT, AGENT_S = "No available agent", 60.0
"""What a head answers whose agent, which starts jobs, is not there yet: on a busy machine it comes
long after the dashboard. How long it is waited for; untuned."""

SILENCE_S, AWAY_S, PAUSE_S = 60.0, 60.0, 0.5
"""Of a log that is followed: how long nothing may come before its connection is made again, which
may have died unnoticed; how long the cluster may be away; how soon it is asked again. Untuned."""

_LEGAL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_FIRST_NAME_LENGTH = 190
"""Leaves room for the endings of later jobs, see :func:`again`."""

# Ray takes the address of these before the one it is given.
_OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
_environment = threading.Lock()


@dataclass(frozen=True)
class Job:
    """One job as the cluster knows it; times in seconds since the epoch."""

    submission_id: str
    status: str
    message: str
    entrypoint: str
    started_at_s: float | None
    ended_at_s: float | None
    metadata: Mapping[str, str]
    """What it was submitted with."""

    @property
    def finished(self) -> bool:
        """Whether it will do nothing more."""
        return self.status in FINISHED


def check_name(name: str, where: str) -> None:
    """Refuse what cannot be a job's name.

    Raises:
        UserError: the name is not legal.
    """
    if not _LEGAL_NAME.fullmatch(name):
        rule = "letters, digits, dots, dashes and underscores, at most 200"
        raise UserError(where, "not legal", got=name, rule=rule)


def check_first_name(name: str, where: str) -> None:
    """Refuse what cannot be the name of an undertaking, whose later jobs :func:`next_name` names.

    Raises:
        UserError: the name is not legal.
    """
    check_name(name, where)
    if len(name) > _FIRST_NAME_LENGTH or re.search(r"\.r[1-9]\d*$", name):
        rule = f"at most {_FIRST_NAME_LENGTH} characters, and no ending such as .r2: later jobs "
        raise UserError(where, "not legal", got=name, rule=rule + "of a search are called so")


def submit(
    settings: Settings,
    *,
    submission_id: str,
    entrypoint: str,
    working_dir: Path | None = None,
    env: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Have a job of this name, starting it if there is none, whatever the status of an old one.

    Args:
        settings: name the cluster (``ray_jobs_address``) and the file of its token.
        submission_id: the job's name.
        entrypoint: a shell command.
        working_dir: a folder sent along, in which the job starts.
        env: variables for the job. The dashboard shows them, so nothing secret.
        metadata: what tells this job from another one of its name.

    Returns:
        ``submission_id``.

    Raises:
        UserError: nobody answers, the token is refused, the name is not legal, or a job of other
            metadata has it.
    """
    check_name(submission_id, "job name")
    told = dict(metadata or {})
    runtime_env: dict[str, Any] = {"env_vars": dict(env or {})}
    if working_dir is not None:
        runtime_env["working_dir"] = str(working_dir)
    until_s = time.monotonic() + AGENT_S
    with _client(settings) as client:
        while (job := _find(client, submission_id)) is None:
            try:
                client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=submission_id,
                    runtime_env=runtime_env,
                    metadata=told,
                )
            except RuntimeError as error:
                # A repeated name answers HTTP 500, as a defect would. If it is there, all is well.
                is_too_early = NO_AGENT in str(error) and time.monotonic() < until_s
                if not is_too_early and _find(client, submission_id) is None:
                    raise
                time.sleep(1.0)
    if job.metadata != told:
        raise UserError(submission_id, "another job has this name", remedy="choose another name")
    return submission_id


def list_jobs(settings: Settings) -> list[Job]:
    """All jobs of the cluster, the oldest first.

    Raises:
        UserError: nobody answers, or the token is refused.
    """
    with _client(settings) as client:
        found = _all(client)
    return sorted(found, key=lambda job: (job.started_at_s is None, job.started_at_s or 0.0))


def get(settings: Settings, submission_id: str) -> Job:
    """The job of this name.

    Raises:
        UserError: there is none, nobody answers, or the token is refused.
    """
    with _client(settings) as client:
        return _known(client, submission_id, settings)


def status(settings: Settings, submission_id: str) -> str:
    """PENDING, RUNNING, or one of :data:`FINISHED`; raises as :func:`get` does."""
    return get(settings, submission_id).status


def logs(settings: Settings, submission_id: str, *, follow: bool = False) -> Iterator[str]:
    """What the job printed, in pieces; with ``follow`` until it ends.

    Raises:
        UserError: no such job, nobody answers (any more), or the token is refused.
    """
    with _client(settings) as client:
        _known(client, submission_id, settings)
        if follow:
            yield from _followed(client, submission_id, settings)
        else:
            yield client.get_job_logs(submission_id)


def stop(settings: Settings, submission_id: str) -> bool:
    """Ask the job to end (SIGTERM, SIGKILL after some seconds); False if it had ended before.

    Raises:
        UserError: no such job, nobody answers, or the token is refused.
    """
    with _client(settings) as client:
        if _known(client, submission_id, settings).finished:
            return False
        return bool(client.stop_job(submission_id))


def again(settings: Settings, name: str) -> list[str]:
    """The jobs of one undertaking that was begun again, as Ray never takes a name twice: ``name``,
    ``name.r2``, ``name.r3`` and so on, the latest last; empty where there is none.

    Raises:
        UserError: nobody answers, or the token is refused.
    """
    with _client(settings) as client:
        known = [job.submission_id for job in _all(client)]
    return sorted((job for job in known if _nth(name, job)), key=lambda job: _nth(name, job))


def next_name(name: str, known: Sequence[str]) -> str:
    """The name for the next job of an undertaking, whose earlier ones :func:`again` lists."""
    return f"{name}.r{_nth(name, known[-1]) + 1}" if known else name


def _nth(name: str, job: str) -> int:
    """The how-manieth job of an undertaking this is; 0: none of its."""
    found = re.fullmatch(re.escape(name) + r"(?:\.r([1-9]\d*))?", job)
    return int(found[1] or 1) if found else 0


@contextlib.contextmanager
def _client(settings: Settings) -> Iterator["JobClient"]:
    """A client of the cluster; what goes wrong with it becomes a UserError."""
    import aiohttp  # noqa: PLC0415 (these take a second together)
    from ray.exceptions import AuthenticationError  # noqa: PLC0415

    from cluster.job_client import JobClient  # noqa: PLC0415

    address = settings.require("ray_jobs_address").rstrip("/")
    if not re.fullmatch(r"https?://[^/\s]+", address):
        raise UserError(
            "--address",
            "not the address of a Ray dashboard",
            got=address,
            rule="http://host:port, with the dashboard's port (8265 by custom)",
        )
    headers = _headers(settings.ray_token_file)
    try:
        with _without_overrides():
            client = JobClient(address, headers=headers)
        yield client
    except AuthenticationError as error:
        raise UserError(
            address,
            "the Ray cluster refuses the token",
            got=str(settings.ray_token_file) if settings.ray_token_file else "no token",
            rule="the token of this very cluster",
            remedy="set HOPETUNE_RAY_TOKEN_FILE to its file",
        ) from error
    except (OSError, aiohttp.ClientError) as error:  # errors of `requests` are OSErrors
        raise UserError(
            address,
            "no Ray cluster answers",
            got=_brief(error),
            remedy="start the local servers with `hopetune up`, or correct --address",
        ) from error
    except RuntimeError as error:
        raise UserError(address, "the Ray cluster refuses a request", got=_brief(error)) from error


def _headers(token_file: Path | None) -> dict[str, str]:
    """The token travels in a header, read here: Ray's own way, through the environment, knows one
    cluster a process only."""
    if token_file is None:
        return {}
    try:
        token = token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            str(token_file),
            "the token of the Ray cluster cannot be read",
            got=_brief(error),
            remedy="start the local servers with `hopetune up`, or set HOPETUNE_RAY_TOKEN_FILE",
        ) from error
    return {"Authorization": f"Bearer {token}"}


@contextlib.contextmanager
def _without_overrides() -> Iterator[None]:
    with _environment:
        put_aside = {name: os.environ.pop(name) for name in _OVERRIDES if name in os.environ}
        try:
            yield
        finally:
            os.environ.update(put_aside)


def _all(client: "JobClient") -> list[Job]:
    # Drivers that somebody started without the Jobs API are listed too, without a name.
    return [_job(details) for details in client.list_jobs() if details.submission_id]


def _find(client: "JobClient", submission_id: str) -> Job | None:
    return next((job for job in _all(client) if job.submission_id == submission_id), None)


def _known(client: "JobClient", submission_id: str, settings: Settings) -> Job:
    if (job := _find(client, submission_id)) is None:
        raise UserError(
            settings.require("ray_jobs_address"),
            "no such job on this cluster",
            got=submission_id,
            rule="a head that was started anew has forgotten its jobs; `hopetune run` makes none; "
            "jobs of another cluster are found with its --address",
        )
    return job


def _job(details: Any) -> Job:
    def seconds(at_ms: int | None) -> float | None:
        return None if at_ms is None else at_ms / 1000

    return Job(
        submission_id=details.submission_id,
        status=str(getattr(details.status, "value", details.status)),
        message=details.message or "",
        entrypoint=details.entrypoint,
        started_at_s=seconds(details.start_time),
        ended_at_s=seconds(details.end_time),
        metadata=details.metadata or {},
    )


def _followed(client: "JobClient", submission_id: str, settings: Settings) -> Iterator[str]:
    """A log until its job ends. Of its connection only new text is taken: however it ends or
    breaks, the job is asked for its status, and each new connection brings the log from its
    beginning."""
    import aiohttp  # noqa: PLC0415

    given, away_since_s = 0, None
    while True:
        try:
            if _known(client, submission_id, settings).finished:
                break
            at = 0
            for piece in _turned(client.tail_job_logs(submission_id)):
                away_since_s = None
                if new := piece[max(0, given - at) :]:
                    yield new
                at += len(piece)
                given = max(given, at)
        except (OSError, aiohttp.ClientError, RuntimeError):
            away_since_s = away_since_s or time.monotonic()
            if time.monotonic() - away_since_s > AWAY_S:
                raise
        time.sleep(PAUSE_S)
    yield client.get_job_logs(submission_id)[given:]


def _turned(pieces: AsyncIterator[str]) -> Iterator[str]:
    """An asynchronous iterator as a plain one: its loop turns while the next piece is awaited. It
    ends where none comes for too long."""

    async def next_piece() -> str | None:
        try:
            async with asyncio.timeout(SILENCE_S):
                return await anext(pieces, None)
        except TimeoutError:
            return None

    with asyncio.Runner() as runner:
        while True:
            with warnings.catch_warnings():
                # Ray 2.60 calls aiohttp in a way that aiohttp calls deprecated.
                warnings.filterwarnings("ignore", "ssl=None", DeprecationWarning)
                piece = runner.run(next_piece())
            if piece is None:
                return
            yield piece


def _brief(error: BaseException) -> str:
    """The end of an error: Ray puts whole server tracebacks into one."""
    lines = [line for line in str(error).splitlines() if line.strip(" .")]
    return lines[-1][:300] if lines else type(error).__name__
