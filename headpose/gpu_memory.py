"""The memory of a GPU: how much of it a process may allot, and how errors tell that it is full."""

import torch

CONTEXT_BYTES = 750_000_000
"""What CUDA and its libraries take for each process beside what torch allots; half a gigabyte of it
for the context alone on an H100. Untuned."""

# From the driver and from libraries that allot for themselves: no torch.OutOfMemoryError.
_LACKS = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that a GPU's memory is full."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(lack in str(error) for lack in _LACKS)


def allotted_bytes(share: float, total_bytes: int) -> int:
    """How much torch may allot in a process that has a share of a GPU.

    Args:
        share: of the GPU, up to 1. Processes that share one leave each other room for what torch
            does not count.
        total_bytes: of the GPU.
    """
    if share >= 1:
        return total_bytes
    return max(0, int(share * total_bytes) - CONTEXT_BYTES)
