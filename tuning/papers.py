"""The papers' settings, to be tried first: ``try_first: papers``.

Hopenet (Ruiz et al. 2018) trained with rate 1e-5 and alpha 1 or 2; HopelessNet added light
networks, trained with rate 1e-6, a second step with the stem free, rate x 0.95 an epoch, and the
"Master" networks. The code lists each body parameter three to four times in its optimiser, so that
bodies really learned at about 3 times the nominal rate, and the real one stands here. Heads learned
at 5 times the nominal one, so at 1.7 times the real one of their bodies.
"""

from dataclasses import dataclass, field

from tuning.legal import is_legal
from tuning.space import Parameter, Settings

_RATE, _HOPELESSNET_RATE = 3e-5, 3e-6  # nominally 1e-5 and 1e-6, see above
_HEADS: Settings = {"head_learning_rate_factor": 1.7}
"""Tried where it is searched; who fixes it, or leaves it at its default of 5, has decided."""
_STEPS: Settings = {"decay_rate": 0.95, "unfreeze_epoch": 25}  # 25 epochs frozen, 5 more free


@dataclass(frozen=True)
class Preset:
    """A published configuration."""

    name: str
    published_mae_deg: float
    """On AFLW2000, trained on 300W-LP or a rotated copy of it."""
    settings: Settings
    schedule: Settings = field(default_factory=dict)
    """Tried where the space allows it; a shorter search has no epoch 25."""


def _of(
    backbone: str, alpha: float, bin_width: float = 3.0, learning_rate: float = _RATE
) -> Settings:
    return {
        "backbone": backbone,
        "alpha": alpha,
        "bin_width": bin_width,
        "learning_rate": learning_rate,
    }


def _hopelessnet(backbone: str) -> Settings:
    return _of(backbone, 1.0, learning_rate=_HOPELESSNET_RATE)


# The best published first: a short search may not come to the last.
PAPERS: tuple[Preset, ...] = (
    Preset("master101", 5.260, _of("resnet101", 2.0), _STEPS),
    Preset("master50", 5.518, _of("resnet50", 2.0), _STEPS),
    Preset("hopelessnet-resnet50", 5.706, _hopelessnet("resnet50")),
    Preset("master18", 5.725, _of("resnet18", 2.0), _STEPS),
    Preset("hopenet-alpha2", 6.155, _of("resnet50", 2.0)),
    Preset("bins-3", 6.250, _of("resnet18", 2.0)),
    Preset("hopelessnet-resnet18", 6.380, _hopelessnet("resnet18")),
    Preset("bins-1", 6.653, _of("resnet18", 2.0, 1.0)),
    Preset("hopelessnet-mobilenet", 7.082, _hopelessnet("mobilenet_v2")),
    Preset("hopelessnet-squeezenet", 7.326, _hopelessnet("squeezenet1_0")),
    Preset("hopelessnet-squeezenet-1-1", 7.824, _hopelessnet("squeezenet1_1")),
)


def fitting(parameters: dict[str, Parameter], fixed: Settings) -> tuple[Settings, ...]:
    """The papers' settings that lie in a space, each once: those of its parameters that a paper
    names. A preset is left out where a setting of its own cannot be had here."""
    found: list[Settings] = []
    for preset in PAPERS:
        settings = _fitted(preset, parameters, fixed)
        if settings and settings not in found:
            found.append(settings)
    return tuple(found)


def _fitted(preset: Preset, parameters: dict[str, Parameter], fixed: Settings) -> Settings:
    chosen: Settings = {}
    for name, value in preset.settings.items():
        parameter = parameters.get(name)
        if parameter is not None and not is_legal(name, parameter, value):
            return {}
        if name in fixed and fixed[name] != value and name in ("backbone", "bin_width"):
            return {}
    published = {**preset.settings, **preset.schedule}
    if "learning_rate" in parameters or fixed.get("learning_rate") == published["learning_rate"]:
        published |= _HEADS  # beside another rate it would not be theirs
    for name, parameter in parameters.items():
        if name not in published or not parameter.is_active(chosen):
            continue
        if is_legal(name, parameter, published[name]):
            chosen[name] = published[name]
    return chosen
