"""Where a value lies within its range, as a share of it, and back. Pure."""

import math

from tuning.legal import step_of, value_after
from tuning.space import Range, Value


def share_of(parameter: Range, value: float) -> float:
    """0 at the lower edge, 1 at the upper one; on a log scale where the range has one. 0 where both
    edges are the same."""
    low, high = parameter.low, parameter.high
    if parameter.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low) if high > low else 0.0


def value_at(name: str, parameter: Range, share: float) -> Value:
    """The legal value nearest to a share of the range; a share outside of 0 to 1 counts as the
    edge."""
    low, high = parameter.low, parameter.high
    share = min(max(share, 0.0), 1.0)
    if parameter.log:
        value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    else:
        value = low + share * (high - low)
    step = step_of(name, parameter)
    if step:
        return value_after(name, parameter, round((value - low) / step))
    return min(max(value, low), high)
