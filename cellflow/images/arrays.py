"""Pictures as arrays: what numpy, torch and the idx format hold, brought to bytes ``(n, c, h, w)``."""

import gzip
import math
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from cellflow.images.pixels import Conversion

_CHANNELS = (1, 3, 4)
_IDX_BYTES = 0x08  # the type code of unsigned bytes


def convert_array(array: np.ndarray | Tensor, conversion: Conversion, *, where: str) -> Tensor:
    """Return an array of pictures as bytes ``(n, c, h, w)``.

    Parameters
    ----------
    array
        ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)`` with 1, 3 or 4 channels (RGBA): bytes, 16-bit numbers,
        truth values, or floats from 0 to 1.
    conversion
        What else is done.
    where
        What the array is called in a message.

    Raises
    ------
    ValueError
        When shape or range leave open how the array is meant.
    TypeError
        When the type of the numbers does.

    Examples
    --------
    >>> import numpy as np
    >>> convert_array(np.ones((5, 8, 8)), Conversion(), where="here").shape
    torch.Size([5, 1, 8, 8])
    """
    values = array.detach() if isinstance(array, Tensor) else torch.from_numpy(_native(array, where))
    return conversion(_as_bytes(_channels_first(values, where), conversion, where))


def read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the pictures in a file (.npy, .npz, idx, the latter gzipped or not), and their labels where it has them.

    An .npz holds one array, or one called ``images`` and, if you like, one called ``labels``.

    Raises
    ------
    ValueError
        When the file holds something else.
    """
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False), None
        if path.suffix == ".npz":
            return _from_npz(path)
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as an array of pictures ({error}).") from error
    return read_idx(path), None


def read_idx(path: Path) -> np.ndarray:
    """Return the bytes of an idx file, the format of MNIST, gzipped or not.

    Raises
    ------
    ValueError
        When the file is of another format, cut off, or holds other numbers than bytes.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}). Fetch it again.") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _IDX_BYTES:
        raise ValueError(f"Expected pictures in .npy, .npz or idx format (bytes); {path} is none of these.")
    start = 4 + 4 * data[3]
    shape = tuple(int(side) for side in np.frombuffer(data[4:start], dtype=">u4"))
    if len(data) - start != math.prod(shape):
        raise ValueError(f"Expected {math.prod(shape)} bytes of pixels in {path}; found {len(data) - start}.")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def _from_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with np.load(path, allow_pickle=False) as arrays:
        if len(arrays.files) == 1:
            return arrays[arrays.files[0]], None
        if "images" not in arrays.files:
            raise ValueError(f"no array `images`; it holds {arrays.files}")
        return arrays["images"], arrays["labels"] if "labels" in arrays.files else None


def _native(array: np.ndarray, where: str) -> np.ndarray:
    """Return an array whose bytes torch can take over."""
    if array.dtype.kind not in "buif":
        raise TypeError(f"Expected numbers as pixels; found {array.dtype} in {where}.")
    return np.array(array, dtype=array.dtype.newbyteorder("="))


def _channels_first(values: Tensor, where: str) -> Tensor:
    if values.ndim not in (3, 4) or values.numel() == 0:
        raise ValueError(
            f"Expected pictures (n, h, w), (n, h, w, c) or (n, c, h, w); found shape {tuple(values.shape)} in {where}."
        )
    if values.ndim == 3:
        if values.shape[2] in _CHANNELS and min(values.shape[:2]) > max(_CHANNELS):
            raise ValueError(f"{where} of shape {tuple(values.shape)} looks like one picture. Add an axis: `x[None]`.")
        return values[:, None]
    first, last = values.shape[1] in _CHANNELS, values.shape[3] in _CHANNELS
    if first == last:
        how = "it could be channels first or last" if first else "neither axis 1 nor the last has 1, 3 or 4 channels"
        raise ValueError(
            f"Cannot tell what the axes of {where} mean, shape {tuple(values.shape)}: {how}. Build "
            "`ImageSet(bytes of shape (n, c, h, w))` yourself, which takes any number of channels."
        )
    return values if first else values.permute(0, 3, 1, 2)


def _as_bytes(values: Tensor, conversion: Conversion, where: str) -> Tensor:
    if values.dtype == torch.uint8:
        return values
    if values.dtype == torch.bool:
        return values.to(torch.uint8) * 255
    if values.is_floating_point():
        return _from_floats(values, where)
    if values.dtype == torch.uint16:
        return conversion.bytes_of(values.int(), where=where)
    raise TypeError(
        f"Expected pixels as uint8 (0 to 255), uint16, bool, or floats from 0 to 1; found {values.dtype} in {where}."
    )


def _from_floats(values: Tensor, where: str) -> Tensor:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"Expected floating-point pixels from 0 to 1; found {low:g} to {high:g} in {where}. Scale them: "
            "`(x + 1) / 2` where they run from -1 to 1, `x / 255` where they are levels."
        )
    return (values * 255).round().to(torch.uint8)
