"""Ray Tune's side of a worker: an actor that trains one trial after the other.

An attempt that fails for no reason of its process says so in its last result, and the worker takes
the next trial. Whatever else goes wrong is raised as :class:`AttemptFailedError`, upon which Ray
Tune gives up the process; what becomes of the trial is decided by the conductor.
"""

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from tuning.causes import WORKER_IS_WELL, cause_of
from tuning.exits import ExitReason
from tuning.preemption import GRACE_S, Notice, PreemptedError
from tuning.spec import SearchSpec
from usererror import NotHereError, UserError

if TYPE_CHECKING:
    from tuning.trial import EpochReport
    from tuning.worker import Worker

NUMBER = "trial_number"
ATTEMPT = "attempt"
SPEC = "spec"
PARAMETERS = "parameters"
TRAINED = "trained"
FINGERPRINT = "fingerprint"
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
        self._notice = Notice()  # in place of Ray's handler, which comes back for the second one
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        # All that can fail waits for the first step, where a failure has a cause.
        self._next = new_config
        self._reports: Iterator[EpochReport] | None = None
        return True

    def step(self) -> dict[str, Any]:
        try:
            with self._notice.interrupts():
                report = next(self._going())
        except (Exception, PreemptedError) as error:
            cause, detail = cause_of(error)
            if cause in WORKER_IS_WELL:
                return {ENDED: cause.value, DETAIL: detail}
            if cause == ExitReason.PREEMPTED:
                self._bring_to_safety()
            raise AttemptFailedError(cause, detail) from error
        notes = self._worker.take_notes() if self._worker else []
        return {REPORT: vars(report), **({NOTES: "\n".join(notes)} if notes else {})}

    def cleanup(self) -> None:
        if self._worker:
            self._worker.close()

    def _going(self) -> "Iterator[EpochReport]":
        if self._reports is None:
            self._worker = self._worker or _new_worker()
            spec = SearchSpec.model_validate_json(self._next[SPEC])
            self._reports = self._worker.start(
                spec, self._next[PARAMETERS], self._next[FINGERPRINT], *self._next[TRAINED]
            )
        return self._reports

    def _bring_to_safety(self) -> None:
        """Stores the checkpoints that are on their way, as far as the time allows."""
        uploads = threading.Thread(target=self.cleanup, daemon=True)
        uploads.start()
        uploads.join(GRACE_S)


def _new_worker() -> "Worker":
    # Here, as the driver imports this module, too: torch would make it start seconds later.
    from tuning.worker import Worker  # noqa: PLC0415

    given = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    try:
        # Ray hides the GPUs of a node from no worker that was given none (2.60).
        return Worker(has_gpu=bool(given))
    except UserError as error:
        raise NotHereError.of(error) from error
