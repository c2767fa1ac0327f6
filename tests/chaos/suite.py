"""The suite: searches one after the other, faults at random moments, invariants after each."""

import random
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos import invariants
from tests.chaos.driving import hopetune
from tests.chaos.faults import DETECTED, GOES_ON, KINDS
from tests.chaos.hits import Hit
from tests.chaos.scene import NothingToHitError, Scene
from tests.chaos.watching import Trial
from tests.chaos.world import World

SEARCH_PATIENCE_S = 400.0
"""A search without faults takes about a minute on two busy cores; untuned."""
LONGEST_PAUSE_S = 5.0
"""Between the recovery from one fault and the next; untuned."""
RESTARTS = 3


@dataclass(frozen=True)
class Planned:
    """A fault as the seed decides it."""

    index: int
    kind: str
    pause_s: float
    seed: str


def plan(seed: int, index: int, kinds: Sequence[str]) -> Planned:
    """The fault of this index, the same whichever others are made: of every ``len(kinds)`` faults
    in a row, each is of another kind."""
    deck = list(kinds)
    random.Random(f"{seed}:deck:{index // len(deck)}").shuffle(deck)
    own = f"{seed}:{index}"
    pause_s = random.Random(own).uniform(0.2, LONGEST_PAUSE_S)
    return Planned(index, deck[index % len(deck)], pause_s, own)


@dataclass
class Suite:
    """Runs faults against one world and gathers what came of them."""

    world: World
    seed: int
    kinds: Sequence[str] = tuple(KINDS)
    hits: list[Hit] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    wanted: list[Trial] = field(default_factory=list)
    """The trials of the undisturbed search."""
    searches: int = 0

    def undisturbed(self) -> None:
        """What every later search has to end up as."""
        scene = self._begin("undisturbed")
        self._finish(scene)
        self.wanted = self.world.watcher.trials(scene.search)
        self._check(scene.search, [])

    def inject(self, indices: Sequence[int]) -> None:
        """All faults of these indices, in as many searches as that takes."""
        left = list(indices)
        while left:
            self.searches += 1
            scene = self._begin(f"chaos-{self.seed}-{left[0]}-{self.searches}")
            hits: list[Hit] = []
            try:
                while left and (hit := self._one(scene, plan(self.seed, left[0], self.kinds))):
                    hits.append(hit)
                    self.hits.append(hit)
                    left.pop(0)
                self._finish(scene)
            finally:
                scene.driver.kill()  # nobody else would, were this suite interrupted
            self._check(scene.search, hits)

    def _begin(self, search: str) -> Scene:
        driver = self.world.driver(search)
        self.world.have_nodes()
        driver.start()
        scene = Scene(self.world, driver, search)
        say(f"search {search}")
        return scene

    def _one(self, scene: Scene, planned: Planned) -> Hit | None:
        """Injects one fault; none where the search has ended before."""
        rng = random.Random(planned.seed)
        time.sleep(planned.pause_s)
        self._revive(scene)
        hit = Hit(planned.index, planned.kind, scene.search, "", time.time())
        try:
            self.world.start_nodes()
            KINDS[planned.kind](scene, rng, hit)
        except NothingToHitError:
            return None
        except Exception as error:  # noqa: BLE001 (the suite goes on and tells all at the end)
            hit.violations.append(f"{type(error).__name__}: {error}")
        hit.detected_s = _detected(scene, hit)
        self.violations += [f"fault {hit.index} ({hit.kind}): {v}" for v in hit.violations]
        went_on = "never" if hit.recovered_s is None else f"{hit.recovered_s - hit.at_s:.1f} s"
        say(f"  fault {hit.index} (seed {self.seed}): {hit.kind}, {hit.target}: {went_on}")
        return hit

    def _revive(self, scene: Scene) -> None:
        """A driver that died though nobody killed it is started again, and told of."""
        if scene.driver.is_alive or scene.is_over:
            return
        last = scene.driver.said()[-1].text if scene.driver.said() else ""
        code = scene.driver.returncode
        self.violations.append(f"{scene.search}: its driver died by itself ({code}): {last}")
        say(f"  the driver died by itself: {last}")
        try:  # as an operator would: without nodes the search would go on on the head's CPUs
            self.world.restore()
            self.world.have_nodes()
        except Exception as error:  # noqa: BLE001 (the suite goes on and tells all at the end)
            self.violations.append(f"{scene.search}: servers or nodes do not come back: {error}")
        scene.driver.start(is_known=bool(scene.trials()))

    def _finish(self, scene: Scene) -> None:
        """Waits for the search's own end."""
        for _ in range(RESTARTS):
            if not scene.driver.wait(SEARCH_PATIENCE_S):
                text = f"{scene.search}: did not end within {SEARCH_PATIENCE_S:.0f} s"
                self.violations.append(text)
                scene.driver.kill()
                break
            if scene.is_over:
                break
            self._revive(scene)
        if any(
            "MLflow" in line.text and "hopetune sync" in line.text for line in scene.driver.lines
        ):
            hopetune("sync", scene.search, environment=self.world.driver_environment())

    def _check(self, search: str, hits: Sequence[Hit]) -> None:
        self.world.start_nodes()
        try:
            found = invariants.check(self.world, search, hits, self.wanted or self._now(search))
        except Exception as error:  # noqa: BLE001 (what cannot be checked does not hold)
            found = [f"{search}: cannot be checked: {type(error).__name__}: {error}"]
        self.violations += found
        say(f"  {search}: {len(found) or 'no'} violations")
        for text in found:
            say(f"    {text}")

    def _now(self, search: str) -> list[Trial]:
        return self.world.watcher.trials(search)


def _detected(scene: Scene, hit: Hit) -> float | None:
    pattern = DETECTED.get(hit.kind, GOES_ON)
    lines = (line for line in scene.driver.said(hit.at_s) if re.search(pattern, line.text))
    return next((line.at_s for line in lines), None)


def say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()
