"""What poses a set holds, and what was left out of it, in figures."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from headpose.data.readers import LeftOut

ANGLES = ("yaw", "pitch", "roll")

# The 5th and 95th are those that the papers' authors tabulate.
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
#: 5th and 95th percentile of yaw, pitch and roll, as the improvement paper tabulates them.
PUBLISHED_DEG = {
    "300W-LP": ((-81.8, 81.8), (-27.0, 11.0), (-18.9, 15.7)),
    "AFLW2000": ((-68.1, 68.4), (-31.0, 26.3), (-33.5, 33.7)),
    "300W_AUG": ((-78.8, 78.6), (-45.2, 35.2), (-44.9, 42.2)),
}
_HISTOGRAM_LIMIT_DEG = 100.0  # a whole number of bins around ±99


def percentiles(
    angles_deg: npt.NDArray[np.floating], shares: tuple[int, ...] = PERCENTILES
) -> dict[str, dict[int, float]]:
    """Percentiles in degrees by angle: {"yaw": {5: −81.8, …}, …}, of (N, 3) poses."""
    table = np.percentile(angles_deg.astype(np.float64), shares, axis=0).round(2)
    return {
        name: dict(zip(shares, table[:, column].tolist(), strict=True))
        for column, name in enumerate(ANGLES)
    }


def histogram(
    angles_deg: npt.NDArray[np.floating], width_deg: float = 20.0
) -> dict[str, dict[float, int]]:
    """Number of images by angle and lower edge of a bin: {"yaw": {−100.0: 31, …}, …}.

    Args:
        angles_deg: (N, 3) within ±99.
        width_deg: of a bin; divides 200.
    """
    edges = np.arange(-_HISTOGRAM_LIMIT_DEG, _HISTOGRAM_LIMIT_DEG + width_deg / 2, width_deg)
    return {
        name: dict(
            zip(
                edges[:-1].tolist(),
                np.histogram(angles_deg[:, column], edges)[0].tolist(),
                strict=True,
            )
        )
        for column, name in enumerate(ANGLES)
    }


def reasons(left_out: Iterable[LeftOut]) -> dict[str, int]:
    """How many were left out for each kind of reason, the most frequent first."""
    kinds = Counter(entry.reason.split(":", 1)[0] for entry in left_out)
    return dict(kinds.most_common())
