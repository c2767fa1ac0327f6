"""Real number arrays out of MATLAB 5 files, every length checked.

SciPy's reader crashes the whole process (a segmentation fault, not an exception) on some damaged
files, which one bad label among 122,450 must not do. Format: MathWorks, "MAT-File Format",
chapter 1 (level 5); little-endian, as every PC writes it.
"""

import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

_HEADER_BYTES = 128
_VERSION_AND_ENDIAN = b"\x00\x01IM"
# Labels are a few kilobytes; a compressed element that unpacks to more is not one.
_MAX_ELEMENT_BYTES = 16 * 2**20

_MI_INT8, _MI_INT32, _MI_UINT32, _MI_MATRIX, _MI_COMPRESSED = 1, 5, 6, 14, 15
_NUMBER_TYPES = {
    _MI_INT8: "<i1",
    2: "<u1",
    3: "<i2",
    4: "<u2",
    _MI_INT32: "<i4",
    _MI_UINT32: "<u4",
    7: "<f4",
    9: "<f8",
    12: "<i8",
    13: "<u8",
}
_NUMBER_CLASSES = range(6, 16)  # mxDOUBLE_CLASS to mxUINT64_CLASS
_COMPLEX_FLAG = 0x0800


class MatFileError(ValueError):
    """The file is no whole MATLAB 5 file; the message says why."""


def read_arrays(path: Path, names: Collection[str]) -> dict[str, npt.NDArray[np.float64]]:
    """The named arrays that the file holds, in double precision.

    Args:
        path: a MATLAB 5 file, plain or compressed.
        names: what to read; a name that the file does not hold is absent from the answer, and so
            is one that stands for anything but an array of real numbers.

    Raises:
        OSError: the file cannot be read.
        MatFileError: it is damaged, or of another format.
    """
    raw = memoryview(path.read_bytes())
    if len(raw) < _HEADER_BYTES or raw[_HEADER_BYTES - 4 : _HEADER_BYTES] != _VERSION_AND_ENDIAN:
        raise MatFileError("it does not begin as a MATLAB 5 file")
    found: dict[str, npt.NDArray[np.float64]] = {}
    for kind, element in _elements(raw[_HEADER_BYTES:]):
        content = element
        if kind == _MI_COMPRESSED:
            inner = next(_elements(_unpacked(element)), None)
            if inner is None or inner[0] != _MI_MATRIX:
                raise MatFileError("a compressed element holds no array")
            content = inner[1]
        elif kind != _MI_MATRIX:
            raise MatFileError(f"an element of the unexpected type {kind}")
        name, array = _array(content, names)
        if array is not None:
            found[name] = array
    return found


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and content of one element after the other."""
    start = 0
    while start < len(data):
        if len(data) - start < 8:
            raise MatFileError("it ends within a tag")
        kind, length = struct.unpack_from("<II", data, start)
        if kind >> 16:  # up to four bytes lie within the tag itself
            kind, length, begin, step = kind & 0xFFFF, kind >> 16, start + 4, 8
            if length > 4:
                raise MatFileError("a small element claims more than four bytes")
        else:
            # All but compressed elements are padded to eight bytes.
            padded = length if kind == _MI_COMPRESSED else -(-length // 8) * 8
            begin, step = start + 8, 8 + padded
        if begin + length > len(data):
            raise MatFileError("it is cut off")
        yield kind, data[begin : begin + length]
        start += step


def _unpacked(element: memoryview) -> memoryview:
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(element, _MAX_ELEMENT_BYTES)
    except zlib.error as error:
        raise MatFileError(f"a compressed element is damaged: {error}") from error
    if not stream.eof:
        raise MatFileError("a compressed element is cut off or far too large")
    return memoryview(data)


def _array(
    content: memoryview, names: Collection[str]
) -> tuple[str, npt.NDArray[np.float64] | None]:
    """Name and values of an array element: flags, dimensions, name, real part."""
    parts = _elements(content)
    try:
        flags_kind, flags = next(parts)
        dims_kind, dims = next(parts)
        name_kind, name_bytes = next(parts)
    except StopIteration:
        raise MatFileError("an array without flags, dimensions and name") from None
    kinds = (flags_kind, dims_kind, name_kind)
    if kinds != (_MI_UINT32, _MI_INT32, _MI_INT8) or len(flags) != 8 or len(dims) % 4:
        raise MatFileError("an array with an unreadable head")
    name = bytes(name_bytes).decode("latin-1")
    flag_word = int.from_bytes(flags[:4], "little")
    if name not in names or flag_word & 0xFF not in _NUMBER_CLASSES or flag_word & _COMPLEX_FLAG:
        return name, None
    values_kind, values = next(parts, (0, memoryview(b"")))
    if values_kind not in _NUMBER_TYPES:
        raise MatFileError(f"{name} holds no numbers")
    shape = np.frombuffer(dims, dtype="<i4").tolist()
    dtype = np.dtype(_NUMBER_TYPES[values_kind])
    count = 1
    for size in shape:
        count *= size
    if min(shape, default=-1) < 0 or count * dtype.itemsize != len(values):
        raise MatFileError(f"{name} has not the number of values that its shape {shape} asks for")
    array = np.frombuffer(values, dtype=dtype).reshape(shape, order="F")
    return name, array.astype(np.float64)
