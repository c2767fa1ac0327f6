"""Surrogate learning curves: made up, repeatable, and shaped like head-pose trainings.

The levels follow the published errors on AFLW2000 (Hopenet and HopelessNet: ResNet18 6.4°, ResNet50
5.7°, MobileNetV2 7.1°, SqueezeNet 7.3°; bin widths 1/3/6 about 6.7/6.3/7.2°); all between them
is invented, and scaled so that random search without stopping is about 0.3° from the best after
37 trainings. An instance is a family and a seed, which moves the optimum and draws the noise.

``smooth``    early epochs tell a lot; little noise.
``crossing``  what learns fast ends worse: high rates without decay, small networks, a late gain
              from unfreezing. Early epochs mislead.
``rough``     a narrow optimum, much noise, long tails, rates beyond which training diverges,
              crashes, and a network that does not always fit.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuning.grid import configuration
from tuning.space import Choices, Parameter, Range, Settings

SPACE: dict[str, Parameter] = {
    "alpha": Range(low=0.03, high=3.0, log=True),
    "bin_width": Choices(choices=(1.0, 3.0, 6.0, 11.0)),
    "learning_rate": Range(low=1e-5, high=1e-2, log=True),
    "decay_rate": Range(low=0.8, high=1.0),
    "unfreeze_epoch": Range(low=0, high=10),
    "backbone": Choices(
        choices=("squeezenet1_1", "mobilenet_v2", "resnet18", "resnet50", "resnet101")
    ),
}
"""The six parameters of a head-pose search, as the surrogates understand them."""

PAPERS: tuple[Settings, ...] = (
    {"alpha": 1.0, "bin_width": 3.0, "learning_rate": 1e-5, "backbone": "resnet50"},
    {"alpha": 2.0, "bin_width": 3.0, "learning_rate": 1e-5, "backbone": "resnet50"},
    {"alpha": 1.0, "bin_width": 3.0, "learning_rate": 1e-5, "backbone": "resnet18"},
    {"alpha": 2.0, "bin_width": 3.0, "learning_rate": 1e-5, "backbone": "resnet101"},
)
"""Hopenet's settings (alpha 1 and 2, 1e-5) on the networks that its successors took; decay and
unfreezing are left to the sampler."""

# Published error (°), share of an hour per epoch at 300W-LP's size relative to ResNet18 (untuned).
NETWORKS = {
    "squeezenet1_1": (7.1, 0.6),
    "mobilenet_v2": (6.7, 0.9),
    "resnet18": (6.2, 1.0),
    "resnet50": (6.0, 2.4),
    "resnet101": (5.85, 4.0),
}
SECONDS_AN_EPOCH = 100.0  # of ResNet18; untuned, scales all figures in GPU-hours alike
BINS = {1.0: 0.25, 3.0: 0.0, 6.0: 0.35, 11.0: 0.9}
START_DEG = 25.0
"""Error of a network that has learnt nothing: about that of the mean pose."""


@dataclass(frozen=True)
class Curve:
    """What one configuration would do."""

    true_deg: NDArray[np.float64]
    """(E,) validation MAE after each epoch without noise."""
    seen_deg: NDArray[np.float64]
    """(E,) the same with noise; NaN from the epoch in which it diverges."""
    seconds: float
    """Of an epoch."""
    crashes_in: int | None = None
    out_of_memory: bool = False

    @property
    def final_deg(self) -> float:
        """The best error without noise; infinite where it cannot be trained to the end."""
        if self.out_of_memory or self.crashes_in or np.isnan(self.seen_deg).any():
            return math.inf
        return float(self.true_deg.min())


class Surrogate:
    """One instance of a family."""

    def __init__(self, family: str, seed: int, epochs: int) -> None:
        self.family, self.seed, self.epochs = family, seed, epochs
        random = np.random.default_rng((zlib.crc32(family.encode()), seed))
        self.rate = random.normal(-4.0, 0.4)
        """log10 of the best learning rate."""
        self.alpha = random.normal(-0.3, 0.4)
        """log10 of the best alpha."""
        self.decay = random.uniform(0.88, 0.98)
        self.unfreeze = random.uniform(2, 8)
        self.levels = {
            name: level + random.normal(0, 0.15) for name, (level, _) in NETWORKS.items()
        }

    def curve(self, settings: Settings) -> Curve:
        """The curve of a configuration, always the same one."""
        key = zlib.crc32(repr(configuration(settings)).encode())
        random = np.random.default_rng((zlib.crc32(self.family.encode()), self.seed, key))
        return FAMILIES[self.family](self, settings, random)

    def best_deg(self, samples: int = 3000) -> float:
        """The best known error: the best of many samples, improved by small steps."""
        random = np.random.default_rng((7, self.seed))
        drawn = [_sample(random) for _ in range(samples)]
        finals = [self.curve(settings).final_deg for settings in drawn]
        order = np.argsort(finals)[:5]
        return min(self._climbed(drawn[i], finals[i], random) for i in order)

    def _climbed(self, settings: Settings, final: float, random: np.random.Generator) -> float:
        for step in range(150):
            moved = _moved(settings, random, 0.15 * (1 - step / 150) + 0.01)
            found = self.curve(moved).final_deg
            if found < final:
                settings, final = moved, found
        return final


def _sample(random: np.random.Generator) -> Settings:
    return {name: _uniform(parameter, random.random()) for name, parameter in SPACE.items()}


def _uniform(parameter: Parameter, at: float) -> float | int | str:
    if isinstance(parameter, Choices):
        chosen = parameter.choices[int(at * len(parameter.choices))]
        assert isinstance(chosen, float | str)  # noqa: S101 - for the type checker
        return chosen
    if parameter.log:
        return float(parameter.low * (parameter.high / parameter.low) ** at)
    value = parameter.low + at * (parameter.high - parameter.low)
    return round(value) if parameter.high == 10 else value


def _moved(settings: Settings, random: np.random.Generator, by: float) -> Settings:
    name = str(random.choice(list(SPACE)))
    parameter, value = SPACE[name], settings[name]
    if isinstance(parameter, Choices):
        return {**settings, name: _uniform(parameter, random.random())}
    low, high, number = parameter.low, parameter.high, float(value or 0)
    if parameter.log:
        place = math.log(number / low) / math.log(high / low)
    else:
        place = (number - low) / (high - low)
    return {
        **settings,
        name: _uniform(parameter, float(np.clip(place + random.normal(0, by), 0, 1))),
    }


@dataclass(frozen=True)
class _Point:
    """A configuration relative to the optimum of an instance."""

    network: str
    level: float
    rate: float
    """log10 of the learning rate above the best one's."""
    alpha: float
    decay: float
    unfreeze: float
    bins: float


