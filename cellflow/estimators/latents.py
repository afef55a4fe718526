"""Flows in latents: the autoencoder of an estimator of images, and images on their way into it and back."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cellflow.couplings import Independent
from cellflow.estimators.domains import Domain, Points, digest
from cellflow.estimators.portions import at_once
from cellflow.images.sets import ImageSet
from cellflow.images.streams import ImageStream
from cellflow.modes import single_precision
from cellflow.networks.autoencoder import Autoencoder, DiffusersAutoencoder, from_folder
from cellflow.pairing.image_batches import image_batches
from cellflow.seeds import generator_at, seeded
from cellflow.training import Recipe, Run
from cellflow.training.checkpoint import STATE, load_tensors, refuse_existing
from cellflow.training.reconstruction import FOLDER, fit_autoencoder

Known: TypeAlias = Autoencoder | DiffusersAutoencoder | None
"""The autoencoder of a fit; ``None`` of a flow of pixels."""
TRAIN = "train"
"""The setting for one that is trained on the images of the fit."""
ENCODING = 7
"""Number of the random numbers of its training, under the seed."""
STANDARDISED = 1024
"""Images of each set, at most, on which mean and spread of latents are measured."""
HALVINGS = {256: 3, 32: 2, 0: 1}
"""How often sides are halved, by the longest one."""
FORMER_HALVINGS = {128: 3, 32: 2, 0: 1}
"""The same up to version 0.2.0, without patches."""
PATCH = 4
"""Side of the squares of pixels that become channels first, as far as the halvings go."""
log = logging.getLogger(__name__)


def check_setting(autoencoder: str | Path | None, *, flip: bool, features: object = None) -> None:
    """Refuse settings that latents have no use for.

    Raises
    ------
    ValueError
        When images are to be mirrored, or matched by a network: latents cannot be.

    Examples
    --------
    >>> check_setting("train", flip=False)
    """
    if autoencoder is None:
        return
    if flip:
        raise ValueError("Latents cannot be mirrored as images are. Leave `flip` out, or `autoencoder`.")
    if isinstance(features, str):
        raise ValueError(f"The features {features!r} are those of images, not of latents. Leave out `features`.")


def autoencoder_of(
    setting: str | Path | None,
    images: Sequence[Domain],
    *,
    steps: int,
    batch_size: int,
    recipe: Recipe | None,
    seed: int,
    run: Run,
) -> Known:
    """Return the autoencoder that a setting specifies, trained on images if it says so.

    Parameters
    ----------
    setting
        The setting.
    images
        One or two sets of images.
    steps, batch_size, recipe, seed, run
        Those of the flow: it takes as many steps of as many images, half of them from each of two sets.

    Raises
    ------
    ValueError
        When there are no images, or they have other channels or another size than the autoencoder.
    """
    if setting is None:
        return None
    real = [some for some in images if isinstance(some, ImageSet | ImageStream)]
    if len(real) < len(images):
        raise ValueError(
            "An autoencoder needs images (bytes, or 16 bits with levels); found other numbers. Leave it out."
        )
    if run.folder is not None and not run.resume:
        refuse_existing(Path(run.folder) / STATE)
    shape, device = real[0].shape, real[0].device
    rng = generator_at(seed, ENCODING)
    found: Autoencoder | DiffusersAutoencoder
    if setting != TRAIN:
        found = from_folder(setting).to(device)
        check_fits(found, shape)
    else:
        with seeded(rng), single_precision():
            former = _begun_before_patches(run, shape)
            found = (former or default_autoencoder(shape)).to(device)
        check_fits(found, shape)
        log.info("training an autoencoder of %d x %d pixels first, for %d steps; then the flow", *shape[1:], steps)
        first, last = (None, real[0]) if len(real) == 1 else (real[0], real[1])
        # A step sees as many images as one of the flow, in versions before 0.3 as many of each set.
        each = batch_size if former else max(batch_size // len(real), 1)
        batches = image_batches(first, last, coupling=Independent(), batch_size=each, generator=rng)
        about = {f"images {number}": digest(some) for number, some in enumerate(real)}
        fit_autoencoder(
            found, batches, both=len(real) == 2, steps=steps, generator=rng, recipe=recipe, run=run, about=about
        )
    found.eval().requires_grad_(False)
    _standardise(found, real)
    return found


def run_after(run: Run) -> Run:
    """Return the run of a flow, which starts once an interrupted training of its autoencoder has resumed."""
    if run.folder is None or (Path(run.folder) / STATE).exists() or not (Path(run.folder) / FOLDER / STATE).exists():
        return run
    return replace(run, resume=False)


def default_autoencoder(shape: tuple[int, ...]) -> Autoencoder:
    """Return an untrained autoencoder for images ``(channels, height, width)``.

    Examples
    --------
    >>> found = default_autoencoder((3, 256, 256))
    >>> found.factor, found.patch
    (8, 4)
    """
    halvings = halvings_for(shape)
    return Autoencoder(shape[0], halvings=halvings, patch=min(PATCH, 2**halvings))


def _begun_before_patches(run: Run, shape: tuple[int, ...]) -> Autoencoder | None:
    """Return the autoencoder of a run that goes on and was begun by version 0.2.0 or earlier; ``None`` of others."""
    state = None if run.folder is None or not run.resume else Path(run.folder) / FOLDER / STATE
    if state is None or not state.exists():
        return None
    first = load_tensors(state)[0].get("field.encoder.0.weight")
    if first is None or first.shape[1] != shape[0]:
        return None
    return Autoencoder(shape[0], halvings=next(n for side, n in FORMER_HALVINGS.items() if max(shape[1:]) >= side))


def halvings_for(shape: tuple[int, ...]) -> int:
    """Return how often both sides of images ``(channels, height, width)`` are halved.

    Examples
    --------
    >>> [halvings_for((1, side, side)) for side in (16, 64, 256)]
    [1, 2, 3]
    """
    return next(count for side, count in HALVINGS.items() if max(shape[1:]) >= side)


def check_fits(autoencoder: Autoencoder | DiffusersAutoencoder, shape: tuple[int, ...]) -> None:
    """Refuse an autoencoder with other channels, or with a factor that does not divide the sides.

    Raises
    ------
    ValueError
        Naming both.
    """
    if autoencoder.channels != shape[0]:
        raise ValueError(
            f"The autoencoder is of images of {autoencoder.channels} channels; these have {shape[0]}. Read them with "
            f"`channels={autoencoder.channels}`, or train your own: `autoencoder='train'`."
        )
    if any(side % autoencoder.factor for side in shape[1:]):
        raise ValueError(
            f"The autoencoder makes sides {autoencoder.factor} times smaller; found {shape[1]} x {shape[2]}. Read "
            f"images with a `size` divisible by {autoencoder.factor}."
        )


def state_shape(autoencoder: Known, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of what is carried: of latents, or of the images themselves.

    Examples
    --------
    >>> state_shape(Autoencoder(1, halvings=2), (1, 32, 16)), state_shape(None, (3,))
    ((8, 8, 4), (3,))
    """
    if autoencoder is None:
        return shape
    return autoencoder.latents, shape[1] // autoencoder.factor, shape[2] // autoencoder.factor


