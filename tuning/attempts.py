"""What becomes of a trial when an attempt at it ends: a pure function of its attempts.

Ray Tune retries nothing. It says that an attempt ended, and why; whether the trial goes on
elsewhere follows from here, so a restarted driver counts on where the one before it died.
"""

from collections.abc import Collection, Sequence

from tuning.exits import ExitReason
from tuning.nodes import WINDOW
from tuning.records import Attempt
from tuning.spec import Resources

GOES_ON_AFTER = (
    ExitReason.CRASHED,
    ExitReason.PREEMPTED,
    ExitReason.STALLED,
    ExitReason.DISK_FULL,
    ExitReason.UNFIT_NODE,
)
"""Causes that need not be the configuration's fault."""


def is_over(
    cause: ExitReason,
    attempts: Sequence[Attempt],
    resources: Resources,
    avoided: Collection[str] = (),
) -> bool:
    """Whether a trial is over now that the last of ``attempts`` ended with ``cause``.

    A crash and a stall are tried again so often; on ``avoided`` nodes as often besides as it takes
    to give up the node (``tuning.nodes.judge``). Being sent away is nobody's fault and costs
    nothing; a full disk, or the lack of what a training needs, is the node's fault, and the next
    attempt goes to another one.
    """
    if cause not in GOES_ON_AFTER:
        return True
    allowed = {
        ExitReason.CRASHED: resources.retries,
        ExitReason.STALLED: resources.stall_retries,
    }.get(cause)
    if allowed is None:
        return False
    failed = [attempt.node for attempt in attempts if attempt.cause == cause]
    excused = sum(node in avoided for node in failed)
    return len(failed) - min(excused, WINDOW) > allowed
