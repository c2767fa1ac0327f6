"""Where trials may go: nodes that their search avoids, and nodes that a trial was unlucky on."""

from collections.abc import Callable, Collection, Sequence

from tuning.exits import ExitReason
from tuning.nodes import judge
from tuning.records import Attempt
from tuning.study import Study

_UNFIT = (ExitReason.DISK_FULL, ExitReason.UNFIT_NODE)
"""A node that a trial met with one of these is not tried by it again."""


class Placing:
    """Judges the nodes again after every attempt that failed; avoided nodes are kept in the study.

    Args:
        study: of the search.
        nodes: gives the addresses of the living nodes; none where they are not known.
        tell: takes lines for people.
    """

    def __init__(
        self, study: Study, nodes: Callable[[], Collection[str]], tell: Callable[[str], None]
    ) -> None:
        self._study = study
        self._nodes = nodes
        self._tell = tell
        self._avoided = dict(study.record().avoided_nodes)

    def judge(self) -> str | None:
        """Looks at the nodes anew; says why the search cannot go on, if so."""
        judgement = judge(self._study.record().trials, self._nodes())
        new = {n: words for n, words in judgement.avoided.items() if n not in self._avoided}
        for node, words in new.items():
            self._tell(f"node {node} is avoided from now on: {words}")
        if new:
            # For good: an avoided node has no new attempts that could clear it.
            self._avoided |= new
            self._study.record_avoided_nodes(self._avoided)
        return judgement.hopeless

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
