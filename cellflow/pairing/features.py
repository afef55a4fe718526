"""Features by which images are matched: pixels, principal components or others, looked up by row."""

import math
from collections.abc import Callable
from numbers import Integral

import torch
from torch import Tensor

from cellflow.cells.states import StatesLike, as_states
from cellflow.images.sets import Images
from cellflow.pairing.rows import Lookup
from cellflow.seeds import seeded
from cellflow.shapes import finite

Features = int | Callable[[Tensor], Tensor] | tuple[StatesLike, StatesLike]

_AT_ONCE = 256
_FITTED = 10_000  # images a side to which principal components are fitted, at most
_FITTED_PIXELS = 2**27  # their pixels, at most: 0.5 GB
_SPARE = 10  # components beyond those asked for, that make the random projection accurate


def lookups(
    source: Images, target: Images, features: Features | None, *, generator: torch.Generator
) -> tuple[Lookup, Lookup]:
    """Return the functions that look up the features of source and target images.

    Parameters
    ----------
    source, target
        The images.
    features
        ``None`` for their pixels; a number of principal components of both sets together; a function of images
        ``(n, c, h, w)`` from -1 to 1; or the features of both sides, ``(n, d)`` and ``(m, d)``.
    generator
        Seeds the search for the components.
    """
    if features is None:
        return _pixels(source), _pixels(target)
    if isinstance(features, Integral):
        function = _components(source, target, int(features), generator)
        found = (_of_all(source, function), _of_all(target, function))
    elif callable(features) and not isinstance(features, type):
        found = (_of_all(source, features), _of_all(target, features))
    else:
        if not isinstance(features, tuple | list) or len(features) != 2:
            raise TypeError(
                "Expected `features` as a number of components, a function of images, or a pair of arrays, for source "
                f"and target; found {type(features).__name__}."
            )
        x0, x1 = (finite(as_states(side, what="`features`"), what="`features`") for side in features)
        found = (x0.to(source.device), x1.to(target.device))
    for side, images, values in zip(("source", "target"), (source, target), found, strict=True):
        if len(values) != len(images):
            raise ValueError(f"Expected features for each of {len(images)} {side} images; found {len(values)}.")
    return found[0].__getitem__, found[1].__getitem__


def _pixels(images: Images) -> Lookup:
    return lambda rows: images.scaled(rows).flatten(1)


@torch.no_grad()
def _of_all(images: Images, function: Callable[[Tensor], Tensor]) -> Tensor:
    rows = torch.arange(len(images), device=images.device)
    return torch.cat([function(images.scaled(part)).flatten(1) for part in rows.split(_AT_ONCE)])


def _components(source: Images, target: Images, n: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Return the projection of images on the first principal components of both sets together.

    Source
    ------
    Halko, Martinsson and Tropp 2011, algorithm 5.1.
    """
    some = torch.cat([_even_part(images) for images in (source, target)])
    if not 0 < n <= min(some.shape):
        raise ValueError(
            f"Expected between 1 and {min(some.shape)} principal components of {some.shape[0]} images with "
            f"{some.shape[1]} pixels; found features={n}."
        )
    mean = some.mean(dim=0)
    with seeded(generator):  # torch's random projection only knows the global state, that of the CPU here
        _, _, axes = torch.svd_lowrank((some - mean).cpu(), q=min(n + _SPARE, *some.shape), niter=4)
    axes = axes[:, :n].to(mean)
    return lambda images: (images.flatten(1) - mean) @ axes


def _even_part(images: Images) -> Tensor:
    """Return the pixels of at most ``_FITTED`` images, fewer where they are large, evenly spaced over the set."""
    most = max(1, min(_FITTED, _FITTED_PIXELS // math.prod(images.shape)))
    step = -(-len(images) // most)
    return images.scaled(torch.arange(0, len(images), step, device=images.device)).flatten(1)
