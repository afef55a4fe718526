"""Batches of paired images: from images to images, or from noise to images."""

import math
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.couplings import Coupling, CouplingLike, Independent, Plan, resolve
from cellflow.couplings.coupling import over
from cellflow.images.sets import Images, ImageSet
from cellflow.images.streams import ImageStream
from cellflow.pairing.features import Features, lookups
from cellflow.pairing.masses import Ends
from cellflow.pairing.rows import RowMatching, RowPairs, ahead, pair_rows
from cellflow.paths import GaussianPath, diffusion_of
from cellflow.seeds import draw_seed, generator_at
from cellflow.signature import checked, checked_but

Loaded = tuple[Tensor, Tensor, Tensor]
"""Source images, target images, and the rows of the latter."""

_SPARE = 2
"""Blocks that are loaded or matched while others are trained on."""


@checked_but("source", "target", "coupling", "path")
def image_batches(
    source: Images | None,
    target: Images,
    *,
    coupling: CouplingLike = "exact",
    batch_size: int = 128,
    generator: torch.Generator,
    features: Features | None = None,
    within_labels: bool = False,
    condition: Tensor | str | None = None,
    flip: bool = False,
    ot_batch_size: int | str = "auto",
    path: GaussianPath | str | None = None,
) -> "ImageBatches":
    """Pair images with images, or with Gaussian noise, in an endless stream of batches.

    Parameters
    ----------
    source
        Images, or ``None`` for standard Gaussian noise, fresh in every batch.
    target
        Images of the same shape.
    coupling
        How they are matched: a coupling, a function of two clouds, or the name of a coupling.
    batch_size
        Pairs per batch.
    generator
        Seeds pairs, noise, flips and principal components.
    features
        Features by which images are matched: ``None`` for pixels from -1 to 1; a number of principal components of both
        sets together; a function of images ``(n, c, h, w)``, such as a network; or the features of both sides.
    within_labels
        Whether to pair only images of one class. The fraction of pairs in each class is then its fraction of the
        target.
    condition
        Condition of the field: ``"labels"`` for the class of the target, one-hot; or ``(m, k)``, a row for each target
        image.
    flip
        Whether to mirror each pair at random, both images alike.
    ot_batch_size
        Images of each set that are matched at once, as for `paired_batches`. Against noise: the least number that is
        matched at once; ``"auto"`` is the batch itself, as is customary.
    path
        Path that the pairs are joined by, as for `paired_batches`.

    Returns
    -------
    batches
        Iterate over them, or from any step on with ``batches.iterate(step)``: a step's batch is always the same.

    Raises
    ------
    ValueError
        When there is one image only, both sides are the same images, their shapes or classes differ, a setting does not
        apply to noise, or one plan over whole sets would read too many files into memory.

    Notes
    -----
    Noise that is matched with images of all classes depends on the class, but a sampler draws it independently: use
    ``coupling="independent"`` to generate images of a given class (Cheng and Schwing 2025, "The curse of conditions").

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
    given = resolve(coupling)
    coupling = over(given, 1.0, diffusion_of(path))
    if coupling != given and not (features is None or isinstance(features, int)):
        raise ValueError(f"{given} takes its noise from the path between images, in pixels: leave out `features`.")
    _check_sizes(source, target, batch_size)
    asked = _condition(target, condition)
    pairs: _FromImages | _FromNoise
    if source is None:
        if features is not None or within_labels:
            raise ValueError("Noise has no features and no classes: leave out `features` and `within_labels`.")
        pairs = _from_noise(target, coupling, batch_size, generator, ot_batch_size, flip)
    else:
        _check_pair(source, target)
        if within_labels:
            _check_classes(source, target)
        matching = _matching(source, target, coupling, features, within_labels, generator)
        if ot_batch_size == "whole" and matching.reads_much and _in_files(source, target):
            raise ValueError(
                f"One plan over both whole sets would hold their {matching.read:,} pixels in memory, which they are "
                "left in files to avoid. Set `ot_batch_size` to 'auto' or a number, or match principal components, as "
                "in features=50."
            )
        rows = _rows_of(matching, batch_size, generator, ot_batch_size)
        pairs = _FromImages(source, target, rows, draw_seed(generator), flip)
    return ImageBatches(pairs, batch_size, asked)


@checked
class ImageBatches:
    """An endless stream of batches of paired images; the batch of a step is the same at every iteration.

    Made by `image_batches`.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> batches = image_batches(None, cf.datasets.digits(), batch_size=4, generator=cf.generator(seed=0))
    >>> a, b = (next(batches.iterate(7)) for _ in range(2))
    >>> torch.equal(a.x0, b.x0) and torch.equal(a.x1, b.x1)
    True
    """

    def __init__(self, pairs: "_FromImages | _FromNoise", batch_size: int, condition: Tensor | None) -> None:
        self._pairs, self.batch_size, self._condition = pairs, batch_size, condition

    @property
    def plans(self) -> list[Plan | None]:
        """The plan over both whole sets, or ``None`` where parts of them are matched, or noise."""
        return self._pairs.plans

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate(0)

    @checked
    def iterate(self, start: int) -> Iterator[Batch]:
        """Yield the batches of steps ``start``, ``start + 1`` and so on; threads work ahead."""
        with closing(self._pairs.iterate(start)) as loaded:
            for x0, x1, rows in loaded:
                condition = None if self._condition is None else self._condition[rows.to(self._condition.device)]
                yield Batch(x0, x1, condition=condition)


@dataclass(frozen=True, eq=False)
class _FromImages:
    """Pairs of images, read from memory or files, and mirrored."""

    source: Images
    target: Images
    rows: RowPairs
    seed: int
    flip: bool

    @property
    def plans(self) -> list[Plan | None]:
        return self.rows.plans

    def iterate(self, start: int) -> Generator[Loaded]:
        """Yield the pairs of steps ``start``, ``start + 1`` and so on."""
        with closing(self.rows.iterate(start)) as stream:
            tasks = (partial(self._load, step, *pairs) for step, pairs in enumerate(stream, start))
            # What is in memory is there at once; files are read while others are trained on.
            yield from _in_threads(tasks) if _in_files(self.source, self.target) else (task() for task in tasks)

    def _load(self, step: int, i: Tensor, j: Tensor) -> Loaded:
        x0, x1 = self.source.scaled(i), self.target.scaled(j)
        if self.flip:
            mirrored = _coins(len(i), generator_at(self.seed, step), x0)
            x0, x1 = (torch.where(mirrored, x.flip(-1), x) for x in (x0, x1))
        return x0, x1, j


@dataclass(frozen=True, eq=False)
class _FromNoise:
    """Pairs of fresh noise and images, matched some batches at a time."""

    target: Images
    coupling: Coupling
    rows: RowPairs
    batch_size: int
    seed: int
    flip: bool

    @property
    def plans(self) -> list[Plan | None]:
        return [None]

    def iterate(self, start: int) -> Generator[Loaded]:
        """Yield the pairs of steps ``start``, ``start + 1`` and so on."""
        first, skipped = divmod(start, self.rows.batch_size // self.batch_size)
        with closing(self.rows.iterate(first)) as stream:
            tasks = (partial(self._match, block, j) for block, (_, j) in enumerate(stream, first))
            for loaded in _in_threads(tasks):
                parts = list(zip(*(side.split(self.batch_size) for side in loaded), strict=True))
                yield from parts[skipped:]
                skipped = 0

    def _match(self, block: int, j: Tensor) -> Loaded:
        x1 = self.target.scaled(j)
        generator = generator_at(self.seed, block, device=x1.device)
        if self.flip:
            x1 = torch.where(_coins(len(j), generator, x1), x1.flip(-1), x1)
        noise = torch.randn(x1.shape, generator=generator, device=x1.device, dtype=torch.float32)
        if not self.coupling.uses_states:
            return noise, x1, j
        plan = self.coupling(noise.flatten(1), x1.flatten(1))
        left, right = plan.sample(len(j), generator=generator, replace=False)
        return noise[left], x1[right], j[right.to(j.device)]


def _coins(n: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Return ``(n, 1, 1, 1)`` random truth values, true half of the time."""
    return (torch.rand(n, generator=generator, device=generator.device, dtype=torch.float32) < 0.5).to(like.device)[
        :, None, None, None
    ]


