"""Released snapshots of Hopenet and HopelessNet, loaded key by key.

They are bare state dictionaries; the architecture is recognised from their keys, and every key
must then fit, but for counters that old ones lack. The families are those of deep-head-pose (Ruiz
et al. 2018, arXiv:1710.00925) and of its light-weight fork: ResNet, SqueezeNet and MobileNetV2.
"""

import re
from pathlib import Path

from torch import Tensor

from headpose.bins import Binning
from headpose.labels import LIMIT_DEG
from headpose.networks.network import ANGLE_NAMES, HeadposeNet, build_network
from headpose.networks.state_dicts import load_published, read_state_dict
from usererror import UserError

# Blocks in each of the four layers of torchvision's ResNets, and whether they are bottlenecks
# (He et al. 2015, arXiv:1512.03385, table 1).
_RESNETS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}

# The two SqueezeNets differ first in the side of their first kernel (torchvision).
_SQUEEZENETS = {7: "squeezenet1_0", 3: "squeezenet1_1"}

# Prefixes of the released keys, and ours instead of them; "" stands for all other keys.
_Prefixes = dict[str, str]


class _UnknownFamilyError(Exception):
    """No released network has such keys; the message says what was found."""


def load_snapshot(path: str | Path) -> tuple[HeadposeNet, Binning]:
    """Read a released snapshot; nothing in the file is executed.

    Returns:
        The network in evaluation mode, and the binning that it was trained with: left edges.

    Raises:
        UserError: unreadable, of no known family, or a key is missing, left over or misshapen.
    """
    state = read_state_dict(Path(path))
    try:
        backbone, prefixes = _recognised(state)
    except _UnknownFamilyError as error:
        raise UserError(
            str(path),
            "a snapshot of no known family",
            got=str(error),
            rule="heads fc_yaw, fc_pitch, fc_roll (ResNet) or classifier_yaw.1, classifier_pitch.1,"
            " classifier_roll.1 (SqueezeNet, MobileNetV2)",
        ) from error
    translated = {
        _renamed(key, prefixes): value
        for key, value in state.items()
        # Trained as a third stage in an early design, and used in no released forward pass.
        if not key.startswith("fc_finetune.")
    }
    n_bins = next(value for key, value in translated.items() if key.startswith("heads.")).shape[0]
    net = build_network(backbone, n_bins, seed=0)
    load_published(net, translated, str(path))
    return net.eval(), Binning(2 * LIMIT_DEG / n_bins, "hopenet")


def _recognised(state: dict[str, Tensor]) -> tuple[str, _Prefixes]:
    if "fc_yaw.weight" in state:
        return _resnet(state), {**_heads("fc_{}.", "heads.{}."), "": "trunk."}
    head = state.get("classifier_yaw.1.weight")
    if head is None:
        raise _UnknownFamilyError(f"keys such as {', '.join(sorted(state)[:3]) or 'none'}")
    if head.ndim == 2:
        return "mobilenet_v2", {**_heads("classifier_{}.1.", "heads.{}."), "": "trunk."}
    prefixes = {**_heads("classifier_{}.1.", "heads.{}.1."), "features.": "trunk."}
    return _squeezenet(state), prefixes


def _heads(theirs: str, ours: str) -> _Prefixes:
    return {theirs.format(name): ours.format(name) for name in ANGLE_NAMES}


def _resnet(state: dict[str, Tensor]) -> str:
    blocks = tuple(
        len({m[1] for key in state if (m := re.match(rf"layer{layer}\.(\d+)\.", key))})
        for layer in (1, 2, 3, 4)
    )
    bottlenecks = "layer1.0.conv3.weight" in state
    name = _RESNETS.get((blocks, bottlenecks))
    if name is None:
        kind = "bottleneck" if bottlenecks else "plain"
        raise _UnknownFamilyError(f"a ResNet of {blocks} {kind} blocks")
    return name


def _squeezenet(state: dict[str, Tensor]) -> str:
    first = state.get("features.0.weight")
    name = None if first is None else _SQUEEZENETS.get(first.shape[-1])
    if name is None:
        found = "none" if first is None else f"one of shape {tuple(first.shape)}"
        raise _UnknownFamilyError(f"convolutional heads; as first convolution {found}")
    return name


def _renamed(key: str, prefixes: _Prefixes) -> str:
    theirs = next((prefix for prefix in prefixes if prefix and key.startswith(prefix)), "")
    return prefixes.get(theirs, "") + key[len(theirs) :]
