"""Picture files: which ones a folder holds, and what is in each."""

import logging
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cellflow.errors import MissingDependencyError
from cellflow.images.limits import PixelBudget, UnreadableImageError
from cellflow.images.numbers import SIGNED, Numbers
from cellflow.images.pixels import CHANNELS, Conversion
from cellflow.images.reducing import block_means, reduced
from cellflow.images.tiff import INSTALL, PackedError, is_ours, read_tiff
from cellflow.machine import usable_cores
from cellflow.renamed import warn

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

log = logging.getLogger(__name__)

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
_SIXTEEN_BITS = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})
_AS_THEY_ARE = frozenset({"L", "LA", "RGB", "RGBA"})
_BECOMES = {"1": "L", "La": "LA", "RGBa": "RGBA", "PA": "RGBA"}
_TRANSPARENT = {"L": "LA", "RGB": "RGBA", "P": "RGBA"}
_OF_MICROSCOPES = frozenset({".czi", ".dv", ".ims", ".lif", ".lsm", ".nd2", ".ndpi", ".oib", ".oif", ".svs", ".vsi"})
_EXPORT = "Export files in a microscope's own format as OME-TIFF, for example with Fiji."
_BITS, _SAMPLE_FORMAT, _IS_SIGNED = 258, 339, 2  # tags of a TIFF, and how it calls whole numbers with a sign
_NAMED = 10  # files listed in a message
_SETTINGS, _OURS = "config.yaml", b"cellflow."  # what a run writes first, and what is in it: the names of our parts
_MOST_SETTINGS = 2**20  # bytes that are searched
_PICTURES = frozenset({"figures", "previews"})  # folders of a run with pictures of its own
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "WEBP", "GIF")
_DAMAGES = (OSError, EOFError, SyntaxError, ValueError, TypeError, struct.error)
"""What Pillow's decoders raise at bytes that they cannot follow."""
_OPENING = threading.Lock()  # Pillow keeps its limit in a global
_CHECKED_AT_ONCE = 4096  # pictures that wait for a thread together


