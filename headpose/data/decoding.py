"""Pictures of a data set and of people, decoded."""

import errno
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from usererror import NotHereError

# What Pillow was seen to raise for truncated and damaged files of many formats, beside its own
# errors, which are OSErrors without a number.
_DAMAGED = (SyntaxError, ValueError, RuntimeError, struct.error, Image.DecompressionBombError)

# Of a file that cannot be read and will not be at the next try.
_LASTING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM})

_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
_NO_WHITE = ("I", "F")


class DamagedPictureError(ValueError):
    """The file is no whole picture that can be used; the message says why."""


def raise_if_passing(path: Path, error: OSError) -> None:
    """Refuses to take a file for damaged that could not be read as the disk or the network failed,
    or too many files were open.

    Raises:
        NotHereError: the next try may find it as it should be.
    """
    if error.errno is not None and error.errno not in _LASTING:
        remedy = "see what is wrong with its disk, then give the same command again"
        raise NotHereError(
            str(path), "cannot be read now", got=error.strerror, remedy=remedy
        ) from error


def decode(
    path: Path, *, formats: tuple[str, ...] | None = ("JPEG",), upright: bool = False
) -> Image.Image:
    """The picture of a file, in RGB.

    Args:
        path: a .jpg file of a data set, or any picture.
        formats: Pillow's names of those that are taken; None = all that it knows.
        upright: turn it as its camera has noted that it was held (EXIF orientation).

    Raises:
        DamagedPictureError: it is truncated, damaged, of another format, or not to be told in RGB.
        OSError: the file cannot be read.
    """
    try:
        # Pillow leaves a file open whose first bytes it cannot read.
        with path.open("rb") as content, Image.open(content, formats=formats) as file:
            return in_rgb(ImageOps.exif_transpose(file) if upright else file)
    except OSError as error:
        if error.errno is not None:
            raise
        raise DamagedPictureError(_brief(error, formats)) from error
    except _DAMAGED as error:
        raise DamagedPictureError(_brief(error, formats)) from error


def in_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode in RGB; 16 bits of grey are scaled, where Pillow would cut them off.

    Raises:
        ValueError: what is black and white in this mode cannot be said.
    """
    if image.mode in _NO_WHITE:
        raise ValueError(f"mode {image.mode} does not say what is white; convert it to 8 bits")
    if image.mode in _SIXTEEN_BITS:
        grey = (np.asarray(image) / 257).round().astype(np.uint8)  # 65535 = 257 · 255 is white
        image = Image.fromarray(grey)
    return image.convert("RGB")


def _brief(error: BaseException, formats: tuple[str, ...] | None) -> str:
    # Pillow names the whole path where it cannot identify a file; whoever asks knows it already.
    if "cannot identify" not in str(error):
        return str(error)
    return f"not a {'/'.join(formats)} picture" if formats else "no picture of a known format"
