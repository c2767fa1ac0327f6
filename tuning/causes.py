"""What a failure within a worker says of its attempt."""

from tuning.exits import ExitReason
from tuning.preemption import PreemptedError
from tuning.spool import FULL, DiskFullError, SpoolFullError
from usererror import NotHereError, UserError

WORKER_IS_WELL = (ExitReason.OUT_OF_MEMORY, ExitReason.INVALID_CONFIG, ExitReason.UNFIT_NODE)
"""The worker is as good as before; of all other causes it may not be."""


def cause_of(error: BaseException) -> tuple[ExitReason, str]:
    """The cause of an attempt's end, and words for people."""
    # Here, as drivers know these causes, too, and need no torch.
    from headpose.gpu_memory import is_lack_of_memory  # noqa: PLC0415

    if isinstance(error, PreemptedError):
        return ExitReason.PREEMPTED, "its worker was told to leave"
    if full := _full_disk(error):
        return ExitReason.DISK_FULL, full
    if is_lack_of_memory(error):
        return ExitReason.OUT_OF_MEMORY, str(error).splitlines()[0]
    kinds = (
        (NotHereError, ExitReason.UNFIT_NODE),
        (SpoolFullError, ExitReason.PREEMPTED),  # nobody's failure: it is the store that is away
    )
    for kind, cause in kinds:
        if isinstance(error, kind):
            return cause, str(error)
    if type(error) is UserError:  # circumstances, as a storage that is away, have subclasses
        return ExitReason.INVALID_CONFIG, str(error)
    text = str(error).strip()
    name = type(error).__name__
    return ExitReason.CRASHED, f"{name}: {text.splitlines()[0]}" if text else name


def _full_disk(error: BaseException | None) -> str | None:
    """The place that is full, if that is what an error came from."""
    while error is not None:
        if isinstance(error, DiskFullError):
            return f"the disk is full at {error.path}"
        if isinstance(error, OSError) and error.errno in FULL:
            where = f" at {error.filename}" if error.filename else ""
            return f"the disk is full{where}"
        error = error.__cause__ or error.__context__
    return None
