"""Angle bins: how a classifier's classes stand for degrees.

Bins of ``width_deg`` reach from −99° upward until +99° is covered; where the width does not
divide 198 the last bin reaches past +99°. Letters: B bins.
"""

import functools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from headpose.labels import LIMIT_DEG
from usererror import UserError

Centres = Literal["unbiased", "hopenet"]

_CENTRES: tuple[Centres, ...] = ("unbiased", "hopenet")


@dataclass(frozen=True)
class Binning:
    """Bins from −99° to +99° and the angle that each of them stands for.

    Args:
        width_deg: width of a bin; more than 0, at most 99 (fewer than two bins tell nothing).
            3 is the original's (Ruiz et al. 2018).
        centres: ``unbiased``: a bin stands for the middle of its part within ±99°. ``hopenet``:
            for its left edge, as in the original code; needed for its released weights, which
            make up for it; a pure classifier is biased by −width/2.

    Raises:
        UserError: a width or a kind of centres that cannot be.
    """

    width_deg: float = 3.0
    centres: Centres = "unbiased"

    def __post_init__(self) -> None:
        if not 0 < self.width_deg <= LIMIT_DEG:
            raise UserError(
                "Binning.width_deg",
                "no such bin width",
                got=self.width_deg,
                rule=f"more than 0 and at most {LIMIT_DEG:g} degrees",
            )
        if self.centres not in _CENTRES:
            raise UserError(
                "Binning.centres", "unknown", got=self.centres, rule=f"legal: {', '.join(_CENTRES)}"
            )

    @property
    def count(self) -> int:
        """Number of bins, B."""
        exact = 2 * LIMIT_DEG / self.width_deg
        # 198 / 0.6 is 330.00000000000006: rounding error must not add an empty bin.
        nearest = round(exact)
        return nearest if math.isclose(exact, nearest, rel_tol=1e-9) else math.ceil(exact)

    def nearest_labels(self, angles_deg: Tensor) -> Tensor:
        """The bin of each angle, floor((angle + 99) / width); +99.0 lies in the last bin.

        Unchecked, as a look at the values would wait for a GPU: of an angle outside ±99°, which
        readers leave out, the nearest bin, and of a NaN the first.

        Args:
            angles_deg: any shape.

        Returns:
            The same shape, int64, within [0, B).
        """
        bins = torch.floor((angles_deg + LIMIT_DEG) / self.width_deg)
        return bins.nan_to_num(nan=0.0).clamp(0, self.count - 1).long()

    def centres_deg(
        self, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """(B,) the angle that each bin stands for."""
        left = torch.arange(self.count, device=device, dtype=torch.float64) * self.width_deg
        left = left - LIMIT_DEG
        if self.centres == "hopenet":
            return left.to(dtype)
        right = (left + self.width_deg).clamp(max=LIMIT_DEG)
        return ((left + right) / 2).to(dtype)

    def expectation(self, logits: Tensor) -> Tensor:
        """The mean angle under the softmax of the logits.

        Args:
            logits: (..., B); half precision is summed in float32.

        Returns:
            (...) degrees, float32 or float64.

        Raises:
            UserError: the logits are of another number of bins.
        """
        if logits.shape[-1] != self.count:
            raise UserError(
                "Binning.expectation",
                "logits of another number of bins",
                got=int(logits.shape[-1]),
                rule=f"{self.count} bins of {self.width_deg:g} degrees",
            )
        dtype = torch.promote_types(logits.dtype, torch.float32)
        probabilities = logits.softmax(dim=-1, dtype=dtype)
        return (probabilities * _kept_centres(self, logits.device, dtype)).sum(dim=-1)


# Each step needs them, and on a GPU making them takes eight launches. Never in inference mode, for
# training uses them too, whoever is the first to ask.
@functools.lru_cache
@torch.inference_mode(False)
def _kept_centres(binning: Binning, device: torch.device, dtype: torch.dtype) -> Tensor:
    return binning.centres_deg(device, dtype)
