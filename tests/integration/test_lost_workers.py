"""Workers that are killed, sent away or frozen while they train: nothing is lost but an epoch."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cluster.settings import Settings
from tuning.exits import ExitReason
from tuning.records import Attempt, SearchRecord, TrialRecord
from tuning.storage import Storage

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

SearchFile = Callable[..., Path]


def long(seed: int) -> dict[str, str]:
    """Sections of a search that is still at work when it is hit: of each training seed nothing is
    stored yet."""
    return {
        "stopping": "{rule: none}",
        "budget": "{trials: 2, epochs: 12}",
        "fixed": f"{{backbone: squeezenet1_1, image_px: 32, batch_size: 16, seed: {seed}}}",
    }


@contextmanager
def running(servers: Settings, path: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """A driver in the foreground."""
    driver = subprocess.Popen(
        [
            *(sys.executable, "-c", "from tuning.cli.main import main; main()"),
            *("run", str(path), "--name", name),
        ],
        env=os.environ | {"HOPETUNE_STATE_DIR": str(servers.state_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield driver
    finally:
        driver.kill()
        driver.communicate()


def ended(driver: subprocess.Popen[str]) -> str:
    printed, _ = driver.communicate(timeout=240)
    assert driver.returncode == 0, printed
    return printed


def at_work(storage: Storage, name: str, trial: int, attempt: int = 1) -> Attempt:
    """The attempt at a trial, once it has trained an epoch."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if name in storage.names():
            found = storage.open(name).record().trial(trial)
            if found and found.epochs and len(found.attempts) >= attempt:
                return found.attempts[attempt - 1]
        time.sleep(0.1)
    raise TimeoutError(f"trial {trial} does not train")


def check_whole(record: SearchRecord, epochs: int = 12) -> None:
    assert record.ended == "all trials done"
    assert len(record.trials) == 2
    for trial in record.trials:
        assert trial.exit_reason == ExitReason.COMPLETED, trial.detail
        assert sorted(trial.curve) == list(range(1, epochs + 1))


def causes(trial: TrialRecord) -> list[ExitReason | None]:
    return [attempt.cause for attempt in trial.attempts]


def test_a_killed_worker_costs_an_attempt_and_no_epoch(
    servers: Settings, storage: Storage, search_file: SearchFile
) -> None:
    with running(servers, search_file(**long(201)), "small-killed") as driver:
        os.kill(at_work(storage, "small-killed", 0).pid or 0, signal.SIGKILL)
        printed = ended(driver)
    record = storage.open("small-killed").record()
    check_whole(record)
    assert causes(record.trials[0]) == [ExitReason.CRASHED, None]
    assert "trial   0 goes on elsewhere: its worker process died (attempt 2)" in printed
    assert causes(record.trials[1]) == [None]


def test_a_worker_that_is_told_to_leave_costs_no_retry_and_no_epoch(
    servers: Settings, storage: Storage, search_file: SearchFile
) -> None:
    path = search_file(**long(202), resources="{parallel_trials: 2, retries: 0}")
    with running(servers, path, "small-preempted") as driver:
        os.kill(at_work(storage, "small-preempted", 1).pid or 0, signal.SIGTERM)
        printed = ended(driver)
    record = storage.open("small-preempted").record()
    check_whole(record)
    assert causes(record.trials[1]) == [ExitReason.PREEMPTED, None]
    assert "trial   1 goes on elsewhere: its worker was told to leave (attempt 2)" in printed
    assert record.trials[1].attempts[0].pid != record.trials[1].attempts[1].pid


def test_a_frozen_worker_is_killed_and_its_trial_goes_on(
    servers: Settings, storage: Storage, search_file: SearchFile
) -> None:
    resources = "{parallel_trials: 2, retries: 0, stall_minutes: 0.2, start_minutes: 2}"
    with running(servers, search_file(**long(203), resources=resources), "small-frozen") as driver:
        frozen = at_work(storage, "small-frozen", 0)
        os.kill(frozen.pid or 0, signal.SIGSTOP)
        ended(driver)
    record = storage.open("small-frozen").record()
    check_whole(record)
    assert causes(record.trials[0]) == [ExitReason.STALLED, None]
    assert not psutil.pid_exists(frozen.pid or 0)
    # Nobody waited for it.
    assert max(e.at_ms for e in record.trials[1].epochs) < (record.trials[0].ended_ms or 0)
