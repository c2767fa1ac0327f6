"""The safetensors format, to be written piece by piece.

The library itself makes a whole file in memory, twice over, which for a large network beside its
own training takes longer than the disk; and it writes to no file that is open. What is read is read
by the library. Format: https://huggingface.co/docs/safetensors, "Format".
"""

import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

# The library's names, in the order in which it lays tensors out: the largest alignment first.
_DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNMENT = 8


class TensorFile:
    """The content of a safetensors file; its bytes are those that the library would write.

    Args:
        tensors: by name; on the CPU, in any memory layout. Not copied: they must stay as they are
            until they are written.
        metadata: texts by name; with more than one, equal files need not have equal bytes.

    Raises:
        ValueError: a tensor of a type that networks do not have.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
    ) -> None:
        for name, tensor in tensors.items():
            if tensor.dtype not in _DTYPES:
                raise ValueError(f"{name} is {tensor.dtype}, which is not written here")
        order = list(_DTYPES)
        self._tensors = dict(
            sorted(tensors.items(), key=lambda item: (order.index(item[1].dtype), item[0]))
        )
        self._header = self._header_of(dict(metadata) if metadata else None)

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self._header) + sum(tensor.nbytes for tensor in self._tensors.values())

    def __iter__(self) -> Iterator[memoryview]:
        """The pieces, in order; only what is not contiguous is copied, one tensor at a time."""
        yield memoryview(self._header)
        for tensor in self._tensors.values():
            # The format knows no strides; a network may be kept channels last.
            flat = tensor.detach().contiguous().reshape(-1)
            if len(flat):  # an empty view has no bytes to be cast
                yield flat.view(torch.uint8).numpy().data

    def _header_of(self, metadata: dict[str, str] | None) -> bytes:
        described: dict[str, object] = {"__metadata__": metadata} if metadata else {}
        end = 0
        for name, tensor in self._tensors.items():
            start, end = end, end + tensor.nbytes
            described[name] = {
                "dtype": _DTYPES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [start, end],
            }
        text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        return len(text).to_bytes(8, "little") + text
