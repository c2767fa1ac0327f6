"""Where trials may go: nodes that their search avoids, and nodes that a trial was unlucky on."""

from collections.abc import Callable, Collection, Sequence

from tuning.exits import ExitReason
from tuning.nodes import judge
from tuning.records import Attempt
from tuning.study import Study, now_ms

_UNFIT = (ExitReason.DISK_FULL, ExitReason.UNFIT_NODE)
"""A node that a trial met with one of these is not tried by it again."""

RETURN_S = 300.0
"""How long other nodes are waited for where only avoided ones are left: one that is started again
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
        self._avoided = dict(study.record().avoided_nodes)
        self._alone_since_ms: int | None = None

    @property
    def avoided(self) -> Collection[str]:
        """Nodes that get no trials while others live."""
        return self._avoided

    def waits(self) -> bool:
        """Whether only avoided nodes are left, but another may come back."""
        living = set(self._nodes()) if self._avoided else set()
        if not living or not living <= set(self._avoided):
            self._alone_since_ms = None
            return False
        if self._alone_since_ms is None:
            self._alone_since_ms = self._clock()
            self._tell(f"only avoided nodes are left; others are waited for {RETURN_S:.0f} s")
        return abs(self._clock() - self._alone_since_ms) < 1000 * RETURN_S

    def judge(self) -> str | None:
        """Looks at the nodes anew; says why the search cannot go on, if so. Not while others are
        waited for."""
        judgement = judge(self._study.record().trials, self._nodes())
        new = {n: words for n, words in judgement.avoided.items() if n not in self._avoided}
        for node, words in new.items():
            self._tell(f"node {node} is avoided from now on: {words}")
        if new:
            # For good: an avoided node has no new attempts that could clear it.
            self._avoided |= new
            self._study.record_avoided_nodes(self._avoided)
        return None if self.waits() else judgement.hopeless

    def avoid(self, attempts: Sequence[Attempt]) -> tuple[str, ...] | None:
        """The nodes that must not have the next attempt; none where no node is left for it."""
        living = set(self._nodes())
        unfit = {a.node for a in attempts if a.cause in _UNFIT and a.node}
        must = unfit | set(self._avoided)
        if living and living <= must:
            return None
        last = attempts[-1] if attempts else None
        if last and last.cause == ExitReason.STALLED and not living <= must | {last.node}:
            must.add(last.node)
        return tuple(sorted(must & living if living else must))
