"""Pictures as arrays: what numpy, torch and the idx format hold, brought to bytes ``(n, c, h, w)``."""

import gzip
import math
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from torch import Tensor

from cellflow.images import stores
from cellflow.images.levels import STEPS
from cellflow.images.numbers import LUMA, SIGNED, Numbers
from cellflow.images.pixels import Conversion
from cellflow.machine import usable_memory
from cellflow.renamed import warn

_CHANNELS = (1, 3, 4)
_RGBA = 4
_KINDS = {
    torch.uint8: "uint8", torch.bool: "uint8", torch.uint16: "uint16", torch.int8: SIGNED, torch.int16: SIGNED,
    torch.int32: "float32", torch.uint32: "float32",
}  # fmt: skip
"""What numbers are counted as, other than floats."""
OPAQUE = {torch.uint8: 255, torch.bool: True}
_DAMAGES = (
    OSError, EOFError, BadZipFile, zlib.error, KeyError, IndexError, TypeError, NotImplementedError, TokenError,
)  # fmt: skip
"""What reading bytes, or descriptions, that make no sense can raise."""
_IDX_BYTES = 0x08  # the type code of unsigned bytes


def convert_array(
    array: np.ndarray | Tensor, conversion: Conversion, *, where: str, ranged: bool = False
) -> Tensor | list[Numbers]:
    """Return an array of images as bytes ``(n, c, h, w)``, or as camera counts.

    Camera counts are arrays of 16 or 32 bits, with channels other than grey or colours, or with a given range. Four
    channels of bytes, truth values or floats are colours and transparency (RGBA), unless ``conversion`` asks for 4
    channels or a range is given.

    Parameters
    ----------
    array
        ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)`` with 1, 3 or 4 channels, or as many as ``conversion`` asks
        for: bytes, numbers of 16 or 32 bits, truth values, or floats, from 0 to 1 unless a range is given.
    conversion
        What else is done.
    where
        What a message calls the array.
    ranged
        Whether a range is given, or derived from the images.

    Raises
    ------
    ValueError
        When shape or range are ambiguous.
    TypeError
        When the type of the numbers is not supported.

    Warns
    -----
    UserWarning
        When images are cropped, or the last of four channels is taken for transparency in an array ``(n, 4, h, w)``,
        as microscopes' are; pictures have their channels last.

    Examples
    --------
    >>> import numpy as np
    >>> convert_array(np.ones((5, 8, 8)), Conversion(), where="here").shape
    torch.Size([5, 1, 8, 8])
    >>> convert_array(np.ones((5, 2, 8, 8)), Conversion(channels=2), where="here")[0].values.shape
    torch.Size([2, 8, 8])
    """
    values = array.detach() if isinstance(array, Tensor) else torch.from_numpy(_native(array, where))
    pictures = values.ndim == 4 and values.shape[1] != _RGBA  # channels last, as of pictures
    values = _channels_first(values, conversion.channels, where)
    if values.is_floating_point() and not bool(torch.isfinite(values).all()):
        raise ValueError(f"Expected finite pixels; found NaN or infinity in {where}. Fix or leave out these images.")
    kind = "float32" if values.is_floating_point() else _KINDS.get(values.dtype)
    if kind is None:
        raise TypeError(
            "Expected pixels as uint8 (0 to 255), 16 or 32 bits, bool, or floats from 0 to 1; found "
            f"{values.dtype} in {where}."
        )
    sizes = [(values.shape[2], values.shape[3])] * len(values)
    conversion.warn_of_cuts(sizes, where=where)
    conversion.tell_of_scale(sizes, where=where)
    if values.is_floating_point() and conversion.white_level is not None:
        # 65535 was the default, also for floats from 0 to 1: older runs have it among their settings.
        ranged = ranged or conversion.white_level != STEPS or float(values.max()) > 1
    if _of_bytes(values, conversion.channels) and not ranged:
        if conversion.channels is None and not (pictures and _has_opaque(values)):
            _warn_of_transparency(values, where)
        return conversion(_as_bytes(values, where))
    factor = 255 if values.dtype == torch.bool else 1
    colours = values.shape[1] == len(LUMA)  # as of bytes
    return [conversion.of_camera(Numbers(image.float() * factor, kind, colours=colours)) for image in values]


