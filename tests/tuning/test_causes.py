"""What a failure within a worker says, and SIGTERM to a process that trains."""

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tuning import preemption
from tuning.causes import cause_of
from tuning.exits import ExitReason
from tuning.preemption import Notice, PreemptedError
from tuning.spool import DiskFullError, SpoolFullError
from usererror import NotHereError, UserError


class AwayError(UserError):
    """As that of a storage which does not answer."""


@pytest.mark.parametrize(
    ("error", "cause", "words"),
    [
        (PreemptedError(), ExitReason.PREEMPTED, "told to leave"),
        (torch.OutOfMemoryError("CUDA out of memory"), ExitReason.OUT_OF_MEMORY, "CUDA"),
        (torch.AcceleratorError("CUDA error: out of memory"), ExitReason.OUT_OF_MEMORY, "CUDA"),
        (UserError("TrainConfig.alpha", "too large"), ExitReason.INVALID_CONFIG, "too large"),
        (AwayError("s3://b", "does not answer"), ExitReason.CRASHED, "does not answer"),
        (NotHereError("s3://b", "is another"), ExitReason.UNFIT_NODE, "s3://b: is another"),
        (SpoolFullError("/spool", "is full"), ExitReason.PREEMPTED, "/spool: is full"),
        (DiskFullError(Path("/spool/x"), 9), ExitReason.DISK_FULL, "full at /spool/x"),
        (OSError(errno.ENOSPC, "no space", "/data/y"), ExitReason.DISK_FULL, "full at /data/y"),
        (OSError(errno.EACCES, "no entry", "/data/y"), ExitReason.CRASHED, "PermissionError"),
        (MemoryError(), ExitReason.CRASHED, "MemoryError"),
    ],
)
def test_every_failure_has_its_cause(error: BaseException, cause: ExitReason, words: str) -> None:
    found, detail = cause_of(error)
    assert found == cause
    assert words in detail


def test_a_full_disk_is_found_behind_the_error_that_it_led_to() -> None:
    error = RuntimeError("cannot write the archive")
    error.__cause__ = OSError(errno.ENOSPC, "no space", "/spool/z")
    assert cause_of(error) == (ExitReason.DISK_FULL, "the disk is full at /spool/z")


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """Signals that came to whoever handled SIGTERM before."""
    found: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: found.append(number))
    yield found
    signal.signal(signal.SIGTERM, before)


def test_sigterm_interrupts_what_trains_and_nothing_else(
    handled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preemption, "GRACE_S", 60.0)
    notice = Notice()

    def train(seconds: float) -> None:
        with notice.interrupts():
            if not notice.given:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(seconds)
            raise AssertionError("trained on after its notice")

    with pytest.raises(PreemptedError):
        train(10)
    assert notice.again is not None
    notice.again.cancel()
    with pytest.raises(PreemptedError):
        train(0)
    assert handled == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert handled == [signal.SIGTERM], "the second one ends the process as it always did"


def test_whoever_does_not_leave_by_itself_is_told_again(
    handled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preemption, "GRACE_S", 0.05)
    notice = Notice()
    os.kill(os.getpid(), signal.SIGTERM)
    assert notice.given
    until = time.monotonic() + 20
    while not handled and time.monotonic() < until:
        time.sleep(0.01)
    assert handled == [signal.SIGTERM]
