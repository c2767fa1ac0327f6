"""What a process may allot of a GPU's memory, and which errors say that it is full."""

import pytest
import torch

from headpose.gpu_memory import CONTEXT_BYTES, allotted_bytes, is_lack_of_memory

GPU_BYTES = 24 * 10**9


@pytest.mark.parametrize(
    ("error", "is_lack"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("shape '[3]' is invalid for input of size 4"), False),
        (MemoryError("out of memory"), False),
    ],
)
def test_errors_that_say_that_the_memory_is_full(error: BaseException, is_lack: bool) -> None:
    assert is_lack_of_memory(error) == is_lack


def test_processes_that_share_a_gpu_leave_room_for_what_torch_does_not_count() -> None:
    assert allotted_bytes(1.0, GPU_BYTES) == GPU_BYTES
    assert 4 * (allotted_bytes(0.25, GPU_BYTES) + CONTEXT_BYTES) <= GPU_BYTES
    assert allotted_bytes(0.01, GPU_BYTES) == 0
