"""Training an autoencoder: images come back from latents with a little noise on them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.networks.autoencoder import Autoencoder
from cellflow.pairing.image_batches import ImageBatches
from cellflow.training.checkpoint import STATE
from cellflow.training.history import History
from cellflow.training.loop import fit
from cellflow.training.recipe import Recipe
from cellflow.training.run import Run

if TYPE_CHECKING:
    from cellflow.objectives import Objective

FOLDER = "autoencoder"
"""Folder of the training of an autoencoder within that of its run."""


@dataclass(frozen=True)
class Reconstruction:
    """The squared error of images that were encoded and decoded again.

    Noise on the latents, which are bounded, makes neighbouring latents decode alike: a flow ends near the latents of
    images, not exactly on them.

    Parameters
    ----------
    both
        Whether both sides of a batch are images, or its target alone.
    noise
        Scale of the noise.

    Source
    ------
    Ghosh et al. 2020 (regularized autoencoders), for noise in place of a variational bound; Rombach et al. 2022,
    section 3, for flows and diffusion in latents.
    """

    both: bool
    noise: float = 0.1

    def __call__(self, field: Any, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss of a batch of images from -1 to 1."""
        images = torch.cat([batch.x0, batch.x1]) if self.both else batch.x1
        factor, latents = field.factor, field.latents
        shape = len(images), latents, images.shape[2] // factor, images.shape[3] // factor
        drawn = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32).to(images)
        return {"loss": (field(images, self.noise * drawn) - images).square().mean()}


def fit_autoencoder(
    network: Autoencoder,
    batches: ImageBatches,
    *,
    both: bool,
    steps: int,
    generator: torch.Generator,
    recipe: Recipe | None,
    run: Run,
    about: dict[str, Any],
) -> History:
    """Train an autoencoder in place, in its own folder within that of the run.

    Parameters
    ----------
    network
        The autoencoder.
    batches
        Batches of images; their pairs do not matter.
    both
        As for `Reconstruction`.
    steps, generator, recipe, run, about
        As for `cellflow.training.fit`. It is not watched.
    """
    here = replace(run, watch=None)
    if run.folder is not None:
        folder = Path(run.folder) / FOLDER
        here = replace(here, folder=folder, resume=run.resume and (folder / STATE).exists())
    return fit(
        network,
        cast("Objective", Reconstruction(both)),
        batches,
        steps=steps,
        generator=generator,
        recipe=recipe,
        run=here,
        about=about,
    )
