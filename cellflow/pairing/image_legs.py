"""Batches of the pairs of legs of images: each leg is one condition, and one group within it."""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cellflow.couplings import Coupling, CouplingLike, Independent, resolve
from cellflow.couplings.coupling import over
from cellflow.images.sets import Images
from cellflow.pairing.condition_legs import ConditionLeg, balanced
from cellflow.pairing.features import Features, lookups
from cellflow.pairing.image_batches import ImageBatches, from_images, from_noise, matched_with_noise
from cellflow.pairing.image_checks import check_pair, check_sizes, in_files
from cellflow.pairing.leg_pairs import LegPairs, matched
from cellflow.pairing.masses import Ends
from cellflow.pairing.rows import Lookup, RowMatching, as_points
from cellflow.paths import GaussianPath, diffusion_of
from cellflow.seeds import draw_seed
from cellflow.signature import checked_but

log = logging.getLogger(__name__)


@checked_but("source", "target", "legs", "coupling", "path")
def image_leg_batches(
    source: Images | None,
    target: Images,
    legs: Sequence[ConditionLeg],
    conditions: Tensor,
    *,
    coupling: CouplingLike = "exact",
    batch_size: int = 128,
    generator: torch.Generator,
    features: Features | None = None,
    flip: bool = False,
    ot_batch_size: int | str = "auto",
    path: GaussianPath | str | None = None,
) -> ImageBatches:
    """Pair images of each leg with images, or with Gaussian noise, in an endless stream of batches.

    Each leg has its own plan; plans are solved in parallel. Conditions have equal shares of the pairs, and within a
    condition each group has its share of the target images. Images that several legs share are not copied.

    Parameters
    ----------
    source
        Images, or ``None`` for standard Gaussian noise, fresh in every batch.
    target
        Images of the same shape.
    legs
        Which of them are paired: rows of ``source`` and rows of ``target``. With noise as the source the former are
        ignored.
    conditions
        What a field sees of each condition, ``(k, width)``.
    coupling, features, flip, path
        As for `image_batches`.
    batch_size
        Pairs in a batch, of all legs together.
    generator
        Seeds pairs, noise, flips and principal components.
    ot_batch_size
        Number of images of each side of a leg to match at once, as for `image_batches`.

    Raises
    ------
    ValueError
        As for `image_batches`; when a leg has no images on a side.
    ConvergenceError
        When the plan of a leg is not found; a note names the leg.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> digits = cf.datasets.digits()
    >>> zeros, ones, twos = (digits.only(name) for name in "012")
    >>> both = cf.images.ImageSet(torch.cat([ones.images, twos.images]))
    >>> first, second = torch.arange(len(both)).split([len(ones), len(twos)])
    >>> legs = [
    ...     ConditionLeg("one", torch.arange(len(zeros)), first, condition=0),
    ...     ConditionLeg("two", torch.arange(len(zeros)), second, condition=1),
    ... ]
    >>> rng = cf.generator(seed=0)
    >>> batches = image_leg_batches(zeros, both, legs, torch.eye(2), batch_size=8, features=4, generator=rng)
    >>> next(iter(batches)).condition.sum(dim=0)
    tensor([4., 4.])
    """
    given = resolve(coupling)
    coupling = over(given, 1.0, diffusion_of(path))
    if coupling != given and not (features is None or isinstance(features, int)):
        raise ValueError(f"{given} takes its noise from the path between images, in pixels: leave out `features`.")
    check_sizes(source, target, batch_size)
    legs = [*legs]
    row = torch.full((len(target),), -1)
    for leg in legs:
        row[leg.target] = leg.condition
    log.info("pairing %d legs of %d conditions, balanced over these", len(legs), len({leg.condition for leg in legs}))
    if source is None:
        size = matched_with_noise(coupling, batch_size, ot_batch_size)
        matchings = [RowMatching(Independent(), (1, len(leg.target)), target.device) for leg in legs]
        legs = [ConditionLeg(leg.name, torch.zeros(1).long(), leg.target, condition=leg.condition) for leg in legs]
        rows = _rows(matchings, legs, size, generator, "whole", target.device)
        return ImageBatches(
            from_noise(target, coupling, rows, batch_size, generator, flip), batch_size, conditions, row
        )
    check_pair(source, target)
    matchings = _matchings(source, target, legs, coupling, features, generator)
    if ot_batch_size == "whole" and any(one.reads_much for one in matchings) and in_files(source, target):
        raise ValueError(
            f"One plan over each whole leg would hold up to {max(one.read for one in matchings):,} pixels in memory, "
            "although they were left in files to avoid this. Set `ot_batch_size` to 'auto' or a number, or match "
            "principal "
            "components, as in features=50."
        )
    rows = _rows(matchings, legs, batch_size, generator, ot_batch_size, source.device)
    return ImageBatches(from_images(source, target, rows, generator, flip), batch_size, conditions, row)


def _matchings(
    source: Images,
    target: Images,
    legs: Sequence[ConditionLeg],
    coupling: Coupling,
    features: Features | None,
    generator: torch.Generator,
) -> list[RowMatching]:
    """Return how the images of each leg are matched: by their features."""
    if not coupling.uses_states:
        if features is not None:
            raise ValueError(f"{coupling} does not use images: leave out `features`.")
        look0: Lookup = as_points
        look1: Lookup = as_points
    else:
        look0, look1 = lookups(source, target, features, generator=generator)
    pixels = math.prod(target.shape) if features is None and coupling.uses_states else 0
    return [
        RowMatching(
            coupling,
            (len(leg.source), len(leg.target)),
            source.device,
            source=lambda i, leg=leg: look0(leg.source.to(i.device)[i]),  # type: ignore[misc]
            target=lambda j, leg=leg: look1(leg.target.to(j.device)[j]),  # type: ignore[misc]
            read=pixels * (len(leg.source) + len(leg.target)),
        )
        for leg in legs
    ]


def _rows(
    matchings: Sequence[RowMatching],
    legs: Sequence[ConditionLeg],
    batch_size: int,
    generator: torch.Generator,
    ot_batch_size: int | str,
    device: torch.device,
) -> LegPairs:
    shares = torch.tensor(balanced(legs), dtype=torch.float64)
    names = [leg.name for leg in legs]
    solved = matched(
        matchings,
        names,
        batch_size=batch_size,
        generator=generator,
        ot_batch_size=ot_batch_size,
        ends=[Ends() for _ in legs],
    )
    rows = [(leg.source.to(device), leg.target.to(device)) for leg in legs]
    return LegPairs(solved, rows, shares / shares.sum(), batch_size, draw_seed(generator))