def _in_threads(tasks: Iterator[Callable[[], Loaded]]) -> Iterator[Loaded]:
    """Yield what the tasks return, in order, while threads work on the next ones."""
    pool = ThreadPoolExecutor(_SPARE)
    try:
        yield from ahead(tasks, pool, spare=_SPARE)
    finally:
        pool.shutdown(cancel_futures=True)


def _rows_of(
    matching: RowMatching, batch_size: int, generator: torch.Generator, ot_batch_size: int | str = "whole"
) -> RowPairs:
    return pair_rows(
        [matching],
        firsts=[(0, 0)],
        batch_size=batch_size,
        generator=generator,
        ot_batch_size=ot_batch_size,
        ends=[Ends()],
    )


def _from_noise(
    target: Images,
    coupling: Coupling,
    batch_size: int,
    generator: torch.Generator,
    ot_batch_size: int | str,
    flip: bool,
) -> _FromNoise:
    if isinstance(ot_batch_size, str) and ot_batch_size != "auto":
        raise ValueError(f"Expected a number of images to match with noise, or 'auto'; found {ot_batch_size!r}.")
    asked = batch_size if isinstance(ot_batch_size, str) else max(ot_batch_size, batch_size)
    matched = batch_size * math.ceil(asked / batch_size) if coupling.uses_states else batch_size
    # One point on the other side: only the order of the images is drawn here, each as often as any other.
    order = RowMatching(Independent(), (1, len(target)), target.device)
    return _FromNoise(target, coupling, _rows_of(order, matched, generator), batch_size, draw_seed(generator), flip)


def _matching(
    source: Images,
    target: Images,
    coupling: Coupling,
    features: Features | None,
    within_labels: bool,
    generator: torch.Generator,
) -> RowMatching:
    """Return how the rows of images are matched: by their features, within their class if asked."""
    groups, sizes = None, (len(source), len(target))
    if within_labels and source.labels is not None and target.labels is not None:
        groups = source.labels, target.labels
    if not coupling.uses_states:
        if features is not None:
            raise ValueError(f"{coupling} does not look at images: leave out `features`.")
        return RowMatching(coupling, sizes, source.device, groups=groups)
    read = math.prod(target.shape) * sum(sizes) if features is None else 0
    return RowMatching(
        coupling, sizes, source.device, *lookups(source, target, features, generator=generator), groups, read
    )


def _in_files(source: Images, target: Images) -> bool:
    return isinstance(source, ImageStream) or isinstance(target, ImageStream)


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
        lacking = [name for name in ("scaled", "shape", "__len__") if not hasattr(images, name)]
        if lacking and (images is not None or side == "target"):
            raise TypeError(
                f"Expected `{side}` as a set of images; found {type(images).__name__}. See `cf.images.read_images`."
            )
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
