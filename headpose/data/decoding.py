"""Pictures of a data set, decoded."""

import struct
from pathlib import Path

from PIL import Image

# What Pillow was seen to raise for truncated and damaged files, beside its own errors, which are
# OSErrors without a number.
_DAMAGED = (SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


class DamagedPictureError(ValueError):
    """The file is no whole JPEG picture; the message says why."""


def decode(path: Path) -> Image.Image:
    """The picture of a .jpg file, in RGB.

    Raises:
        DamagedPictureError: it is truncated, damaged, or of another format.
        OSError: the file cannot be read.
    """
    try:
        with Image.open(path, formats=["JPEG"]) as file:
            return file.convert("RGB")
    except OSError as error:
        if error.errno is not None:
            raise
        raise DamagedPictureError(_brief(error)) from error
    except _DAMAGED as error:
        raise DamagedPictureError(_brief(error)) from error


def _brief(error: BaseException) -> str:
    # Pillow names the whole path where it cannot identify a file; whoever asks knows it already.
    return "not a JPEG picture" if "cannot identify" in str(error) else str(error)
