"""What a fault finds: a running search, its world, and a random generator of its own."""

import random
import time
from dataclasses import dataclass, field

import psutil

from tests.chaos.driving import Driver
from tests.chaos.hits import Hit
from tests.chaos.nodes import Node
from tests.chaos.watching import Trial
from tests.chaos.world import START_PATIENCE_S, World

RECOVERY_PATIENCE_S = 240.0
"""What has not gone on by then counts as lost; several times what was ever seen."""


class NothingToHitError(Exception):
    """The search has ended, or no worker trains: the fault waits for the next search."""


@dataclass
class Scene:
    """A search that runs while faults happen."""

    world: World
    driver: Driver
    search: str
    known: list[Trial] = field(default_factory=list)

    def trials(self) -> list[Trial]:
        """The study now, or as it was last seen while its database is away."""
        self.known = self.world.watcher.last_known(self.search, self.known)
        return self.known

    def running(self) -> list[Trial]:
        return [t for t in self.trials() if not t.is_over]

    @property
    def is_over(self) -> bool:
        return self.world.watcher.ended(self.search) is not None

    def a_worker(self, rng: random.Random) -> tuple[Node, psutil.Process, Trial]:
        """A worker that has reported an epoch of the trial that it has, and its trial's end is not
        near.

        Raises:
            NothingToHitError: there is none any more.
        """
        until = time.monotonic() + START_PATIENCE_S
        while time.monotonic() < until and not self.is_over:
            nodes = {p.pid: (node, p) for node in self.world.nodes for p in node.workers()}
            hit = [
                (*nodes[pid], trial)
                for trial in self.running()
                for pid in trial.workers & set(nodes)
                if trial.has_reported and len(trial.epochs) < self.world.size.epochs
            ]
            if hit:
                return rng.choice(sorted(hit, key=lambda found: found[2].number))
            time.sleep(0.2)
        raise NothingToHitError

    def wait_for_epoch(self, hit: Hit, after_s: float) -> None:
        """Notes when a trial that was hit went on: its next epoch was recorded, or it is over."""
        until = time.monotonic() + RECOVERY_PATIENCE_S
        while time.monotonic() < until:
            hit_ones = [t for t in self.trials() if hit.hits(t.number)]
            later = [t.last_at_s for t in hit_ones if t.last_at_s > after_s]
            if later:
                hit.recovered_s = min(later)
                return
            if hit_ones and all(t.is_over for t in hit_ones):
                hit.recovered_s = time.time()
                return
            time.sleep(0.2)
        hit.violations.append(f"nothing went on within {RECOVERY_PATIENCE_S:.0f} s")
