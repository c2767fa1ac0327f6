"""What SIGTERM and Ctrl-C mean to a driver: the first asks for an end, the second ends at once.

After the first the study is whole within a moment (``Conductor.must_end``); what is left of the
grace goes to workers that finish an epoch or an upload, to which Ray Tune (2.60) gives 10 s, and to
MLflow.
"""

import _thread
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

GRACE_S = 30.0
"""How long workers and MLflow have; untuned. Ray kills a stopped job after its own time, 3 s unless
the cluster sets RAY_JOB_STOP_WAIT_TIME_S: then this part is cut short, and nothing is lost."""

_WORDS = {signal.SIGTERM: "stopped by SIGTERM", signal.SIGINT: "stopped by Ctrl-C"}


class EndedBySignal(SystemExit):
    """The process ends with the exit status that shells give to its signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class Signals:
    """Hands the first signal to ``ask`` while it is entered; must be used in the main thread."""

    def __init__(self, ask: Callable[[str], None]) -> None:
        self._ask = ask
        self._before: dict[signal.Signals, Any] = {}
        self.received: int | None = None

    def __enter__(self) -> Self:
        for number in _WORDS:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            raise EndedBySignal(self.received)
        self.received = number
        self._ask(_WORDS[signal.Signals(number)])
        # Once more, as if the person had lost patience.
        timer = threading.Timer(GRACE_S, _thread.interrupt_main, [number])
        timer.daemon = True
        timer.start()