@torch.no_grad()
def encoded(autoencoder: Known, domain: Any) -> Any:
    """Return images as latents, with their classes; unchanged without an autoencoder."""
    if autoencoder is None:
        return domain
    few = at_once(None, domain.shape, autoencoder.shift.device)
    parts = [latents(autoencoder, domain.scaled(some)) for some in torch.arange(len(domain)).split(few)]
    return Points(torch.cat(parts), domain.labels, domain.classes)


@torch.no_grad()
def latents(autoencoder: Known, x: Tensor) -> Tensor:
    """Return pixels ``(n, c, h, w)`` as latents, a few images at a time; unchanged without an autoencoder."""
    if autoencoder is None:
        return x
    few = at_once(None, tuple(x.shape[1:]), autoencoder.shift.device)
    return torch.cat([autoencoder.encode(part.to(autoencoder.shift)) for part in x.split(few)])


@torch.no_grad()
def pixels(autoencoder: Known, states: Tensor) -> Tensor:
    """Return what was carried, ``(..., c, h, w)`` on the CPU, as pixels."""
    if autoencoder is None:
        return states
    flat, (height, width) = states.flatten(0, -4), states.shape[-2:]
    shape = states.shape[-3], autoencoder.factor * height, autoencoder.factor * width
    parts = flat.split(at_once(None, shape, autoencoder.shift.device))
    found = torch.cat([autoencoder.decode(part.to(autoencoder.shift)).cpu() for part in parts])
    return found.reshape(*states.shape[:-3], *found.shape[1:])


def _standardise(autoencoder: Autoencoder | DiffusersAutoencoder, images: Sequence[ImageSet | ImageStream]) -> None:
    """Give latents mean 0 and spread 1 in each channel, over some images of each set."""
    some = [one.take(torch.arange(min(len(one), STANDARDISED))) for one in images]
    states = torch.cat([encoded(autoencoder, one).x for one in some]).double()
    spread = states.std(dim=(0, 2, 3), keepdim=True, correction=0)[0]
    autoencoder.shift.copy_(states.mean(dim=(0, 2, 3), keepdim=True)[0])
    autoencoder.scale.copy_(torch.where(spread > 0, spread, 1.0))
