"""Which images a run leaves out of its fit, to be scored."""

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.cli.settings import Settings
from cellflow.images import ImageSet, ImageStream
from cellflow.images.tiles import field_of
from cellflow.renamed import warn
from cellflow.report import Split
from cellflow.seeds import generator

if TYPE_CHECKING:
    from torch import Generator

log = logging.getLogger("cellflow")
LEAST_FITTED, LEAST_HELD = 2, 3
"""Least images to fit and to score: fewer than three cannot be shuffled."""


def hold_out(images: ImageSet | ImageStream, cfg: Settings) -> Split[Any]:
    """Hold out a share of the images, for the scores; the same ones for the same seed.

    Raises
    ------
    ValueError
        When the share is not between 0 and 1, or leaves too few images to fit or to score.
    """
    if not 0 < cfg.holdout < 1:
        raise ValueError(
            f"Expected `holdout`, the share held out for the scores, between 0 and 1; found {cfg.holdout}."
        )
    rng = generator(seed=int(cfg.seed))
    tiles = cfg.get("fit") == "tiles" and cfg.size is not None
    whole = _by_field(images, cfg.holdout, rng) if tiles else None
    if whole is not None:
        return whole
    fitted = round((1 - cfg.holdout) * len(images))
    if fitted < LEAST_FITTED or len(images) - fitted < LEAST_HELD:
        enough = math.ceil(100 * LEAST_HELD / len(images)) / 100 if len(images) >= LEAST_FITTED + LEAST_HELD else None
        raise ValueError(
            f"Expected at least {LEAST_FITTED} images to fit and {LEAST_HELD} held out for the scores; found {fitted} "
            f"and {len(images) - fitted} of {len(images)}, with holdout={cfg.holdout}. Give more images"
            + (f", or `holdout={enough:g}`." if enough else ".")
        )
    if tiles:
        warn(
            "There are too few fields to hold out whole ones for the scores: tiles of one field, which look alike, "
            "are both fitted and scored. Scores are too optimistic for new fields."
        )
    return Split(*images.split(1 - cfg.holdout, generator=rng))


def _by_field(images: ImageSet | ImageStream, share: float, rng: "Generator") -> Split[Any] | None:
    """Leave out whole fields, as tiles of one look alike: as many as have the share of tiles, and enough to score.

    Returns ``None`` where that leaves too few to fit, as with one field.
    """
    import torch

    names, fields = np.unique([field_of(name) for name in images.names or ()], return_inverse=True)
    sizes = np.bincount(fields, minlength=len(names))
    order = torch.randperm(len(names), generator=rng).numpy()
    enough = np.cumsum(sizes[order]) >= max(LEAST_HELD, round(share * len(images)))
    if not enough.any():
        return None
    out = np.isin(fields, order[: int(enough.argmax()) + 1])
    if (~out).sum() < LEAST_FITTED:
        return None
    left = len(set(fields[out]))
    log.info("%d of %d fields are held out for the scores, %d of %d tiles", left, len(names), out.sum(), len(out))
    return Split(*(images.take(torch.from_numpy(np.flatnonzero(some))) for some in (~out, out)))