def image_paths(folder: Path) -> list[Path]:
    """Return the images in a folder and below it, in alphabetical order; hidden files and folders are left out.

    Links are followed, to files and to folders: a folder of classes may be made of links alone. Folders below it that
    hold a run of the command line are left out, which the log says: figures and previews are no data.

    Raises
    ------
    FileNotFoundError
        When the folder does not exist.
    ValueError
        When there are no images in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"No {'file' if folder.suffix else 'folder'} {folder}. The working directory is {Path.cwd()}."
        )
    left: list[Path] = []
    files = sorted(_files(folder, frozenset(), left))
    for path in left:
        log.info("left out %s, of a run of cellflow; name it to read pictures in it", path)
    found = [path for path in files if path.suffix.lower() in ENDINGS]
    if not found:
        counts = Counter(path.suffix.lower() or "no ending" for path in files)
        what = ", ".join(f"{count} x {ending}" for ending, count in counts.most_common(5)) or "no files"
        cure = f" {_EXPORT}" if _OF_MICROSCOPES & counts.keys() else ""
        cure += f" {left[0]}, of a run of cellflow, was left out." if left else ""
        raise ValueError(f"Expected pictures ({', '.join(sorted(ENDINGS))}) in {folder}; found {what}.{cure}")
    return found


def require_picture(path: Path) -> None:
    """Refuse a file that, by its name and its first bytes, is no picture.

    Raises
    ------
    ValueError
        With what is read instead.
    """
    if path.suffix.lower() in ENDINGS:
        return
    try:
        _opened(path).close()
    except UnreadableImageError:
        raise ValueError(
            f"Expected a folder, a picture ({', '.join(sorted(ENDINGS))}) or an array (.npy, .npz, .zarr, .idx, .gz); "
            f"found {path}. {_EXPORT}"
        ) from None


def decode(
    path: Path, conversion: Conversion, budget: PixelBudget | None = None, sizes: list[tuple[int, int]] | None = None
) -> Tensor | Numbers:
    """Return one image as bytes ``(c, h, w)``, turned upright by its EXIF tag, or as camera counts.

    Camera counts come from files of more than 8 bits, and TIFF files with their own channels.

    Parameters
    ----------
    path
        The file.
    conversion
        How it is converted to bytes.
    budget
        What threads share that decode at the same time; ``None`` for a single thread.
    sizes
        Where height and width of the image are recorded, before resizing.

    Raises
    ------
    UnreadableImageError
        When the file is damaged, truncated, not an image, or has more pixels than ``conversion`` allows.
    ValueError
        When it holds several pages and ``conversion`` does not say how to read them.
    """
    whole = _decoded(path, conversion, budget or PixelBudget())
    if sizes is not None:
        values = whole.values if isinstance(whole, Numbers) else whole
        sizes.append((values.shape[-2], values.shape[-1]))
    return conversion.of_camera(whole) if isinstance(whole, Numbers) else conversion(whole[None])[0]


def tried(
    path: Path,
    conversion: Conversion,
    budget: PixelBudget | None = None,
    sizes: list[tuple[int, int]] | None = None,
) -> Tensor | Numbers | UnreadableImageError:
    """Return one image as `decode` does, or what is wrong with its file."""
    try:
        return decode(path, conversion, budget, sizes)
    except UnreadableImageError as error:
        return error


def decode_all(
    paths: Sequence[Path], conversion: Conversion, *, skip_unreadable: bool, where: str = "", quiet: bool = False
) -> tuple[list[Tensor | Numbers], list[Path]]:
    """Decode images with a thread per usable core; return them with the paths of those that could be read.

    All threads together decode at most `cellflow.images.limits.AT_ONCE` pixels at a time. Warns if images, which come
    from ``where``, are cropped, unless ``quiet``.
    """
    budget, sizes = PixelBudget(), []  # type: ignore[var-annotated]
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = list(pool.map(lambda path: tried(path, conversion, budget, sizes), paths))
    if not quiet:
        conversion.warn_of_cuts(sizes, where=where)
        conversion.tell_of_scale(sizes, where=where)
    bad = [error for error in found if isinstance(error, UnreadableImageError)]
    _complain(bad, len(paths), skip_unreadable=skip_unreadable)
    pairs = [(image, path) for image, path in zip(found, paths, strict=True) if isinstance(image, Tensor | Numbers)]
    return [image for image, _ in pairs], [path for _, path in pairs]


def readable(paths: Sequence[Path], conversion: Conversion) -> list[Path]:
    """Decode every image once, keep none of them, and return the paths of those that could be read."""
    good: list[Path] = []
    bad: list[UnreadableImageError] = []
    budget = PixelBudget()
    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(paths), _CHECKED_AT_ONCE):
            part = paths[start : start + _CHECKED_AT_ONCE]
            for path, found in zip(part, pool.map(lambda path: tried(path, conversion, budget), part), strict=True):
                if isinstance(found, UnreadableImageError):
                    bad.append(found)
                else:
                    good.append(path)
    _complain(bad, len(paths), skip_unreadable=True)
    return good


def stack(images: Sequence[Tensor], paths: Sequence[Path | str]) -> Tensor:
    """Stack images of one shape into ``(n, c, h, w)``.

    Raises
    ------
    ValueError
        When their channels or sizes differ.
    """
    channels: dict[int, list[Path | str]] = {}
    sizes: dict[tuple[int, int], list[Path | str]] = {}
    for image, path in zip(images, paths, strict=True):
        channels.setdefault(image.shape[0], []).append(path)
        sizes.setdefault((image.shape[1], image.shape[2]), []).append(path)
    if len(channels) > 1:
        kinds = {c: CHANNELS.get(c, f"of {c} channels") for c in channels}
        found = " and ".join(f"{len(some)} {kinds[c]} (such as {some[0]})" for c, some in sorted(channels.items()))
        raise ValueError(f"Expected pictures of one kind; found {found}. Set `channels=1` for grey or 3 for RGB.")
    if len(sizes) > 1:
        found = ", ".join(f"{h} x {w} ({some[0]})" for (h, w), some in list(sizes.items())[:3])
        raise ValueError(
            f"Expected pictures of one size; found {len(sizes)}: {found}. Set `size`, as in `size=64`, and "
            "`fit`: whether they are cropped, padded or cut into tiles."
        )
    return torch.stack(list(images))


def _files(folder: Path, above: frozenset[Path], left: list[Path]) -> Iterator[Path]:
    """Yield the files below a folder, through links; not again those of a folder that is ``above`` itself.

    What is of a run is added to what was ``left`` out.
    """
    here = folder.resolve()
    own = _PICTURES if _holds_run(folder) else ()  # asked for by its name: there may be pictures beside the run
    for path in () if here in above else folder.iterdir():
        if path.name.startswith(".") or path.name == "__MACOSX":
            continue
        if path.is_dir() and (path.name in own or _holds_run(path)):
            left.append(path)
        elif path.is_dir():
            yield from _files(path, above | {here}, left)
        elif path.is_file() or path.is_symlink():  # a link that leads nowhere is a file that cannot be read
            yield path


def _holds_run(folder: Path) -> bool:
    """Say whether the command line has written a run into a folder, finished or not."""
    settings = folder / _SETTINGS
    if not settings.is_file():
        return False
    with settings.open("rb") as file:
        return _OURS in file.read(_MOST_SETTINGS)


def _decoded(path: Path, conversion: Conversion, budget: PixelBudget) -> Tensor | Numbers:
    """Return one picture as it is in its file."""
    try:
        if is_ours(path, conversion.channels):
            return read_tiff(path, conversion, budget)
    except MissingDependencyError:
        log.debug("%s is read as a picture of one page: %s", path, INSTALL)
    except PackedError as error:
        return _unpacked(path, conversion, budget, error)
    return _picture(path, conversion, budget)


def _unpacked(path: Path, conversion: Conversion, budget: PixelBudget, error: PackedError) -> Numbers:
    """Return the numbers of a TIFF of a packing that Pillow knows, where it is one grey plane: of others it loses bits.

    Raises
    ------
    UnreadableImageError
        When it is no such file.
    """
    try:
        values = _picture(path, conversion, budget)
    except ValueError:
        raise error from None
    if not isinstance(values, Numbers):
        raise error
    return values


def _picture(path: Path, conversion: Conversion, budget: PixelBudget) -> Tensor | Numbers:
    """Return one picture as Pillow reads it."""
    with _opened(path) as picture:
        _require_one_page(picture, path)
        width, height = picture.size
        factor = conversion.reduction(height, width)
        if factor == 0:
            raise UnreadableImageError(
                f"{path} (it claims {width} x {height} pixels, more than max_pixels={conversion.max_pixels}; if the "
                "size is right, set `max_pixels`)"
            )
        with budget.hold(width * height):
            values = _values(picture, path, factor)
            return values if isinstance(values, Numbers) else torch.from_numpy(values).permute(2, 0, 1)


def _complain(bad: Sequence[UnreadableImageError], n: int, *, skip_unreadable: bool) -> None:
    """Raise, or warn where they may be left out, and name the pictures among ``n`` that cannot be read.

    Raises
    ------
    UnreadableImageError
        When they may not be skipped, or none is left.
    """
    if not bad:
        return
    named = _listed([str(error) for error in bad])
    if not skip_unreadable:
        raise UnreadableImageError(
            f"{len(bad)} of {n} pictures cannot be read: {named}. Remove them, download them again, or set "
            "`skip_unreadable=True`."
        ) from bad[0]
    if len(bad) == n:
        raise UnreadableImageError(f"None of {n} pictures can be read: {named}.")
    warn(f"Left out {len(bad)} of {n} pictures: {named}.")


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return "; ".join(words[:_NAMED]) + more


def _opened(path: Path) -> "Picture":
    """Return a picture of which the header alone has been read, whatever size it claims.

    Raises
    ------
    UnreadableImageError
        When it is damaged, or no picture of these formats: others may call foreign programs.
    """
    from PIL import Image

    Image.init()
    formats = [one for one in _FORMATS if one in Image.OPEN]
    with _OPENING:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # the size is checked by our caller
        try:
            return Image.open(path, formats=formats)
        except _DAMAGES as error:
            raise UnreadableImageError(f"{path} ({error})") from error
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _values(picture: "Picture", path: Path, factor: int = 1) -> np.ndarray | Numbers:
    """Return the bytes of a picture, ``(h, w, c)``, or its numbers where it has more bits, so many times smaller."""
    from PIL import ImageOps

    deep = picture.mode in _SIXTEEN_BITS or picture.mode == "F"
    try:
        picture.load()
        small = picture if factor == 1 or deep else reduced(picture, factor, _target_mode(picture))
        upright = ImageOps.exif_transpose(small)
    except _DAMAGES as error:
        raise UnreadableImageError(f"{path} ({error})") from error
    if deep:
        kind = _kind(picture)
        means = block_means(np.asarray(upright)[None], factor)
        if not torch.isfinite(means).all():
            raise UnreadableImageError(f"{path} (pixels are NaN or infinite; fix them, or leave the file out)")
        return Numbers(means, kind)
    mode = _target_mode(upright)
    try:
        values = np.array(upright.convert(mode))
    except _DAMAGES as error:
        raise UnreadableImageError(f"{path} ({error})") from error
    return values[..., None] if values.ndim == 2 else values


def _kind(picture: "Picture") -> str:
    """Return what the numbers of a picture of more than 8 bits are counted as. Pillow has one mode for many of them."""
    if picture.mode == "F" or _tag(picture, _BITS, 16) > 16:
        return "float32"
    return SIGNED if _tag(picture, _SAMPLE_FORMAT, 0) == _IS_SIGNED else "uint16"


def _tag(picture: "Picture", number: int, otherwise: int) -> int:
    """Return what a TIFF says of its numbers; other files, and damaged ones, say nothing."""
    try:
        return int(picture.tag_v2[number][0])  # type: ignore[attr-defined]
    except (AttributeError, LookupError, *_DAMAGES):
        return otherwise


def _require_one_page(picture: "Picture", path: Path) -> None:
    try:
        pages = getattr(picture, "n_frames", 1)
    except _DAMAGES as error:  # it follows the pages of a TIFF
        raise UnreadableImageError(f"{path} ({error})") from error
    if pages > 1 and picture.format != "MPO":  # a photograph with its preview inside
        cure = f", or install `{INSTALL}` and set `pages`" if picture.format == "TIFF" else ""
        raise ValueError(
            f"Expected one picture per file; {path} holds {pages} pages. Write each to its own file{cure}."
        )


def _target_mode(picture: "Picture") -> str:
    """Return the mode of bytes into which a picture is brought."""
    if "transparency" in picture.info and picture.mode in _TRANSPARENT:
        return _TRANSPARENT[picture.mode]
    return picture.mode if picture.mode in _AS_THEY_ARE else _BECOMES.get(picture.mode, "RGB")
