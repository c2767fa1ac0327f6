"""Files written piece by piece are those of the safetensors library."""

import json

import pytest
import safetensors.torch
import torch
from torch import Tensor

from headpose.networks.network import build_network
from headpose.tensor_file import TensorFile

MADE = {
    "step/b": torch.tensor(3.0),
    "number": torch.tensor(2**40 + 1),
    "a": torch.arange(6.0).reshape(2, 3),
    'é"\\/\n\x01\x7f😀': torch.zeros(1, 0, 2),
    "channels last": torch.arange(48.0).reshape(1, 3, 4, 4).to(memory_format=torch.channels_last),
    "every other": torch.arange(10)[::2],
    "learning": torch.nn.Parameter(torch.ones(2)),
}
for dtype in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.float16, torch.bfloat16):
    MADE[f"small {dtype}"] = torch.tensor([1, 0, 1]).to(dtype)
for dtype in (torch.int32, torch.float64):
    MADE[f"large {dtype}"] = torch.tensor([-7, 0]).to(dtype)


def by_library(tensors: dict[str, Tensor], metadata: dict[str, str] | None) -> bytes:
    flat = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    content: bytes = safetensors.torch.save(flat, metadata)
    return content


@pytest.mark.parametrize("metadata", [None, {"described": json.dumps({"ä": [1, "x"]})}])
@pytest.mark.parametrize("count", range(len(MADE) + 1))
def test_the_bytes_are_those_of_the_library(count: int, metadata: dict[str, str] | None) -> None:
    tensors = dict(list(MADE.items())[:count])
    file = TensorFile(tensors, metadata)
    content = b"".join(file)
    assert content == by_library(tensors, metadata)
    assert file.size == len(content)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_so_are_those_of_networks(backbone: str) -> None:
    net = build_network(backbone, 66, seed=0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = net.state_dict()
    assert b"".join(TensorFile(state)) == by_library(state, None)


def test_what_is_contiguous_is_not_copied() -> None:
    tensor = torch.zeros(4)
    pieces = iter(TensorFile({"a": tensor}))
    next(pieces)
    values = next(pieces)
    tensor += 1.0
    assert bytes(values) == tensor.numpy().tobytes()


def test_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a is torch\.complex64"):
        TensorFile({"a": torch.zeros(1, dtype=torch.complex64)})
