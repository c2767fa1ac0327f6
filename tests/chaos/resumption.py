"""From which stored state a trial went on after it had lost its worker.

A trial whose epochs are known but whose state is gone trains them again and reports nothing of it,
so the study and the manifests do not show it. What does is which parts of checkpoints its next
worker fetched: the last one before the first new epoch is the state from which it went on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.gate import Change
from tests.chaos.hits import Hit
from tests.chaos.watching import Trial

SETTLED_S = 0.5
"""What was stored so shortly before a fault may also be on its node's disk still; untuned."""


@dataclass(frozen=True)
class Resumption:
    """How a trial went on after a hit; epochs are 0 where there is none."""

    reported: int
    """The latest epoch that the study had when it was hit."""
    stored: int
    """The latest epoch whose state lay whole in the store."""
    loaded: int | None
    """The epoch from whose state it went on; none where nothing was fetched: from the node's disk,
    or from the beginning."""

    @property
    def again(self) -> range:
        """Epochs that were reported and had to be trained again."""
        begun = self.reported if self.loaded is None else self.loaded
        return range(begun + 1, self.reported + 1)

    @property
    def fault(self) -> str | None:
        """What is wrong with it, in words."""
        if self.loaded is not None and self.loaded < self.stored:
            return f"went on from epoch {self.loaded}, though {self.stored} was stored"
        # All that was reported is stored, so the node's disk cannot have held anything.
        if self.loaded is None and 0 < self.reported == self.stored:
            return f"fetched nothing, though epoch {self.stored} was stored"
        return None


def resumption(
    changes: Sequence[Change], trial: Trial, hit: Hit, hits: Sequence[Hit]
) -> Resumption | None:
    """How a trial went on; none where it did not train any more, or was hit again before."""
    epoch_of = {epoch.key: number for number, epoch in trial.epochs.items()}
    later = [h.at_s for h in hits if h.at_s > hit.at_s and h.loses_workers and h.hits(trial.number)]
    new = [
        epoch.at_s
        for epoch in trial.epochs.values()
        if epoch.at_s > hit.at_s + SETTLED_S and not epoch.restored
    ]
    until_s = min(new, default=math.inf)
    if until_s == math.inf or until_s > min(later, default=math.inf):
        return None
    spoilt = {key: h.at_s for h in hits if h.at_s <= hit.at_s for key in h.damaged}
    removed: set[str] = set()
    stored, loaded = 0, None
    for change in changes:
        key, name = _parts(change)
        epoch = epoch_of.get(key)
        if epoch is None or change.status not in (200, 204, 206):
            continue
        is_whole = change.method == "PUT" and name == "manifest.json"
        if is_whole and change.at_s > spoilt.get(key, math.inf):
            del spoilt[key]  # it was trained and stored again
        # Where a later one was damaged, who collects does not know of it until it is read.
        may_collect_until_s = until_s if spoilt else hit.at_s
        if change.method == "DELETE" and change.at_s < may_collect_until_s:
            removed.add(key)
        elif is_whole and change.at_s < hit.at_s - SETTLED_S and key not in spoilt:
            stored = max(stored, epoch)
        elif change.method == "GET" and hit.at_s < change.at_s < until_s:
            loaded = 0 if key in spoilt else epoch  # of a damaged one nothing is taken
    if any(epoch_of[key] == stored for key in removed):
        stored = 0  # collected, so a later one was there: which is looked at by itself
    reported = max((n for n, e in trial.epochs.items() if e.at_s < hit.at_s), default=0)
    return Resumption(reported, stored, loaded)


def _parts(change: Change) -> tuple[str, str]:
    """Key and name of a checkpoint's object; an empty key for anything else."""
    _bucket, _, place = change.key.lstrip("/").partition("/")
    if not place.startswith("checkpoints/"):
        return "", ""
    key, _, name = place.removeprefix("checkpoints/").rpartition("/")
    return key, name
