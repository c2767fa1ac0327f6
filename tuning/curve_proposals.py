"""Which configuration is worth a training next, by the curves of all that were trained. Pure, given
the randomness."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from tuning.curve_model import CurveModel, Curves, Floats, Points
from tuning.grid import Configuration, configuration
from tuning.space import Parameter, Settings
from tuning.variations import drawn

FEWEST = 6
"""Curves below which nothing is learnt from them; untuned."""
MOST, MOST_FITTED = 120, 40
"""Curves that the model sees, and those that its weights are fitted to, for its time grows with
their cube: the best and the latest. Untuned."""
MARGIN = 0.02
"""What counts as better: by so much of the error. Chosen by measurement (benchmarks/
search_efficiency.py, seeds that are not reported): without it proposals gather where they gain
hundredths of a degree."""
LOOKED_AT = np.geomspace(2 / 27, 1, 5)
"""Shares of a training after which a curve is looked at, beside its latest epoch; untuned."""
BEGUN = 6 / 27
"""Share of a training by which one without a curve counts as having done what is expected."""
HOPELESS = 0.9
"""What diverged counts as ending where this share of the errors are better; untuned."""

ANYWHERE, LEADERS, STEPS_EACH = 200, 5, 8
WIDTHS = (0.02, 0.05, 0.1, 0.2)
ROUNDS, KEPT, CHILDREN, FIRST_WIDTH = 3, 6, 12, 0.06
"""How the best configuration is looked for: random ones and steps from the leaders, then ever
smaller steps from the most promising; untuned."""


@dataclass(frozen=True)
class Seen:
    """A configuration and its curve so far: errors (degrees) by epoch, NaN where it diverged."""

    settings: Settings
    curve: Mapping[int, float]
    is_hopeless: bool = False
    """It cannot be trained at all."""

    @property
    def diverged(self) -> bool:
        return self.is_hopeless or not all(map(math.isfinite, self.curve.values()))

    def tells_after(self, epoch: int) -> bool:
        """Whether something can be learnt from it, given that epochs before that one say little."""
        return self.diverged or max(self.curve, default=0) >= epoch


def promising(
    parameters: dict[str, Parameter],
    seen: Sequence[Seen],
    last_epoch: int,
    random: np.random.Generator,
    known: Collection[Configuration] = (),
) -> Settings | None:
    """The configuration whose end is expected to improve most on the best one.

    Args:
        parameters: the space.
        seen: what was and is trained, in the order in which it began.
        last_epoch: of a whole training.
        random: where candidates come from.
        known: configurations that were proposed before, and are not again.

    Returns:
        A whole configuration; none where too few curves are known to learn from, or no candidate
        is new.
    """
    first = _looked_at(last_epoch)[0]
    told = [s for s in seen if s.tells_after(first)]
    if sum(not s.diverged for s in told) < FEWEST:
        return None
    fitted = CurveModel(_observed(parameters, _weightiest(told, MOST_FITTED), last_epoch))
    kept = _weightiest(told, MOST)
    model = CurveModel(_observed(parameters, kept, last_epoch), fitted.weights)
    begun = [s.settings for s in seen if not s.tells_after(first)]
    if begun:
        model = model.with_expected(Points.of(parameters, begun), BEGUN)
    ends = model.ends()
    target = float(ends.min()) - MARGIN
    leaders = [kept[i].settings for i in np.argsort(ends[: len(kept)])[:LEADERS]]
    candidates = [drawn(parameters, random) for _ in range(ANYWHERE)]
    for leader in leaders:
        for width in WIDTHS:
            candidates += [drawn(parameters, random, leader, width) for _ in range(STEPS_EACH)]
    candidates = _new(candidates, known)
    if not candidates:
        return None
    for round_ in range(ROUNDS):
        best = _best(model, parameters, candidates, target)
        width = FIRST_WIDTH / 2**round_
        steps = [drawn(parameters, random, near, width) for near in best for _ in range(CHILDREN)]
        candidates = best + _new(steps, known)
    return _best(model, parameters, candidates, target)[0]


def _new(candidates: list[Settings], known: Collection[Configuration]) -> list[Settings]:
    return [settings for settings in candidates if configuration(settings) not in known]


def _weightiest(told: Sequence[Seen], most: int) -> list[Seen]:
    """At most so many of them, in their order: two thirds for their errors, the latest beside."""
    if len(told) <= most:
        return list(told)
    by_error = sorted(range(len(told)), key=lambda i: (told[i].diverged, _lowest(told[i])))
    kept = set(by_error[: 2 * most // 3])
    latest = [i for i in reversed(range(len(told))) if i not in kept]
    kept.update(latest[: most - len(kept)])
    return [told[i] for i in sorted(kept)]


def _lowest(seen: Seen) -> float:
    return min((v for v in seen.curve.values() if math.isfinite(v)), default=math.inf)


def _looked_at(last_epoch: int) -> list[int]:
    return sorted({max(1, round(share * last_epoch)) for share in LOOKED_AT})


def _observed(parameters: dict[str, Parameter], told: Sequence[Seen], last_epoch: int) -> Curves:
    looked_at = _looked_at(last_epoch)
    owner: list[int] = []
    at: list[float] = []
    errors: list[float] = []
    for index, one in enumerate(told):
        if one.diverged:
            owner, at, errors = [*owner, index], [*at, 1.0], [*errors, math.nan]
            continue
        for epoch in sorted(one.curve):
            if epoch in looked_at or epoch == max(one.curve):
                owner, at = [*owner, index], [*at, epoch / last_epoch]
                errors = [*errors, one.curve[epoch]]
    values = np.log(np.maximum(np.array(errors), 1e-6))
    late = np.array(at) >= BEGUN
    known = values[late & np.isfinite(values)] if late.any() else values
    bad = np.quantile(known[np.isfinite(known)], HOPELESS) if np.isfinite(known).any() else 0.0
    points = Points.of(parameters, [one.settings for one in told])
    return Curves(points, np.array(owner), np.array(at), np.where(np.isnan(values), bad, values))


def _best(
    model: CurveModel, parameters: dict[str, Parameter], candidates: list[Settings], target: float
) -> list[Settings]:
    mean, deviation = model.predicted(Points.of(parameters, candidates))
    order = np.argsort(-_log_improvement((target - mean) / deviation) - np.log(deviation))
    return [candidates[i] for i in order[:KEPT]]


def _log_improvement(u: Floats) -> Floats:
    """Logarithm of the expected improvement in standard deviations, ``u Φ(u) + φ(u)``; far below
    zero by its expansion ``φ(u) / u²``, where the sum would cancel."""
    density = -0.5 * u**2 - 0.5 * math.log(2 * math.pi)
    direct = np.log(np.maximum(u * ndtr(u) + np.exp(density), 1e-300))
    far = density - 2 * np.log(np.maximum(np.abs(u), 1.0))
    found: Floats = np.where(u > -5, direct, far)
    return found
