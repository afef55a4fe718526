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
from cellflow.images.sets import Images
from cellflow.pairing.features import Features, lookups
from cellflow.pairing.image_checks import check_classes, check_pair, check_sizes, in_files
from cellflow.pairing.leg_pairs import LegPairs
from cellflow.pairing.masses import Ends
from cellflow.pairing.rows import RowMatching, RowPairs, ahead, pair_rows
from cellflow.paths import GaussianPath, diffusion_of
from cellflow.seeds import draw_seed, generator_at
from cellflow.signature import checked, checked_but

Loaded = tuple[Tensor, Tensor, Tensor]
"""Source images, target images, and the rows of the latter."""
Rows = RowPairs | LegPairs
"""Where paired rows come from: both whole sets, or legs of them."""

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
        Number of images of each set to match at once, as for `paired_batches`. Against noise: the minimum number to
        match at once; ``"auto"`` is the batch itself, as is customary.
    path
        Path that joins the pairs, as for `paired_batches`.

    Returns
    -------
    batches
        Iterate over them, or from any step on with ``batches.iterate(step)``: a step's batch is always the same.

    Raises
    ------
    ValueError
        When there is only one image, both sides are the same images, their shapes or classes differ, a setting does not
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
    check_sizes(source, target, batch_size)
    asked = _condition(target, condition)
    pairs: _FromImages | _FromNoise
    if source is None:
        if features is not None or within_labels:
            raise ValueError("Noise has no features and no classes: leave out `features` and `within_labels`.")
        matched = matched_with_noise(coupling, batch_size, ot_batch_size)
        # One point on the other side: only the order of the images is drawn here, each as often as any other.
        order = RowMatching(Independent(), (1, len(target)), target.device)
        pairs = from_noise(target, coupling, _rows_of(order, matched, generator), batch_size, generator, flip)
    else:
        check_pair(source, target)
        if within_labels:
            check_classes(source, target)
        matching = _matching(source, target, coupling, features, within_labels, generator)
        if ot_batch_size == "whole" and matching.reads_much and in_files(source, target):
            raise ValueError(
                f"One plan over both whole sets would hold their {matching.read:,} pixels in memory, although they "
                "were left in files to avoid this. Set `ot_batch_size` to 'auto' or a number, or match principal "
                "components, as "
                "in features=50."
            )
        rows = _rows_of(matching, batch_size, generator, ot_batch_size)
        pairs = from_images(source, target, rows, generator, flip)
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

    def __init__(
        self,
        pairs: "_FromImages | _FromNoise",
        batch_size: int,
        condition: Tensor | None,
        row: Tensor | None = None,
    ) -> None:
        self._pairs, self.batch_size, self._condition, self._row = pairs, batch_size, condition, row

    @property
    def plans(self) -> list[Plan | None]:
        """The plan over both whole sets, or ``None`` if parts of them, or noise, are matched."""
        return self._pairs.plans

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate(0)

    @checked
    def iterate(self, start: int) -> Iterator[Batch]:
        """Yield the batches of steps ``start``, ``start + 1`` and so on; threads work ahead."""
        with closing(self._pairs.iterate(start)) as loaded:
            for x0, x1, rows in loaded:
                yield Batch(x0, x1, condition=None if self._condition is None else self._seen(self._condition, rows))

    def _seen(self, condition: Tensor, rows: Tensor) -> Tensor:
        """Return what a field sees of target images: a row for each of them, or for each condition."""
        rows = rows if self._row is None else self._row[rows.to(self._row.device)]
        return condition[rows.to(condition.device)]


@dataclass(frozen=True, eq=False)
class _FromImages:
    """Pairs of images, read from memory or files, and mirrored."""

    source: Images
    target: Images
    rows: Rows
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
            yield from _in_threads(tasks) if in_files(self.source, self.target) else (task() for task in tasks)

    def _load(self, step: int, i: Tensor, j: Tensor, *_: Tensor) -> Loaded:
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
    rows: Rows
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
            tasks = (partial(self._match, block, j) for block, (_, j, *_) in enumerate(stream, first))
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


def from_images(source: Images, target: Images, rows: Rows, generator: torch.Generator, flip: bool) -> _FromImages:
    """Return the pairs of images of which the rows are paired."""
    return _FromImages(source, target, rows, draw_seed(generator), flip)


def from_noise(
    target: Images, coupling: Coupling, rows: Rows, batch_size: int, generator: torch.Generator, flip: bool
) -> _FromNoise:
    """Return the pairs of noise and the images whose rows are drawn, as many at a time as are matched."""
    return _FromNoise(target, coupling, rows, batch_size, draw_seed(generator), flip)


def matched_with_noise(coupling: Coupling, batch_size: int, ot_batch_size: int | str) -> int:
    """Return how many images to match with noise at once: one batch, or several.

    Raises
    ------
    ValueError
        When that is neither a number nor ``"auto"``.

    Examples
    --------
    >>> matched_with_noise(resolve("exact"), 8, 20)
    24
    """
    if isinstance(ot_batch_size, str) and ot_batch_size != "auto":
        raise ValueError(f"Expected a number of images to match with noise, or 'auto'; found {ot_batch_size!r}.")
    asked = batch_size if isinstance(ot_batch_size, str) else max(ot_batch_size, batch_size)
    return batch_size * math.ceil(asked / batch_size) if coupling.uses_states else batch_size


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
            raise ValueError(f"{coupling} does not use images: leave out `features`.")
        return RowMatching(coupling, sizes, source.device, groups=groups)
    read = math.prod(target.shape) * sum(sizes) if features is None else 0
    return RowMatching(
        coupling, sizes, source.device, *lookups(source, target, features, generator=generator), groups, read
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
