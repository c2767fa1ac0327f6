"""Reading state dictionaries from files of strangers, and loading them key by key."""

import pickle
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from usererror import UserError

#: What torch's restricted unpickler was seen to raise on damaged and on hostile files.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    struct.error,
    AssertionError,
)

_SHOWN_KEYS = 3


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dictionary onto the CPU, executing nothing that the file says.

    Args:
        path: a ``.safetensors`` file, or one written by ``torch.save``.

    Raises:
        UserError: no such file, damaged, or holding anything but named tensors.
    """
    if not path.is_file():
        raise UserError(str(path), "no such file", remedy="check the path of the weights")
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            with warnings.catch_warnings():
                # Of how a file was written: nothing that whoever loads it could act upon.
                warnings.simplefilter("ignore")
                state = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, *_UNREADABLE) as error:
        raise UserError(
            str(path),
            "cannot be read as weights",
            got=str(error).strip().split("\n")[0][:200],
            rule="a safetensors file or a state_dict of plain tensors; pickled code is never run",
            remedy="save it again as safetensors or with torch.save(model.state_dict(), …)",
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise UserError(
            str(path),
            "holds something other than named tensors",
            got=type(state).__name__,
            rule="a bare state_dict",
        )
    return dict(state)


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load a state dictionary whose keys and shapes must be exactly the module's.

    Args:
        where: what to blame in an error, usually the file.

    Raises:
        UserError: keys are missing or left over, or shapes differ; nothing is loaded then.
    """
    own = module.state_dict()
    faults = {
        "missing": sorted(own.keys() - state.keys()),
        "left over": sorted(state.keys() - own.keys()),
        "of another shape": sorted(
            key for key in own.keys() & state.keys() if own[key].shape != state[key].shape
        ),
    }
    found = [_described(fault, keys) for fault, keys in faults.items() if keys]
    if found:
        raise UserError(
            where,
            "the weights are of another network",
            got=", ".join(found),
            rule=f"exactly the {len(own)} tensors of {type(module).__name__}",
        )
    module.load_state_dict(state)


def load_published(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """As :func:`load_strictly`, for weights that others published.

    Files written before torch 0.4.1 lack the counters of batch normalisation, which only averages
    without a momentum would use; the module's own are kept then, as torch itself does it.

    Raises:
        UserError: as :func:`load_strictly`.
    """
    counters = {k: v for k, v in module.state_dict().items() if k.endswith("num_batches_tracked")}
    load_strictly(module, {**counters, **state}, where)


def _described(fault: str, keys: list[str]) -> str:
    shown = ", ".join(keys[:_SHOWN_KEYS]) + (", …" if len(keys) > _SHOWN_KEYS else "")
    return f"{len(keys)} {fault} ({shown})"
