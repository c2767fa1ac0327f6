"""Weights of whole networks: this project's own files, and the door to the released ones.

Own files are safetensors whose metadata say all that is needed to rebuild the network and to use
it: backbone, bins, image size.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from headpose.bins import Binning
from headpose.networks.names import AT_PLUS_MINUS_ONE, check_backbone
from headpose.networks.network import HeadposeNet, build_network
from headpose.networks.released import load_snapshot
from headpose.networks.state_dicts import load_strictly
from headpose.tensor_file import TensorFile
from usererror import UserError

_FORMAT = "hopetune headpose weights, version 1"

_PICKLED = (".pkl", ".pth", ".pt")  # of torch.save, as the released ones are
_RELEASED_PX = 224  # the input of all released networks

_PLUS_MINUS_ONE = "±1"

# All in one entry: safetensors writes several in an order that changes from call to call.
_METADATA_KEY = "hopetune"


@dataclass(frozen=True)
class LoadedNetwork:
    """A network together with what it takes to use it.

    Args:
        net: the network; in evaluation mode and on the CPU where it comes from a file.
        binning: what its logits mean.
        image_px: side of the square images that it was trained on.
    """

    net: HeadposeNet
    binning: Binning
    image_px: int

    def __post_init__(self) -> None:
        if self.binning.count != self.net.n_bins:
            raise ValueError(
                f"a binning of {self.binning.count} for a network of {self.net.n_bins} bins"
            )


def weights_to_bytes(network: LoadedNetwork) -> bytes:
    """The content of a weights file; equal networks give equal bytes."""
    return b"".join(weights_file(network))


def weights_file(network: LoadedNetwork) -> TensorFile:
    """The same, to be written piece by piece; the network must not change meanwhile."""
    description = {
        "format": _FORMAT,
        "backbone": network.net.backbone,
        "bin_width_deg": float(network.binning.width_deg),
        "centres": network.binning.centres,
        "image_px": network.image_px,
    }
    if network.net.backbone in AT_PLUS_MINUS_ONE:
        description["input"] = _PLUS_MINUS_ONE
    state = {name: value.cpu() for name, value in network.net.state_dict().items()}
    return TensorFile(state, {_METADATA_KEY: json.dumps(description)})


@dataclass(frozen=True)
class StoredWeights:
    """What a weights file says."""

    backbone: str
    binning: Binning
    image_px: int
    state: dict[str, Tensor]
    """On the CPU; not looked at yet."""


def read_weights(content: bytes, where: str) -> StoredWeights:
    """The inverse of :func:`weights_file`, but for the network.

    Args:
        where: the file or object to blame in an error.

    Raises:
        UserError: damaged, not of this format, or trained on inputs that no network gets any more.
    """
    try:
        state = safetensors.torch.load(content)
        description = _description(content)
    except (safetensors.SafetensorError, ValueError, struct.error) as error:
        raise UserError(
            where,
            "damaged, or not weights written by this program",
            got=str(error)[:200],
            rule="a safetensors file",
            remedy="fetch or write it again",
        ) from error
    if description.get("format") != _FORMAT:
        raise UserError(
            where,
            "not weights written by this program",
            got=description.get("format", "no format in the metadata"),
            rule=f"format {_FORMAT!r}",
        )
    try:
        backbone, image_px = str(description["backbone"]), int(description["image_px"])
        binning = Binning(float(description["bin_width_deg"]), description["centres"])
    except (KeyError, ValueError, TypeError, UserError) as error:
        raise UserError(where, "damaged metadata", got=str(error)) from error
    check_backbone(backbone, where)
    if backbone in AT_PLUS_MINUS_ONE and description.get("input") != _PLUS_MINUS_ONE:
        what = f"{backbone} trained by an earlier version, which normalised its input otherwise"
        raise UserError(where, what, remedy="train it again")
    return StoredWeights(backbone, binning, image_px, state)


def weights_from_bytes(content: bytes, where: str) -> LoadedNetwork:
    """The inverse of :func:`weights_to_bytes`.

    Args:
        where: the file or object to blame in an error.

    Raises:
        UserError: damaged, not of this format, or the tensors fit no such network.
    """
    stored = read_weights(content, where)
    net = build_network(stored.backbone, stored.binning.count, seed=0)
    load_strictly(net, stored.state, where)
    return LoadedNetwork(net.eval(), stored.binning, stored.image_px)


def load_weights(path: str | Path) -> LoadedNetwork:
    """Read what :func:`weights_to_bytes` gives, or a released snapshot of another project.

    Raises:
        UserError: no such file, or as :func:`weights_from_bytes` or :func:`load_snapshot`.
    """
    if Path(path).suffix in _PICKLED:
        net, binning = load_snapshot(path)
        return LoadedNetwork(net, binning, _RELEASED_PX)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            str(path),
            "the weights cannot be read",
            got=error.strerror,
            remedy="check the path",
        ) from error
    return weights_from_bytes(content, str(path))


def _description(content: bytes) -> dict[str, Any]:
    """What the header says of the network; safetensors tells it of files only, not of bytes.

    Layout: 8 bytes little-endian length of the header, then the header as JSON.
    """
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    described = json.loads(header.get("__metadata__", {}).get(_METADATA_KEY, "{}"))
    return described if isinstance(described, dict) else {}