def _point(instance: Surrogate, settings: Settings) -> _Point:
    def number(name: str) -> float:
        return float(settings[name] or 0)

    network = str(settings["backbone"])
    return _Point(
        network=network,
        level=instance.levels[network],
        rate=math.log10(number("learning_rate")) - instance.rate,
        alpha=math.log10(number("alpha")) - instance.alpha,
        decay=number("decay_rate") - instance.decay,
        unfreeze=(number("unfreeze_epoch") - instance.unfreeze) / 10,
        bins=BINS[number("bin_width")],
    )


def _floor(point: _Point, width: float) -> float:
    """Where a curve ends: the network's level and what each setting costs, in degrees. A higher
    rate asks for more decay, so the two cannot be tuned one after the other."""
    rate = point.rate + 3 * point.decay
    cost = 0.3 * rate**2 / width + 0.06 * point.alpha**2 + point.bins + 0.25 * point.unfreeze**2
    return float(point.level + min(cost, 14.0))


def _smooth(instance: Surrogate, settings: Settings, random: np.random.Generator) -> Curve:
    point, epochs = _point(instance, settings), np.arange(1, instance.epochs + 1)
    floor = _floor(point, 1.0)
    pace = 3.0 * 10 ** (-0.25 * float(np.clip(point.rate, -2, 0.5)))
    true = floor + (START_DEG - floor) * np.exp(-epochs / pace)
    return _curve(point, true, 0.1, random)


def _crossing(instance: Surrogate, settings: Settings, random: np.random.Generator) -> Curve:
    point, epochs = _point(instance, settings), np.arange(1, instance.epochs + 1)
    cost = NETWORKS[point.network][1]
    floor = _floor(point, 1.0)
    pace = (1.5 + cost) * 10 ** (-0.5 * float(np.clip(point.rate, -2, 1)))
    # Without decay the gains of the late epochs fail to come.
    late = 4.0 * max(0.0, point.decay) * 10 ** min(point.rate, 0.5)
    unfrozen = 1 / (1 + np.exp(-(epochs - 1.5 - float(settings["unfreeze_epoch"] or 0))))
    true = floor + min(late, 2.0) * epochs / instance.epochs + 0.2 * (1 - unfrozen)
    true = true + (START_DEG - floor) * np.exp(-epochs / pace)
    return _curve(point, true, 0.2, random)


def _rough(instance: Surrogate, settings: Settings, random: np.random.Generator) -> Curve:
    point, epochs = _point(instance, settings), np.arange(1, instance.epochs + 1)
    floor = _floor(point, 0.5)
    power = 0.9 + 0.25 * float(np.clip(point.rate, -2, 1))
    true = floor + (START_DEG - floor) * np.power(epochs + 0.5, -max(0.3, power) - 0.5)
    curve = _curve(point, true, 0.3, random)
    cliff = 1.6 - 0.15 * NETWORKS[point.network][1]
    if point.rate > cliff:
        curve.seen_deg[int(random.integers(0, 4)) :] = np.nan
    crashes = int(random.integers(1, instance.epochs)) if random.random() < 0.02 else None
    too_big = point.network == "resnet101" and random.random() < 0.1
    return Curve(curve.true_deg, curve.seen_deg, curve.seconds, crashes, too_big)


def _curve(
    point: _Point, true: NDArray[np.float64], noise: float, random: np.random.Generator
) -> Curve:
    """Noise falls with the epochs, as a decaying rate lets the weights settle."""
    scale = noise * (0.5 + 1.5 * np.exp(-np.arange(len(true)) / 4))
    seen = true + scale * random.normal(size=len(true))
    return Curve(true, seen, SECONDS_AN_EPOCH * NETWORKS[point.network][1])


Family = Callable[[Surrogate, Settings, np.random.Generator], Curve]
FAMILIES: dict[str, Family] = {"smooth": _smooth, "crossing": _crossing, "rough": _rough}
