"""Trials that are trained to their end while their last checkpoints are still on their way.

A worker reports its last epoch as soon as it is trained and takes the next trial at once; the
upload goes on behind it. The trial is complete only when its checkpoints lie in the store, which a
thread of the driver looks for here; until then the study has it as running, so whoever takes over
from a dead driver starts it again and finds whatever was stored. What lies on the disk of a living
node is never given up.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from usererror import UserError

log = logging.getLogger(__name__)

POLL_S = 0.2  # untuned
PATIENCE_S = 300.0
"""What has not arrived by then is looked for on the nodes. Time in which the store does not answer
is not counted. Untuned; 20 GiB, the default of a spool, take 200 s at 100 MB/s."""
SETTLE_S = 5.0
"""How long the store is looked into for what no node has any more; counted alike. Untuned."""
LONGEST_LOOK_S = 2.0
"""What one look counts at most: one that takes longer met a store that hangs. Untuned."""


class Bring(Protocol):
    """Has checkpoints brought to the store that lie on disks of living nodes, or of the one at an
    address, for as long as that takes; what it returns says whether none of them lies on a disk any
    more."""

    def __call__(self, keys: Collection[str], node: str | None = None) -> Callable[[], bool]: ...


class AtOnce:
    """Stands for a storage in which everything lies as soon as it is trained: in simulations."""

    def __init__(self) -> None:
        self._arrived: list[int] = []

    def add(self, number: int, last: str, best: str) -> None:  # noqa: ARG002
        self._arrived.append(number)

    def waiting(self) -> int:
        return 0

    def numbers(self) -> set[int]:
        return set(self._arrived)

    def arrived(self) -> list[int]:
        found, self._arrived = self._arrived, []
        return found

    def lost(self, patience_s: float = PATIENCE_S) -> list[int]:  # noqa: ARG002
        return []

    def bring(self, key: str, node: str) -> None:
        """There is nothing to bring."""

    def wait(self, seconds: float) -> None:
        """There is nothing to wait for."""


@dataclass
class _Awaited:
    """The checkpoints of one trial: its last epoch, and the weights of its best."""

    last: str
    best: str
    since_s: float
    is_brought: Callable[[], bool] | None = None
    """Whether the nodes, once they are asked for it, have brought what they had."""
    on_no_disk: bool = False


class Storing:
    """Waits for checkpoints, in a thread of its own: no decision ever waits for the storage.

    Args:
        is_stored: whether the store knows the epochs up to that of a key; and, where that is asked
            for, has its weights. May raise UserError.
        bring: has them brought by the nodes.
    """

    def __init__(self, is_stored: Callable[[str, bool], bool], bring: Bring) -> None:
        self._is_stored, self._bring = is_stored, bring
        self._changed = threading.Condition()
        self._awaited: dict[int, _Awaited] = {}
        self._answered_s = 0.0
        """For how long altogether there was a store that answered."""
        self._arrived: list[int] = []
        self._to_bring: dict[str, set[str]] = {}
        self._bringing: dict[str, Callable[[], bool]] = {}
        """For each node that was asked alone, whether it has brought what it was asked for."""
        threading.Thread(target=self._look_for_ever, daemon=True, name="storing").start()

    def add(self, number: int, last: str, best: str) -> None:
        """A trial that is complete once its last epoch and the weights of its best are stored."""
        with self._changed:
            self._awaited[number] = _Awaited(last, best, self._answered_s)
            self._changed.notify_all()

    def waiting(self) -> int:
        """How many trials wait for their checkpoints."""
        with self._changed:
            return len(self._awaited)

    def numbers(self) -> set[int]:
        """The trials that wait for their checkpoints, or for somebody to hear of their arrival."""
        with self._changed:
            return {*self._awaited, *self._arrived}

    def arrived(self) -> list[int]:
        """Trials whose checkpoints have arrived since this was last asked."""
        with self._changed:
            found, self._arrived = self._arrived, []
            return found

    def lost(self, patience_s: float = PATIENCE_S) -> list[int]:
        """Trials whose checkpoints are neither in the store nor on the disk of a living node. They
        are not waited for any longer.

        Of what has not arrived within the patience, the nodes are asked: they bring what they have.
        """
        self._ask_nodes()
        with self._changed:
            late = [a for a in self._awaited.values() if a.is_brought is None]
            late = [a for a in late if self._answered_s - a.since_s >= patience_s]
            if late:
                is_brought = self._bring({key for a in late for key in (a.last, a.best)})
                for awaited in late:
                    awaited.is_brought = is_brought
            lost = [number for number, awaited in self._awaited.items() if self._is_lost(awaited)]
            for number in lost:
                del self._awaited[number]
            return lost

    def bring(self, key: str, node: str) -> None:
        """Has a node bring what a worker may have left on its disk: another may come there late."""
        self._to_bring.setdefault(node, set()).add(key)
        self._ask_nodes()

    def _ask_nodes(self) -> None:
        """One request a node at a time: each is a process there, for as long as the store is away.
        What is asked for meanwhile is the next one's."""
        for node, keys in list(self._to_bring.items()):
            if node not in self._bringing or self._bringing[node]():
                self._bringing[node] = self._bring(keys, node)
                del self._to_bring[node]

    def _is_lost(self, awaited: _Awaited) -> bool:
        if awaited.is_brought is None or not awaited.is_brought():
            return False
        if not awaited.on_no_disk:
            # Looked for from now on: a look that has begun already may come too early.
            awaited.since_s, awaited.on_no_disk = self._answered_s, True
        return self._answered_s - awaited.since_s >= SETTLE_S

    def wait(self, seconds: float) -> None:
        """Waits until nothing is on its way any more, but no longer than that."""
        with self._changed:
            self._changed.wait_for(lambda: not self._awaited, seconds)

    def _look_for_ever(self) -> None:
        pause_s = POLL_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._awaited))
                wanted = dict(self._awaited)
            began_s = time.monotonic()
            try:
                there = {number for number, awaited in wanted.items() if self._is_there(awaited)}
                look_s, pause_s = time.monotonic() - began_s, POLL_S
                answered_s = min(LONGEST_LOOK_S, look_s + pause_s)
            except UserError as error:
                if pause_s == POLL_S:  # once, not at every look
                    log.warning("cannot look for checkpoints: %s", error)
                there, answered_s, pause_s = set(), 0.0, min(10.0, 2 * pause_s)
            with self._changed:
                self._answered_s += answered_s
                for number in there:
                    if self._awaited.get(number) is wanted[number]:
                        del self._awaited[number]
                        self._arrived.append(number)
                self._changed.notify_all()
            time.sleep(pause_s)

    def _is_there(self, awaited: _Awaited) -> bool:
        return self._is_stored(awaited.best, True) and self._is_stored(awaited.last, False)
