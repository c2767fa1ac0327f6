"""Where learning curves end, learnt from all of them together: a Gaussian process over settings and
epochs. Pure.

After Swersky, Snoek and Adams, "Freeze-Thaw Bayesian Optimization" (arXiv:1406.3896): a curve is
where it ends plus what it still has to learn, which fades with a mixture of exponential decays,
whose covariance between two epochs is ``(1 + (t + t') / b) ** -a``. Here both depend on the
settings, each as a sum of one effect for every parameter and one of all of them together: what
a bin width costs is learnt from every network at once, and how slowly a large network learns is
known of a new trial before its first epoch. In the paper only the ends depend on the settings.
"""

from dataclasses import dataclass
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from tuning.scale import share_of
from tuning.space import Choices, Parameter, Settings

Floats = NDArray[np.float64]

NARROWNESS = 3.0
"""Of the effect of a number: squared distances over its whole range count so often. Untuned: the
effect of a good and that of a bad value of the same range hardly know of each other."""
EARLY_NOISE, NOISE_FADES = 3.0, 6.75
"""An error after a share ``t`` of a training is noisier by ``1 + 3 exp(-6.75 t)`` in variance, for
the first epochs jump; untuned."""
STEPS = 40  # of the fit; untuned
JITTER = 1e-8


@dataclass(frozen=True)
class Points:
    """Configurations as numbers: (N, P) with one column for each parameter.

    A number lies in 0 to 1, a choice is its index; NaN where a parameter is not active.
    """

    columns: Floats
    is_choice: NDArray[np.bool_]
    """(P,)"""

    @classmethod
    def of(cls, parameters: dict[str, Parameter], settings: list[Settings]) -> Self:
        rows = [[_number(p, s, name) for name, p in parameters.items()] for s in settings]
        is_choice = [isinstance(p, Choices) for p in parameters.values()]
        return cls(np.array(rows, dtype=np.float64), np.array(is_choice))

    def __len__(self) -> int:
        return len(self.columns)

    def __add__(self, other: "Points") -> "Points":
        return Points(np.concatenate([self.columns, other.columns]), self.is_choice)


def _number(parameter: Parameter, settings: Settings, name: str) -> float:
    if name not in settings:
        return float("nan")
    if isinstance(parameter, Choices):
        return float(parameter.choices.index(settings[name]))
    return share_of(parameter, float(settings[name] or 0))


def effects(points: Points, others: Points) -> Floats:
    """(P + 1, N, M) covariances of the effect of each parameter alone and of all together."""
    one, two = points.columns[:, None, :], others.columns[None, :, :]
    both_absent = np.isnan(one) & np.isnan(two)
    one_absent = np.isnan(one) ^ np.isnan(two)
    distance = np.nan_to_num(one - two)
    squared = np.where(points.is_choice, distance != 0, NARROWNESS * distance**2)
    squared = np.where(one_absent, 1.0, np.where(both_absent, 0.0, squared))
    alone = np.where(
        points.is_choice | one_absent, (squared == 0).astype(np.float64), _matern(squared)
    )
    together = _matern(squared.sum(axis=2))
    return np.concatenate([np.moveaxis(alone, 2, 0), together[None]])


def _matern(squared: Floats) -> Floats:
    """Matérn's covariance of smoothness 5/2 (Rasmussen and Williams 2006, eq. 4.17)."""
    r = np.sqrt(5 * squared)
    found: Floats = (1 + r + r**2 / 3) * np.exp(-r)
    return found


@dataclass(frozen=True)
class Curves:
    """Observed errors of (N) configurations, n in all.

    Attributes:
        points: (N) the configurations.
        owner: (n,) the configuration of each observation, in rising order; each has one.
        at: (n,) after which share of a whole training, above 0 and up to 1.
        values: (n,) logarithms of errors.
    """

    points: Points
    owner: NDArray[np.intp]
    at: Floats
    values: Floats


class _Layout:
    """The logarithms of what a model is made of, in one vector, with what is believed beforehand.

    Variances are relative to that of the observed values. All untuned; normal in the logarithm.
    """

    def __init__(self, parameters: int) -> None:
        effect_count = parameters + 1
        self.ends, self.speeds = slice(0, effect_count), slice(effect_count, 2 * effect_count)
        (self.common_speed, self.own_speed, self.own_end, self.noise, self.power, self.time) = (
            range(2 * effect_count, 2 * effect_count + 6)
        )
        many = np.full(2 * effect_count, 0.3)
        self.believed = np.log(np.concatenate([many, [1.0, 0.3, 0.02, 0.02, 1.0, 0.11]]))
        self.spread = np.concatenate([np.full(len(many), 1.5), [1.5, 1.5, 1.0, 1.5, 0.4, 0.7]])


