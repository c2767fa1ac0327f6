"""SIGTERM to a worker: a spot machine's warning, a node that is drained, an operator's hand.

The epoch in flight is let go, what was trained before is brought to safety, and the process leaves.
Ray's own handler ends the process where it stands, with its uploads.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_S = 20.0
"""Time to bring checkpoints to safety; clouds give 30 s and more from warning to end. Untuned."""


class PreemptedError(BaseException):
    """The process was told to leave. No ``Exception``, so that nobody takes it for a failure."""


class Notice:
    """Whether this process was told to leave. To be made in the main thread.

    The first SIGTERM interrupts the training. A second one, which comes by itself after
    ``2 · GRACE_S``, goes to whoever handled the signal before, and ends the process.
    """

    def __init__(self) -> None:
        self.given = False
        self.again: threading.Timer | None = None
        """Sends the second notice."""
        self._training = False
        self._before = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, self._handle)

    @contextmanager
    def interrupts(self) -> Iterator[None]:
        """What stands within ends with :class:`PreemptedError` when the notice comes."""
        self._training = True
        try:
            if self.given:
                raise PreemptedError
            yield
        finally:
            self._training = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.given:
            if callable(self._before):
                self._before(number, frame)
            return
        self.given = True
        self.again = threading.Timer(2 * GRACE_S, os.kill, (os.getpid(), number))
        self.again.daemon = True
        self.again.start()
        if self._training:
            self._training = False
            raise PreemptedError
