"""The table of faults: when each was noticed, when the search went on, what it cost."""

import statistics
from collections.abc import Sequence

from benchmarks.report import table
from tests.chaos.hits import Hit

COLUMNS = (
    *("fault", "kind", "target", "search", "noticed after s", "went on after s"),
    *("of which broken s", "epochs trained again", "s in vain", "remark"),
)


def rows(hits: Sequence[Hit]) -> str:
    """One row a fault."""
    return table(COLUMNS, [_row(hit) for hit in hits])


def by_kind(hits: Sequence[Hit]) -> str:
    """One row a kind: how many, and the median and the longest time to go on."""
    kinds = sorted({hit.kind for hit in hits})
    found = []
    for kind in kinds:
        of_kind = [hit for hit in hits if hit.kind == kind]
        times = [h.recovered_s - h.at_s for h in of_kind if h.recovered_s is not None]
        noticed = [h.detected_s - h.at_s for h in of_kind if h.detected_s is not None]
        found.append(
            (
                *(kind, len(of_kind), _median(noticed), _median(times)),
                f"{max(times):.1f}" if times else "never",
                sum(hit.lost_epochs for hit in of_kind),
                f"{sum(hit.lost_s for hit in of_kind):.1f}",
            )
        )
    columns = ("kind", "faults", "noticed s, median", "went on s, median", "longest")
    return table((*columns, "epochs trained again", "s in vain"), found)


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f}" if values else "-"


def _row(hit: Hit) -> tuple[object, ...]:
    def after(moment: float | None) -> str:
        return "-" if moment is None else f"{moment - hit.at_s:.1f}"

    remark = "; ".join(filter(None, (hit.note, *hit.violations)))
    return (
        *(hit.index, hit.kind, hit.target, hit.search, after(hit.detected_s)),
        *(after(hit.recovered_s), after(hit.mended_s), hit.lost_epochs, f"{hit.lost_s:.1f}"),
        remark,
    )
