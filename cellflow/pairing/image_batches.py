"""Batches of paired images, without end: from images to images, or from noise to images."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.couplings import Coupling, Given, Independent, Plan, resolve
from cellflow.images.sets import Images, ImageSet
from cellflow.images.streams import ImageStream
from cellflow.pairing.batches import OT_BATCH_SIZE, WHOLE_LIMIT, paired_batches
from cellflow.pairing.features import Features, OnFeatures, WithinLabels, lookups
from cellflow.pairing.image_pairs import FromImages, FromNoise
from cellflow.seeds import draw_seed

PIXEL_LIMIT = 2**28
"""Most pixels of both sides for one plan over two whole sets: 2 GB in the precision of the costs."""


def image_batches(
    source: Images | None,
    target: Images,
    *,
    coupling: Coupling | str = "exact",
    batch_size: int = 128,
    generator: torch.Generator,
    features: Features | None = None,
    within_labels: bool = False,
    condition: Tensor | str | None = None,
    flip: bool = False,
    ot_batch_size: int | str = "auto",
) -> "ImageBatches":
    """Pair images with images, or with Gaussian noise, for as many batches as anybody asks for.

    Parameters
    ----------
    source
        Images, or None for standard Gaussian noise, fresh in every batch.
    target
        Images of the same shape.
    coupling
        How they are matched: a coupling, or the name of one.
    batch_size
        Pairs per batch.
    generator
        Seeds pairs, noise, flips and principal components.
    features
        In which space images are matched: None for pixels from -1 to 1; a number of principal components of both
        sets together; a function of images ``(n, c, h, w)``, such as a network; or the features of both sides.
    within_labels
        Whether to pair only images of one class. Each class then has the share of the pairs that it has of the
        target.
    condition
        What the field is told: ``"labels"`` for the class of the target, one-hot; or ``(m, k)``, a row for each
        target image.
    flip
        Whether to mirror each pair, both sides alike, every other time.
    ot_batch_size
        Images a side that are matched at once, as for `paired_batches`. Against noise: the least number that is
        matched at once; ``"auto"`` is the batch itself, as is customary.

    Returns
    -------
    batches
        Iterate over them, or from any step on with ``batches.iterate(step)``: a step's batch is always the same.

    Raises
    ------
    ValueError
        When there is one image only, both sides are the same images, their shapes or classes differ, a setting makes
        no sense for noise, or one plan over whole sets would read too many files into memory.

    Notes
    -----
    Noise matched with images of all classes leans towards the class that it is given, but a sampler draws it without:
    take ``coupling="independent"`` where noise becomes images of a class that is asked for (Cheng and Schwing 2025,
    "The curse of conditions").

    Examples
    --------
    >>> import cellflow as cf
    >>> digits = cf.datasets.digits()
    >>> rng = cf.generator(seed=0)
    >>> batches = image_batches(digits.only("2"), digits.only("3"), batch_size=8, generator=rng)
    >>> next(iter(batches)).x0.shape
    torch.Size([8, 1, 8, 8])
    >>> batch = next(iter(image_batches(None, digits, batch_size=8, condition="labels", generator=rng)))
    >>> batch.condition.shape
    torch.Size([8, 10])
    """
    coupling = resolve(coupling)
    _check_sizes(source, target, batch_size)
    asked = _condition(target, condition)
    pairs: FromImages | FromNoise
    if source is None:
        if features is not None or within_labels:
            raise ValueError("Noise has no features and no classes: leave out `features` and `within_labels`.")
        pairs = _from_noise(target, coupling, batch_size, generator, ot_batch_size, flip)
    else:
        _check_pair(source, target)
        if within_labels:
            _check_classes(source, target)
        if ot_batch_size == "whole" and features is None and not isinstance(coupling, Independent | Given):
            _check_memory(source, target)
        if ot_batch_size == "auto" and not isinstance(coupling, Independent):
            ot_batch_size = _matched_at_once(source, target, batch_size, features is None, within_labels)
        on_rows = _on_rows(source, target, coupling, features, within_labels, generator)
        rows = (torch.arange(len(images), device=images.device)[:, None] for images in (source, target))
        paired = paired_batches(
            *rows, coupling=on_rows, batch_size=batch_size, generator=generator, ot_batch_size=ot_batch_size
        )
        pairs = FromImages(source, target, paired, draw_seed(generator), flip)
    return ImageBatches(pairs, batch_size, asked)


class ImageBatches:
    """Batches of paired images without end; the batch of a step is the same at every iteration.

    Made by `image_batches`.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> batches = image_batches(None, cf.datasets.digits(), batch_size=4, generator=cf.generator(seed=0))
    >>> a, b = (next(batches.iterate(7)) for _ in range(2))
    >>> torch.equal(a.x0, b.x0) and torch.equal(a.x1, b.x1)
    True
    """

    def __init__(self, pairs: FromImages | FromNoise, batch_size: int, condition: Tensor | None) -> None:
        self._pairs, self.batch_size, self._condition = pairs, batch_size, condition

    @property
    def plans(self) -> list[Plan | None]:
        """The plan over both whole sets, or None where parts of them are matched, or noise."""
        return self._pairs.paired.plans if isinstance(self._pairs, FromImages) else [None]

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate(0)

    def iterate(self, start: int) -> Iterator[Batch]:
        """Yield the batches of steps ``start``, ``start + 1`` and so on; threads work ahead."""
        for x0, x1, rows in self._pairs.iterate(start):
            condition = None if self._condition is None else self._condition[rows.to(self._condition.device)]
            yield Batch(x0, x1, condition=condition)


def _from_noise(
    target: Images,
    coupling: Coupling,
    batch_size: int,
    generator: torch.Generator,
    ot_batch_size: int | str,
    flip: bool,
) -> FromNoise:
    if isinstance(ot_batch_size, str) and ot_batch_size != "auto":
        raise ValueError(f"Expected a number of images to match with noise, or 'auto'; found {ot_batch_size!r}.")
    asked = batch_size if isinstance(ot_batch_size, str) else max(ot_batch_size, batch_size)
    matched = batch_size if isinstance(coupling, Independent) else batch_size * math.ceil(asked / batch_size)
    rows = torch.arange(len(target), device=target.device)[:, None]
    # One point on the other side: only the order of the images is drawn here, each as often as any other.
    order = paired_batches(rows[:1], rows, coupling=Independent(), batch_size=matched, generator=generator)
    return FromNoise(target, coupling, order, batch_size, draw_seed(generator), flip)


def _on_rows(
    source: Images,
    target: Images,
    coupling: Coupling,
    features: Features | None,
    within_labels: bool,
    generator: torch.Generator,
) -> Coupling:
    """Return the coupling in a form that takes row numbers for images."""
    if not isinstance(coupling, Independent | Given):
        coupling = OnFeatures(coupling, *lookups(source, target, features, generator=generator))
    elif features is not None:
        raise ValueError(f"{coupling} does not look at images: leave out `features`.")
    if within_labels and source.labels is not None and target.labels is not None:
        return WithinLabels(coupling, source.labels, target.labels)
    return coupling


def _matched_at_once(
    source: Images, target: Images, batch_size: int, on_pixels: bool, within_labels: bool
) -> int | str:
    """Return how many images a side are matched at once: all, where their costs and their pixels fit into memory."""
    problems, pairs = 1, len(source) * len(target)
    if within_labels and source.labels is not None and target.labels is not None:
        # Every class is a problem of its own.
        problems = len(target.classes or ())
        counts = [torch.bincount(labels, minlength=problems) for labels in (source.labels, target.labels)]
        pairs = int((counts[0] * counts[1]).sum())
    pixels = _pixels(source, target) if on_pixels else 0
    if pairs <= WHOLE_LIMIT and pixels <= PIXEL_LIMIT:
        return "whole"
    return max(OT_BATCH_SIZE, 2 * batch_size) * problems


def _pixels(source: Images, target: Images) -> int:
    return math.prod(target.shape) * (len(source) + len(target))


def _check_memory(source: Images, target: Images) -> None:
    """Refuse to hold all pixels of images that are left in their files so that memory need not."""
    pixels = _pixels(source, target)
    if pixels > PIXEL_LIMIT and (isinstance(source, ImageStream) or isinstance(target, ImageStream)):
        raise ValueError(
            f"One plan over both whole sets would hold their {pixels:,} pixels in memory, which they are left in files "
            "to avoid. Set `ot_batch_size` to 'auto' or a number, or match principal components, as in features=50."
        )


def _condition(target: Images, condition: Tensor | str | None) -> Tensor | None:
    if condition is None:
        return None
    if isinstance(condition, str):
        if condition != "labels":
            raise ValueError(f"Expected condition='labels', or a tensor (m, k); found {condition!r}.")
        return target.one_hot()
    if condition.ndim != 2 or len(condition) != len(target):
        raise ValueError(
            f"Expected a condition (m, k) with a row for each of {len(target)} target images; found shape "
            f"{tuple(condition.shape)}."
        )
    return condition.to(target.device, torch.float32)


def _check_sizes(source: Images | None, target: Images, batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"Expected batch_size >= 1; found {batch_size}.")
    for side, images in (("source", source), ("target", target)):
        if images is not None and len(images) < 2:
            raise ValueError(f"Expected at least two {side} images; found {len(images)}: there is nothing to learn.")


def _check_pair(source: Images, target: Images) -> None:
    if source.shape != target.shape:
        (c0, h0, w0), (c1, h1, w1) = source.shape, target.shape
        raise ValueError(
            f"Expected source and target images of one shape; found {c0} x {h0} x {w0} and {c1} x {h1} x {w1}. Read "
            "both with the same `size` and `channels`."
        )
    if source.device != target.device:
        raise ValueError(f"Expected both sets on one device; found {source.device} and {target.device}. Use `.to()`.")
    if source is target or _same(source, target):
        raise ValueError("Source and target are the same images. Give two sets, or source=None to start from noise.")


def _same(source: Images, target: Images) -> bool:
    if isinstance(source, ImageSet) and isinstance(target, ImageSet):
        return torch.equal(source.images, target.images)
    if isinstance(source, ImageStream) and isinstance(target, ImageStream):
        # By name, and one look at the disk: the same folder may be written in two ways.
        return source.names == target.names and source.paths[0].samefile(target.paths[0])
    return False


def _check_classes(source: Images, target: Images) -> None:
    if source.labels is None or target.labels is None:
        raise ValueError("Expected labels on both sides for `within_labels`; found none on one of them.")
    if source.classes != target.classes:
        raise ValueError(f"Expected the same classes on both sides; found {source.classes} and {target.classes}.")
    names = source.classes or ()
    present = [{names[label] for label in side.unique().tolist()} for side in (source.labels, target.labels)]
    if alone := sorted(present[0] ^ present[1]):
        raise ValueError(f"Expected every class on both sides; {alone} are on one side only. Leave them out: `only`.")
