"""Where trials may go: nodes that their search avoids, and nodes that a trial was unlucky on."""

from collections.abc import Callable, Collection, Sequence

from tuning.exits import ExitReason
from tuning.nodes import judge
from tuning.records import Attempt
from tuning.study import Study, now_ms

_UNFIT = (ExitReason.DISK_FULL, ExitReason.UNFIT_NODE)
"""A node that a trial met with one of these is not tried by it again."""

RETURN_S = 300.0
"""For how long a node that is gone counts as one that may come back: one that is started again
takes minutes. Untuned."""


class Placing:
    """Judges the nodes again after every attempt that failed; avoided nodes are kept in the study.

    Args:
        study: of the search.
        nodes: gives the addresses of the living nodes; none where they are not known.
        tell: takes lines for people.
        clock: gives the time in ms.
    """

    def __init__(
        self,
        study: Study,
        nodes: Callable[[], Collection[str]],
        tell: Callable[[str], None],
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._study = study
        self._nodes = nodes
        self._tell = tell
        self._clock = clock
        record = study.record()
        self._avoided = dict(record.avoided_nodes)
        self._living = {a.node for t in record.trials for a in t.attempts if a.node}
        """At the last look; a node that the driver before this one had may be on its way back."""
        self._gone_ms: dict[str, int] = {}
        """Nodes that may come back, and when they were missed first."""

    @property
    def avoided(self) -> Collection[str]:
        """Nodes that get no trials while others live."""
        return self._avoided

    def judge(self) -> str | None:
        """Looks at the nodes anew; says why the search cannot go on, if so."""
        _, expected = self._look()
        judgement = judge(self._study.record().trials, expected)
        new = {n: words for n, words in judgement.avoided.items() if n not in self._avoided}
        for node, words in new.items():
            self._tell(f"node {node} is avoided from now on: {words}")
        if new:
            # For good: an avoided node has no new attempts that could clear it.
            self._avoided |= new
            self._study.record_avoided_nodes(self._avoided)
        return judgement.hopeless

    def avoid(self, attempts: Sequence[Attempt]) -> tuple[str, ...] | None:
        """The nodes that must not have the next attempt; none where no node is left for it, nor may
        come back."""
        living, expected = self._look()
        unfit = {a.node for a in attempts if a.cause in _UNFIT and a.node}
        must = unfit | set(self._avoided)
        if living and expected <= must:
            return None
        last = attempts[-1] if attempts else None
        if last and last.cause == ExitReason.STALLED and not living <= must | {last.node}:
            must.add(last.node)
        return tuple(sorted(must & expected if living else must))

    def has_place(self, avoid: Collection[str]) -> bool:
        """Whether a node is left, or may come back, that is none of these."""
        living, expected = self._look()
        return not living or not expected <= set(avoid)

    def waits(self, avoid: Collection[str]) -> bool:
        """Whether all others than these are gone, but one of them may come back."""
        living, expected = self._look()
        return living <= set(avoid) and not expected <= set(avoid)

    def _look(self) -> tuple[set[str], set[str]]:
        """The living nodes; and these with the ones that may come back. None where no node lives,
        or they are not known."""
        now, living = self._clock(), set(self._nodes())
        gone = {n: self._gone_ms.get(n, now) for n in self._living | set(self._gone_ms)}
        self._gone_ms = {
            node: since_ms
            for node, since_ms in gone.items()
            # A clock that was set back counts as time that has passed.
            if node not in living and abs(now - since_ms) < 1000 * RETURN_S
        }
        self._living = living
        return living, living | set(self._gone_ms) if living else living
