"""Ray Tune's side of a worker: an actor that trains one trial after the other.

An attempt that fails for a reason of its configuration says so in its last result, and the worker
takes the next trial. Whatever else goes wrong is raised as :class:`AttemptFailedError`, upon which
Ray Tune gives up the process; what becomes of the trial is decided by the conductor.
"""

from collections.abc import Iterator
from typing import Any

import torch
from ray import tune

from tuning.exits import ExitReason
from tuning.spec import SearchSpec
from tuning.trial import EpochReport
from tuning.worker import Worker
from usererror import UserError

NUMBER = "trial_number"
ATTEMPT = "attempt"
SPEC = "spec"
PARAMETERS = "parameters"
TRAINED = "trained_epochs"
REPORT = "report"
ENDED = "ended"
DETAIL = "detail"
NOTES = "notes"


class AttemptFailedError(Exception):
    """An attempt ended with a process that must not be used any more."""

    def __init__(self, cause: ExitReason, detail: str) -> None:
        super().__init__(cause, detail)
        self.cause, self.detail = cause, detail


class HeadposeTrainable(tune.Trainable):  # type: ignore[misc]
    """One trial after the other in one warm process; a Ray Tune step is an epoch."""

    def setup(self, config: dict[str, Any]) -> None:
        self._worker: Worker | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        # All that can fail waits for the first step, where a failure has a cause.
        self._next = new_config
        self._reports: Iterator[EpochReport] | None = None
        return True

    def step(self) -> dict[str, Any]:
        try:
            report = next(self._going())
        except torch.OutOfMemoryError as error:
            return _ended(ExitReason.OUT_OF_MEMORY, str(error))
        except UserError as error:
            return _ended(ExitReason.INVALID_CONFIG, str(error))
        except Exception as error:
            raise AttemptFailedError(ExitReason.CRASHED, _brief(error)) from error
        notes = self._worker.take_notes() if self._worker else []
        return {REPORT: vars(report), **({NOTES: "\n".join(notes)} if notes else {})}

    def cleanup(self) -> None:
        if self._worker:
            self._worker.close()

    def _going(self) -> Iterator[EpochReport]:
        if self._reports is None:
            self._worker = self._worker or Worker()
            spec = SearchSpec.model_validate_json(self._next[SPEC])
            self._reports = self._worker.start(spec, self._next[PARAMETERS], self._next[TRAINED])
        return self._reports


def _ended(reason: ExitReason, detail: str) -> dict[str, Any]:
    return {ENDED: reason.value, DETAIL: detail}


def _brief(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
