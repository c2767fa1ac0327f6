"""A store that hangs until a search is trained, and workers that are gone when it is back."""

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

from cluster.local import processes, seaweed
from cluster.local.state import StateDir
from cluster.settings import Settings
from tuning.exits import ExitReason
from tuning.records import SearchRecord
from tuning.storage import Storage

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

NAME, EPOCHS = "small-store-away", 4


@contextmanager
def hanging(family: list[psutil.Process]) -> Iterator[None]:
    """A server answers nobody."""
    for process in family:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in family:
            process.send_signal(signal.SIGCONT)


def test_trials_whose_checkpoints_lie_on_a_disk_are_completed_without_a_worker(
    servers: Settings, storage: Storage, search_file: Callable[..., Path]
) -> None:
    fixed = "{backbone: squeezenet1_1, image_px: 32, batch_size: 16, seed: 301}"
    budget = f"{{trials: 2, epochs: {EPOCHS}}}"
    path = search_file(fixed=fixed, budget=budget, stopping="{rule: none}")

    def record() -> SearchRecord | None:
        return storage.open(NAME).record() if NAME in storage.names() else None

    def lengths() -> list[int]:
        found = record()
        return [len(trial.epochs) for trial in found.trials] if found else []

    # Beforehand: the epochs are over in a moment.
    s3 = processes.family(processes.read_record(StateDir(servers.state_dir).record(seaweed.NAME)))
    assert s3
    driver = subprocess.Popen(
        [
            *(sys.executable, "-c", "from tuning.cli.main import main; main()"),
            *("run", str(path), "--name", NAME),
        ],
        env=os.environ | {"HOPETUNE_STATE_DIR": str(servers.state_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with driver:
        assert driver.stdout is not None
        try:
            # One may be trained before the other has begun: it must not be stored by then.
            until(lambda: any(lengths()))
            with hanging(s3):
                until(lambda: lengths() == [EPOCHS] * 2)
                found = record()
                assert found is not None
                assert [trial.state for trial in found.trials] == ["RUNNING"] * 2
                for trial in found.trials:  # sooner than they would leave by themselves
                    os.kill(trial.attempts[0].pid or 0, signal.SIGKILL)
                printed = said(driver, "checkpoints of 2 trained trials are not stored yet")
            printed += driver.stdout.read()
            assert driver.wait(120) == 0, printed
        finally:
            driver.kill()
    found = record()
    assert found is not None
    for trial in found.trials:
        assert trial.exit_reason == ExitReason.COMPLETED, printed
        assert [attempt.cause for attempt in trial.attempts] == [None]
        assert not any(epoch.restored for epoch in trial.epochs)


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.1)


def said(driver: subprocess.Popen[str], text: str) -> str:
    """All that a driver prints until it says this."""
    assert driver.stdout is not None
    printed = ""
    for line in driver.stdout:
        printed += line
        if text in line:
            return printed
    raise AssertionError(printed)