class CurveModel:
    """What is believed of the curves of all configurations, given those that were observed."""

    def __init__(self, curves: Curves, weights: Floats | None = None) -> None:
        """Fits the weights to the curves by their marginal likelihood, if they are not given."""
        self._layout = _Layout(curves.points.columns.shape[1])
        self._curves = curves
        self._middle = float(np.median(curves.values))
        self._scale = float(curves.values.std()) or 1.0
        self._values = (curves.values - self._middle) / self._scale
        self._effects = effects(curves.points, curves.points)
        self._times = curves.at[:, None] + curves.at[None, :]
        self._noises = 1 + EARLY_NOISE * np.exp(-NOISE_FADES * curves.at)
        self._firsts = np.searchsorted(curves.owner, np.arange(len(curves.points)))
        self._same = curves.owner[:, None] == curves.owner[None, :]
        self.weights = self._fitted() if weights is None else weights
        covariance = self._covariance(self.weights)[0]
        self._root = cholesky(covariance, lower=True)
        self._solved = cho_solve((self._root, True), self._values)

    def with_expected(self, points: Points, at: float) -> "CurveModel":
        """The model as it were, had these configurations done what it expects of them by then: what
        is proposed next keeps its distance from what is being trained."""
        expected, _ = self.predicted(points, at)
        old, count = self._curves, len(self._curves.points)
        curves = Curves(
            old.points + points,
            np.concatenate([old.owner, count + np.arange(len(points))]),
            np.concatenate([old.at, np.full(len(points), at)]),
            np.concatenate([old.values, expected]),
        )
        return CurveModel(curves, self.weights)

    def ends(self) -> Floats:
        """(N,) means of the logarithms of the errors with which the observed configurations end."""
        w, weight, count = self._layout, np.exp(self.weights), len(self._curves.points)
        ends, speeds = self._shared(self._effects)
        ends = ends + weight[w.own_end] * np.eye(count)
        speeds = speeds + weight[w.own_speed] * np.eye(count)
        found: Floats = self._known(ends, speeds, 1.0) @ self._solved
        return self._middle + self._scale * found

    def predicted(self, points: Points, at: float = 1.0) -> tuple[Floats, Floats]:
        """Mean and standard deviation, (M,) each, of the logarithm of the error of configurations
        after a share of the training; of new trials, whose own luck is not known yet."""
        w, weight = self._layout, np.exp(self.weights)
        known = self._known(*self._shared(effects(points, self._curves.points)), at)
        reached = solve_triangular(self._root, known.T, lower=True)
        still = weight[w.speeds].sum() + weight[w.common_speed] + weight[w.own_speed]
        before = weight[w.ends].sum() + weight[w.own_end]
        before += still * self._fading(np.array(2 * at), self.weights)
        variance = np.maximum(before - (reached**2).sum(axis=0), JITTER)
        mean = self._middle + self._scale * (known @ self._solved)
        return mean, self._scale * np.sqrt(variance)

    def _shared(self, found: Floats) -> tuple[Floats, Floats]:
        """Covariances of ends and of speeds, as far as the settings decide them."""
        w, weight = self._layout, np.exp(self.weights)
        ends = np.tensordot(weight[w.ends], found, 1)
        speeds = np.tensordot(weight[w.speeds], found, 1) + weight[w.common_speed]
        return ends, speeds

    def _known(self, ends: Floats, speeds: Floats, at: float) -> Floats:
        """(M, n) covariances with the observations, of (M, N) ones with the configurations."""
        owner, fading = self._curves.owner, self._fading(at + self._curves.at, self.weights)
        return ends[:, owner] + speeds[:, owner] * fading

    def _fading(self, times: Floats, log_weights: Floats) -> Floats:
        power = np.exp(log_weights[self._layout.power])
        time = np.exp(log_weights[self._layout.time])
        return cast(Floats, np.exp(-power * np.log1p(times / time)))

    def _covariance(self, log_weights: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Of all observations; and of what it consists: speeds, fading, noise."""
        w, weight, owner = self._layout, np.exp(log_weights), self._curves.owner
        pairs = np.ix_(owner, owner)
        ends = np.tensordot(weight[w.ends], self._effects, 1)[pairs]
        speeds = np.tensordot(weight[w.speeds], self._effects, 1)[pairs] + weight[w.common_speed]
        speeds = speeds + weight[w.own_speed] * self._same
        fading = self._fading(self._times, log_weights)
        noise = weight[w.noise] * self._noises
        whole = ends + weight[w.own_end] * self._same + speeds * fading
        return whole + np.diag(noise + JITTER), speeds, fading, noise

    def _fitted(self) -> Floats:
        w = self._layout
        bounds = list(zip(w.believed - 3 * w.spread, w.believed + 3 * w.spread, strict=True))
        found = minimize(
            self.misfit,
            w.believed,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": STEPS},
        )
        return cast(Floats, found.x)

    def misfit(self, log_weights: Floats) -> tuple[float, Floats]:
        """Minus the logarithm of the posterior of the weights, and its gradient (Rasmussen and
        Williams 2006, eq. 5.8 and 5.9)."""
        w, weight = self._layout, np.exp(log_weights)
        covariance, speeds, fading, noise = self._covariance(log_weights)
        root = cholesky(covariance, lower=True)
        inverse = cho_solve((root, True), np.eye(len(root)))
        solved = inverse @ self._values
        surprise = (log_weights - w.believed) / w.spread
        value = (
            0.5 * self._values @ solved + np.log(np.diag(root)).sum() + 0.5 * surprise @ surprise
        )
        slope = 0.5 * (inverse - np.outer(solved, solved))
        faded = slope * fading
        gradient = np.zeros_like(log_weights)
        by_end, by_speed = self._by_owner(slope), self._by_owner(faded)
        gradient[w.ends] = np.tensordot(self._effects, by_end, 2)
        gradient[w.speeds] = np.tensordot(self._effects, by_speed, 2)
        gradient[w.common_speed] = by_speed.sum()
        gradient[w.own_speed], gradient[w.own_end] = np.trace(by_speed), np.trace(by_end)
        gradient *= weight
        gradient[w.noise] = np.diag(slope) @ noise
        share, power = self._times / weight[w.time], weight[w.power]
        moving = faded * speeds
        gradient[w.power] = -power * (moving * np.log1p(share)).sum()
        gradient[w.time] = power * (moving * share / (1 + share)).sum()
        return float(value), gradient + surprise / w.spread

    def _by_owner(self, pairs: Floats) -> Floats:
        """(N, N) sums of what (n, n) pairs of observations say."""
        rows = np.add.reduceat(pairs, self._firsts, axis=0)
        return cast(Floats, np.add.reduceat(rows, self._firsts, axis=1))
