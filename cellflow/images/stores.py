"""Zarr stores of images: one array, or one beside its labels, or one image of OME-Zarr."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import zarr

SUFFIX, MARKS = ".zarr", ("zarr.json", ".zarray", ".zgroup")
"""How a store is called, and files of which its folder has one, whatever it is called."""


def is_store(path: Path) -> bool:
    """Return whether a path is a store of zarr.

    Examples
    --------
    >>> is_store(Path("stack.zarr")), is_store(Path("plates"))
    (True, False)
    """
    return path.suffix == SUFFIX or (path.is_dir() and any((path / mark).is_file() for mark in MARKS))


def arrays_in(path: Path) -> "tuple[zarr.Array[Any], zarr.Array[Any] | None, bool]":
    """Return the images in a store, unread; their labels, if it has any; and whether it is one image, of OME-Zarr.

    That one is in its full resolution, and has channels, rows and columns last.

    Raises
    ------
    ValueError
        When it holds several arrays, and does not say which one has the images; or several times or planes.
    """
    import zarr

    store = zarr.open(str(path), mode="r")
    if isinstance(store, zarr.Array):
        return store, None, False
    if scales := _of_ome(store.attrs):
        return _full(store, scales[0], path), None, True
    arrays: dict[str, Any] = dict(store.arrays())
    if len(arrays) == 1:
        return next(iter(arrays.values())), None, False
    if "images" not in arrays:
        inside = list(arrays) or [name for name, _ in store.groups()]
        cure = f" Give one of them, such as {path / inside[0]}." if inside else ""
        raise ValueError(f"no array `images`; it holds {inside}.{cure}")
    return arrays["images"], arrays.get("labels"), False


def _of_ome(attributes: Mapping[str, Any]) -> list[Any]:
    """Return the resolutions of an image of OME-Zarr, of versions up to 0.4, or from 0.5 on; empty of other groups."""
    newer = attributes.get("ome")
    found = (newer if isinstance(newer, Mapping) else attributes).get("multiscales")
    return found if isinstance(found, list) else []


def _full(store: Any, scales: Any, path: Path) -> "zarr.Array[Any]":
    """Return the full resolution of an image of one time and one plane."""
    array = store[scales["datasets"][0]["path"]]
    if not hasattr(array, "shape"):
        raise ValueError(f"its full resolution, `{array.path}`, is no array")
    axes = scales.get("axes") or "tczyx"[-array.ndim :]  # the order of version 0.2 and before
    names = [axis["name"] if isinstance(axis, Mapping) else axis for axis in axes]
    if names[-2:] != ["y", "x"]:
        raise ValueError(f"its axes are {', '.join(names)}, which do not end with y, x")
    several = [
        f"{n} along {name}" for name, n in zip(names, array.shape, strict=True) if name not in ("c", "y", "x") and n > 1
    ]
    if several:
        found = ", ".join(several)
        raise ValueError(
            f"Expected one plane, with its channels, in {path}; found {found}. Take the brightest pixel of each stack, "
            "or one plane, and pass the array to `read_images`."
        )
    full: zarr.Array[Any] = array
    return full
