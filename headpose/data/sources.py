"""Batches of stored crops on a device, without a step of Python for each image.

Letters: N images of a batch, S side of the stored crops.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from headpose.data.prepared import PreparedSet

# A set moves to a GPU whole when it takes at most this share of the free memory; untuned.
_RESIDENT_SHARE = 0.5
_UPLOAD_ROWS = 4096


class ImageSource:
    """Gives any rows of a prepared set as a tensor on the device.

    On a GPU with room the whole set is kept there; else rows are gathered from the mapped file
    into pinned memory and copied while the device computes.
    """

    def __init__(self, prepared: PreparedSet, device: torch.device) -> None:
        self._images = prepared.images_u8
        self._device = device
        self._resident = (
            _uploaded(self._images, device) if _has_room(self._images, device) else None
        )

    def batch(self, rows: Tensor) -> Tensor:
        """The crops of some rows.

        Args:
            rows: (N,) int64 on the CPU.

        Returns:
            (N, S, S, 3) uint8 on the device.
        """
        if self._resident is not None:
            return self._resident[rows.to(self._device, non_blocking=True)]
        if self._device.type != "cuda":
            return torch.from_numpy(self._images[rows.numpy()]).to(self._device)
        buffer = torch.empty(
            (len(rows), *self._images.shape[1:]), dtype=torch.uint8, pin_memory=True
        )
        # mode="clip" writes straight into the buffer; the rows are known to be legal.
        np.take(self._images, rows.numpy(), axis=0, out=buffer.numpy(), mode="clip")
        return buffer.to(self._device, non_blocking=True)


def _has_room(images: npt.NDArray[np.uint8], device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return images.nbytes <= _RESIDENT_SHARE * free_bytes


def _uploaded(images: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    resident = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), _UPLOAD_ROWS):
        # A copy: PyTorch warns of tensors over read-only memory.
        part = torch.from_numpy(np.array(images[start : start + _UPLOAD_ROWS]))
        resident[start : start + _UPLOAD_ROWS] = part.to(device)
    return resident
