"""Whether two sets of images can be paired: their sizes, shapes and classes."""

import torch

from cellflow.images.sets import Images, ImageSet
from cellflow.images.streams import ImageStream


def in_files(source: Images, target: Images) -> bool:
    """Return whether images of either side are read from their files as they are needed."""
    return isinstance(source, ImageStream) or isinstance(target, ImageStream)


def check_sizes(source: Images | None, target: Images, batch_size: int) -> None:
    """Refuse anything but a set of at least two images; a source of ``None`` is noise.

    Raises
    ------
    TypeError, ValueError
        With the side.
    """
    if batch_size < 1:
        raise ValueError(f"Expected batch_size >= 1; found {batch_size}.")
    for side, images in (("source", source), ("target", target)):
        lacking = [name for name in ("scaled", "shape", "__len__") if not hasattr(images, name)]
        if isinstance(images, type) or (lacking and (images is not None or side == "target")):
            raise TypeError(
                f"Expected `{side}` as a set of images; found {type(images).__name__}. See `cf.images.read_images`."
            )
        if images is not None and len(images) < 2:
            raise ValueError(f"Expected at least two {side} images; found {len(images)}: there is nothing to learn.")


def check_pair(source: Images, target: Images) -> None:
    """Refuse sets of different shapes or devices, and a set with itself.

    Raises
    ------
    ValueError
        With what differs.
    """
    if source.shape != target.shape:
        (c0, h0, w0), (c1, h1, w1) = source.shape, target.shape
        raise ValueError(
            f"Expected source and target images of one shape; found {c0} x {h0} x {w0} and {c1} x {h1} x {w1}. Read "
            "both with the same `size` and `channels`."
        )
    if source.device != target.device:
        raise ValueError(f"Expected both sets on one device; found {source.device} and {target.device}. Use `.to()`.")
    if source is target or _same(source, target):
        raise ValueError("Source and target are the same images. Give two sets.")


def _same(source: Images, target: Images) -> bool:
    if isinstance(source, ImageSet) and isinstance(target, ImageSet):
        return source.levels == target.levels and _equal(source.images, target.images)
    if isinstance(source, ImageStream) and isinstance(target, ImageStream):
        # By name, and one look at the disk: the same folder may be written in two ways.
        return source.names == target.names and source.paths[0].samefile(target.paths[0])
    return False


def check_classes(source: Images, target: Images) -> None:
    """Refuse sets that do not have the same classes.

    Raises
    ------
    ValueError
        With the classes that are on one side only.
    """
    if source.labels is None or target.labels is None:
        raise ValueError("Expected labels on both sides for `within_labels`; found none on one of them.")
    if source.classes != target.classes:
        raise ValueError(f"Expected the same classes on both sides; found {source.classes} and {target.classes}.")
    names = source.classes or ()
    present = [{names[label] for label in side.unique().tolist()} for side in (source.labels, target.labels)]
    if alone := sorted(present[0] ^ present[1]):
        raise ValueError(f"Expected every class on both sides; {alone} are on one side only. Leave them out: `only`.")


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.shape == second.shape and bool((first == second).all())  # `torch.equal` knows no 16 bits
