"""Batches of stored crops on a device, without a step of Python for each image.

Letters: N images of a batch, S side of the stored crops.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from headpose.data.prepared import PreparedSet
from headpose.gpu_memory import allotted_bytes
from usererror import NotHereError

Keep = Literal["auto", "always", "never"]
"""Whether a set is kept on a GPU whole: where it fits, in any case, or not at all."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# A set moves to a GPU whole when it takes at most this share of the free memory; untuned.
_RESIDENT_SHARE = 0.5
_UPLOAD_ROWS = 4096
# Batches that wait in pinned memory; two hide the time of a gathering. Untuned.
_AHEAD = 2


class ImageSource:
    """Gives any rows of a prepared set as a tensor on the device.

    On a GPU with room the whole set is kept there; else a thread gathers rows from the mapped file
    into pinned memory and has them copied while the device computes. A source may serve any
    number of trainings, one after the other or at once.

    Args:
        prepared: the set.
        device: where its batches are wanted.
        keep: whether the set is kept on a GPU; without meaning on a CPU.
        share: of the GPU's memory that this process may use.

    Raises:
        NotHereError: ``keep`` is "always" and the GPU's memory is too small.
    """

    def __init__(
        self,
        prepared: PreparedSet,
        device: torch.device,
        keep: Keep = "auto",
        share: float = 1.0,
    ) -> None:
        self._images = prepared.images_u8
        self._device = device
        self._keep = keep
        self._resident = _placed(self._images, device, keep, share)
        self._copies = None if self._resident is not None else _stream_of_copies(device)

    @property
    def gathers_ahead(self) -> bool:
        """Whether batches are gathered while the device computes."""
        return self._copies is not None

    def give_way(self) -> bool:
        """Frees the memory of the GPU that the set takes, if it takes any and that is "auto";
        whether it did. From then on batches are copied; no training may be under way."""
        if self._resident is None or self._keep != "auto":
            return False
        self._resident, self._copies = None, _stream_of_copies(self._device)
        return True

    def describe(self) -> str:
        """Where the images lie, for a person."""
        size = f"{self._images.nbytes / 1e6:,.0f} MB of images"
        if self._resident is not None:
            return f"{size} kept in the GPU's memory"
        if self._device.type == "cuda":
            return f"{size} in the node's memory, copied to the GPU batch by batch"
        return f"{size} mapped from disk, shared by the trials of a node"

    def batch(self, rows: Tensor) -> Tensor:
        """The crops of some rows.

        Args:
            rows: (N,) int64 on the CPU.

        Returns:
            (N, S, S, 3) uint8 on the device.
        """
        if self._resident is not None:
            return self._resident[rows.to(self._device, non_blocking=True)]
        return self._gathered(rows).to(self._device, non_blocking=True)

    def batches(self, wanted: Iterable[Tensor]) -> Iterator[Tensor]:
        """One batch after the other as :meth:`batch` gives them, each gathered ahead of its use
        where the device computes meanwhile."""
        copies = self._copies
        if copies is None:
            yield from map(self.batch, wanted)
            return

        def fetched(rows: Tensor) -> tuple[Tensor, torch.cuda.Event]:
            with torch.cuda.stream(copies):
                return self.batch(rows), copies.record_event()

        for images, copied in ahead(fetched, wanted):
            steps = torch.cuda.current_stream(self._device)
            steps.wait_event(copied)
            images.record_stream(steps)  # its memory is not given away before its step is done
            yield images

    def _gathered(self, rows: Tensor) -> Tensor:
        """(N, S, S, 3) on the CPU; in pinned memory where a GPU will fetch it."""
        buffer = torch.empty(
            (len(rows), *self._images.shape[1:]),
            dtype=torch.uint8,
            pin_memory=self._device.type == "cuda",
        )
        # mode="clip" writes straight into the buffer; the rows are known to be legal.
        np.take(self._images, rows.numpy(), axis=0, out=buffer.numpy(), mode="clip")
        return buffer


def ahead(
    work: Callable[[_Item], _Result], items: Iterable[_Item], depth: int = _AHEAD
) -> Iterator[_Result]:
    """``map`` with a thread that is up to ``depth`` results ahead of their reader."""
    waiting: deque[Future[_Result]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="gather")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _stream_of_copies(device: torch.device) -> torch.cuda.Stream | None:
    """Copies in the stream of the steps would wait for them, and they for the copies. One stream
    for all passes: the memory that its batches leave is given to no other stream."""
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _placed(
    images: npt.NDArray[np.uint8], device: torch.device, keep: Keep, share: float
) -> Tensor | None:
    """The images in the GPU's memory; None where they stay on the node."""
    if device.type != "cuda" or keep == "never":
        return None
    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    own_bytes = allotted_bytes(share, total_bytes) - torch.cuda.memory_reserved(device)
    free_bytes = min(free_bytes, own_bytes)
    if keep == "auto" and images.nbytes > _RESIDENT_SHARE * free_bytes:
        return None
    if images.nbytes > free_bytes:
        raise NotHereError(
            "images_on_gpu",
            "the data set does not fit into the GPU's memory",
            got=f"{images.nbytes:,} bytes of images",
            rule=f"{free_bytes:,} bytes are free",
            remedy="set it to 'auto', or prepare the set with fewer pixels",
        )
    return _uploaded(images, device)


def _uploaded(images: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    resident = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), _UPLOAD_ROWS):
        # A copy: PyTorch warns of tensors over read-only memory.
        part = torch.from_numpy(np.array(images[start : start + _UPLOAD_ROWS]))
        resident[start : start + _UPLOAD_ROWS] = part.to(device)
    return resident
