"""The background thread of a driver that keeps the storage of its search from growing.

While the search runs it removes the states of epochs that later ones have superseded; after its
end, whatever is not among the best. Whatever goes wrong there is left to the next time, or to
``hopetune gc``: no search is ever disturbed by it.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection

from tuning.collection import remove, survey
from tuning.objects import Objects, Place
from tuning.records import SearchRecord
from tuning.storage import Storage
from usererror import UserError

log = logging.getLogger(__name__)

INTERVAL_S = 60.0  # untuned
PATIENCE_S = 30.0
"""How long a driver that has ended waits for its last collection; untuned."""


class Collecting:
    """Collects for one search.

    Args:
        storage: opens the studies of all searches; with connections of its own, so that a driver
            learns nothing of a failure here.
        name: the search.
        objects: the store; used by this thread only.
        root: where checkpoints lie in it.
        registered: asks MLflow which checkpoints versions of models name.
    """

    def __init__(
        self,
        storage: Callable[[], Storage],
        name: str,
        objects: Objects,
        root: Place,
        registered: Callable[[], Collection[str]],
    ) -> None:
        self._storage, self._name = storage, name
        self._objects, self._root, self._registered = objects, root, registered
        self._looked: dict[int, int] = {}
        """Epochs of each trial at the last collection."""
        self._finishing = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="collecting")

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Collects once more, now that the search has ended and its runs are written."""
        self._finishing.set()
        self._thread.join(PATIENCE_S)

    def _loop(self) -> None:
        while not self._finishing.wait(INTERVAL_S):
            self._try()
        self._try()

    def _try(self) -> None:
        try:
            self.collect()
        except UserError as error:
            log.warning("checkpoints are not collected now; `hopetune gc` does it later: %s", error)

    def collect(self) -> int:
        """Removes what this search has trained and nobody needs; returns the bytes.

        Raises:
            UserError: the store, MLflow or the studies cannot be asked; nothing is removed then.
        """
        with self._storage() as storage:
            mine = storage.open(self._name).record()
            trunks = self._trunks(mine)
            if not trunks:
                return 0
            # Others matter: they may have used what this search trained, or left what it uses.
            others = storage.records(mine.fingerprint)
        now_ms = time.time_ns() // 1_000_000
        searches = [mine, *(other for other in others if other.name != mine.name)]
        found = survey(self._objects, self._root, searches, self._registered(), now_ms, trunks)
        remove(self._objects, found.collectable)
        self._looked = {trial.number: len(trial.epochs) for trial in mine.trials}
        size = sum(piece.size for piece in found.collectable)
        log.info("%d objects collected, %d bytes", len(found.collectable), size)
        return size

    def _trunks(self, mine: SearchRecord) -> set[str]:
        """Of trials that have got further since; of all once the search has ended."""
        return {
            trial.epochs[0].checkpoint_key.split("/", maxsplit=1)[0]
            for trial in mine.trials
            if trial.epochs and (mine.ended or self._looked.get(trial.number) != len(trial.epochs))
        }