def read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the images in a file (.npy, .npz, .zarr, idx, gzipped or not), and their labels if it has any.

    An .npz or a .zarr holds one array, or one called ``images`` and, optionally, one called ``labels``; or a .zarr one
    image of OME-Zarr. What a file claims to hold is compared with its size, and with the memory of this machine, before
    anything is read.

    Raises
    ------
    ValueError
        When the file holds something else.
    """
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return _array(file, path.stat().st_size, path, packed=False), None
        if path.suffix == ".npz":
            return _from_npz(path)
        if stores.is_store(path):
            return _from_zarr(path)
    except (*_DAMAGES, ValueError) as error:
        raise ValueError(f"{path} cannot be read as an array of pictures ({error}).") from error
    return read_idx(path), None


def read_idx(path: Path) -> np.ndarray:
    """Return the bytes of an idx file, the format of MNIST, gzipped or not.

    Raises
    ------
    ValueError
        When the file is of another format, cut off, or holds other numbers than bytes, or more than the memory does.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(4)
            if len(start) < 4 or start[:2] != b"\0\0" or start[2] != _IDX_BYTES:
                raise ValueError(f"Expected pictures in .npy, .npz or idx format (bytes); {path} is none of these.")
            sides = file.read(4 * start[3])
            shape = tuple(int(side) for side in np.frombuffer(sides[: len(sides) // 4 * 4], dtype=">u4"))
            claimed = math.prod(shape)
            _require_memory(claimed, shape, path)
            data = file.read(claimed + 1)  # of a bomb no more than it claims
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}). Download it again.") from error
    if len(shape) != start[3] or len(data) != claimed:
        found = f"more than {claimed}" if len(data) > claimed else len(data)
        raise ValueError(f"Expected {claimed} bytes of pixels in {path}; found {found}.")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _from_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with ZipFile(path) as members:
        sizes = {member.filename.removesuffix(".npy"): member for member in members.infolist()}

        def read(name: str) -> np.ndarray:
            with members.open(sizes[name]) as file:
                return _array(file, sizes[name].file_size, path, packed=True)

        if len(sizes) == 1:
            return read(next(iter(sizes))), None
        if "images" not in sizes:
            raise ValueError(f"no array `images`; it holds {list(sizes)}")
        return read("images"), read("labels") if "labels" in sizes else None


def _from_zarr(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    images, labels, one = stores.arrays_in(path)
    if images.dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read")
    _require_memory(math.prod(images.shape) * images.dtype.itemsize, images.shape, path)
    values = np.asarray(images[...])
    if one:
        values = values.reshape(1, -1, *values.shape[-2:])
    return values, None if labels is None else np.asarray(labels[...])


def _array(file: IO[bytes], size: int, path: Path, *, packed: bool) -> np.ndarray:
    """Return the array of an open .npy file of so many bytes, once its header is found to be true.

    Raises
    ------
    ValueError
        When it claims more than there is, or objects, which would run code.
    """
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0}.get(version, np.lib.format.read_array_header_2_0)
    shape, by_columns, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > size - file.tell():
        raise ValueError(f"it claims {_bytes(claimed)}, of shape {shape}, and holds {_bytes(size - file.tell())}")
    if packed:
        _require_memory(claimed, shape, path)
    values = np.frombuffer(file.read(claimed), dtype=dtype)
    return values.reshape(shape, order="F" if by_columns else "C").copy()


def _require_memory(claimed: int, shape: tuple[int, ...], path: Path) -> None:
    """Refuse what is packed, and would not fit into memory.

    Raises
    ------
    ValueError
        Naming both.
    """
    if claimed > usable_memory():
        raise ValueError(
            f"{path} claims {_bytes(claimed)} once it is unpacked, of shape {shape}; there are "
            f"{_bytes(int(usable_memory()))} of memory. If the size is right, read parts of it."
        )


def _bytes(n: int) -> str:
    unit = min(max(n, 1).bit_length() // 10, 5)
    return f"{min(n, 2**80) / 2 ** (10 * unit):.3g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[unit]}"


def _native(array: np.ndarray, where: str) -> np.ndarray:
    """Return an array whose bytes torch can take over."""
    if array.dtype.kind not in "buif":
        raise TypeError(f"Expected numbers as pixels; found {array.dtype} in {where}.")
    return np.array(array, dtype=array.dtype.newbyteorder("="))


def _channels_first(values: Tensor, channels: int | None, where: str) -> Tensor:
    if values.ndim not in (3, 4) or values.numel() == 0:
        raise ValueError(
            f"Expected pictures (n, h, w), (n, h, w, c) or (n, c, h, w); found shape {tuple(values.shape)} in {where}."
        )
    if values.ndim == 3:
        if values.shape[2] in _CHANNELS and min(values.shape[:2]) > max(_CHANNELS):
            raise ValueError(f"{where} of shape {tuple(values.shape)} looks like one picture. Add an axis: `x[None]`.")
        return values[:, None]
    known = _CHANNELS if channels in (None, 1, 3) else (channels,)
    first, last = values.shape[1] in known, values.shape[3] in known
    if first and last and channels in (values.shape[1], values.shape[3]):  # it says which axis, and if both, the first
        first, last = values.shape[1] == channels, values.shape[1] != channels
    if first == last:
        how = f"axis 1 nor the last has {' or '.join(map(str, known))} channels"
        raise ValueError(
            f"Cannot tell what the axes of {where} mean, shape {tuple(values.shape)}: "
            f"{'it could be channels first or last' if first else f'neither {how}'}. Set `channels` to their number, "
            "or transpose them to (n, c, h, w)."
        )
    return values if first else values.permute(0, 3, 1, 2)


def _of_bytes(values: Tensor, channels: int | None) -> bool:
    """Return whether arrays ``(n, c, h, w)`` are pictures of bytes: grey, coloured, or coloured and transparent."""
    own = values.shape[1] not in _CHANNELS or channels == values.shape[1] == _RGBA
    return not own and (values.dtype in (torch.uint8, torch.bool) or values.is_floating_point())


def _has_opaque(values: Tensor) -> bool:
    """Return whether any pixel of pictures ``(n, 4, h, w)`` is opaque, as some of all pictures are."""
    return bool(values[:, -1].max() >= (1.0 if values.is_floating_point() else OPAQUE.get(values.dtype, 1)))


def _warn_of_transparency(values: Tensor, where: str) -> None:
    """Warn if it is guessed that the last channel is transparency: it may be the fourth of a microscope."""
    if values.shape[1] == _RGBA:
        warn(
            f"Took the last of the 4 channels of {where} for transparency, and laid the images on a background. Set "
            "`channels=4` to keep 4 channels, or `channels=3` if they are colours with transparency (RGBA)."
        )


def _as_bytes(values: Tensor, where: str) -> Tensor:
    if values.is_floating_point():
        return _from_floats(values, where)
    return values.to(torch.uint8) * 255 if values.dtype == torch.bool else values


def _from_floats(values: Tensor, where: str) -> Tensor:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"Expected floating-point pixels from 0 to 1; found {low:g} to {high:g} in {where}. Scale them: "
            "`(x + 1) / 2` if they run from -1 to 1, `x / 255` if they are levels; or set `white_level` to the largest "
            "value, or `percentiles=(0.1, 99.9)`."
        )
    return (values * 255).round().to(torch.uint8)
