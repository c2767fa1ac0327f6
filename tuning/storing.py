"""Trials that are trained to their end while their last checkpoints are still on their way.

A worker reports its last epoch as soon as it is trained and takes the next trial at once; the
upload goes on behind it. The trial is complete only when its checkpoints lie in the store, which a
thread of the driver looks for here; until then the study has it as running, so whoever takes over
from a dead driver starts it again and finds whatever was stored.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable

from usererror import UserError

log = logging.getLogger(__name__)

POLL_S = 0.2  # untuned
PATIENCE_S = 300.0
"""What has not arrived by then never will: its worker and its node's disk are gone. Time in which
the store does not answer is not counted. Untuned; 20 GiB, the default of a spool, take 200 s at
100 MB/s."""
LONGEST_LOOK_S = 2.0
"""What one look counts at most: one that takes longer met a store that hangs. Untuned."""
TRIES = 2


class AtOnce:
    """Stands for a storage in which everything lies as soon as it is trained: in simulations."""

    def __init__(self) -> None:
        self._arrived: list[int] = []

    def add(self, number: int, last: str, best: str) -> None:  # noqa: ARG002
        self._arrived.append(number)

    def waiting(self) -> int:
        return 0

    def numbers(self) -> set[int]:
        return set()

    def arrived(self) -> list[int]:
        found, self._arrived = self._arrived, []
        return found

    def overdue(self, patience_s: float = PATIENCE_S) -> list[tuple[int, bool]]:  # noqa: ARG002
        return []

    def is_away(self) -> bool:
        return False

    def wait(self, seconds: float, give_up: Callable[[], bool] = lambda: False) -> None:
        """There is nothing to wait for."""


class Storing:
    """Waits for checkpoints, in a thread of its own: no decision ever waits for the storage.

    Args:
        is_stored: whether the store knows the epochs up to that of a key; and, where that is asked
            for, has its weights. May raise UserError.
    """

    def __init__(self, is_stored: Callable[[str, bool], bool]) -> None:
        self._is_stored = is_stored
        self._changed = threading.Condition()
        self._keys: dict[int, tuple[str, str]] = {}
        self._since_s: dict[int, float] = {}
        self._answered_s = 0.0
        """For how long altogether there was a store that answered."""
        self._away = False
        self._arrived: list[int] = []
        self._losses: Counter[int] = Counter()
        threading.Thread(target=self._look_for_ever, daemon=True, name="storing").start()

    def add(self, number: int, last: str, best: str) -> None:
        """A trial that is complete once its last epoch and the weights of its best are stored."""
        with self._changed:
            self._keys[number] = last, best
            self._since_s[number] = self._answered_s
            self._changed.notify_all()

    def waiting(self) -> int:
        """How many trials wait for their checkpoints."""
        with self._changed:
            return len(self._keys)

    def numbers(self) -> set[int]:
        """The trials that wait for their checkpoints."""
        with self._changed:
            return set(self._keys)

    def arrived(self) -> list[int]:
        """Trials whose checkpoints have arrived since this was last asked."""
        with self._changed:
            found, self._arrived = self._arrived, []
            return found

    def overdue(self, patience_s: float = PATIENCE_S) -> list[tuple[int, bool]]:
        """Trials whose checkpoints will not come, and for each whether another try is worth it.

        They are not waited for any longer. With no patience: all that wait, for when no worker is
        alive that could still be uploading.
        """
        with self._changed:
            now_s = self._answered_s
            late = [n for n, since_s in self._since_s.items() if now_s - since_s >= patience_s]
            for number in late:
                del self._keys[number], self._since_s[number]
                self._losses[number] += 1
            return [(number, self._losses[number] < TRIES) for number in late]

    def is_away(self) -> bool:
        """Whether the store did not answer when it was last looked into."""
        return self._away

    def wait(self, seconds: float, give_up: Callable[[], bool] = lambda: False) -> None:
        """Waits until nothing is on its way any more, but no longer than that. Time in which the
        store does not answer is not counted, but ``give_up`` is asked now and then."""
        with self._changed:
            until_s = self._answered_s + seconds
            while self._keys and self._answered_s < until_s and not give_up():
                self._changed.wait(POLL_S)

    def _look_for_ever(self) -> None:
        pause_s = POLL_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._keys))
                wanted = dict(self._keys)
            began_s = time.monotonic()
            try:
                there = {
                    number
                    for number, (last, best) in wanted.items()
                    if self._is_stored(best, True) and self._is_stored(last, False)
                }
                self._away, pause_s = False, POLL_S
            except UserError as error:
                log.warning("cannot look for checkpoints: %s", error)
                there = set()
                self._away, pause_s = True, min(10.0, 2 * pause_s)
            with self._changed:
                if not self._away:
                    look_s = time.monotonic() - began_s
                    self._answered_s += min(LONGEST_LOOK_S, look_s + pause_s)
                for number in there:
                    if self._keys.get(number) == wanted[number]:
                        del self._keys[number], self._since_s[number]
                        self._arrived.append(number)
                self._changed.notify_all()
            time.sleep(pause_s)
