"""Images changed by an `ImageGenerator`: noised until some of them is forgotten, and carried back to images."""

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from cellflow import integrate, paths
from cellflow.estimators import generation_verbs as verbs
from cellflow.estimators.conditional_verbs import Condition, check_part, relabelled
from cellflow.estimators.guidance import Guided, Labels
from cellflow.estimators.latents import latents, pixels
from cellflow.estimators.pixel_levels import as_images, check_levels
from cellflow.estimators.portions import at_once
from cellflow.images.sets import ImageSet
from cellflow.integrate import Adaptive, Fixed, Jumps
from cellflow.seeds import generator
from cellflow.shapes import per_sample
from cellflow.signature import checked_but

if TYPE_CHECKING:
    from cellflow.estimators.generation import ImageGenerator


@checked_but("solver", "condition")
def translate(
    self: "ImageGenerator",
    images: ImageSet,
    *,
    strength: float = 0.5,
    keep: Tensor | None = None,
    label: Labels | None = None,
    condition: Condition | None = None,
    guidance: float = 1.0,
    solver: Fixed | Adaptive | Jumps | str | int = verbs.GENERATION,
    seed: int = 0,
    batch_size: int | None = None,
) -> ImageSet:
    """Change images towards the learned ones, by partial noise: sketches, other stains, or parts of images.

    Images are taken back along the path towards noise by the share ``strength``, and carried forward from there. The
    more noise, the less of an image is left and the more typical is the result. This uses no pairs: for a set of source
    images and one of targets see `cellflow.DomainTranslator`.

    Parameters
    ----------
    images
        Images with the shape and the levels of the fit. Their labels and conditions are ignored.
    strength
        How much of them is discarded: near 0 they stay as they are, at 1 nothing of them is left.
    keep
        Boolean mask of pixels to keep, ``(h, w)`` or one for each image, ``(n, h, w)``; the others are inpainted.
        ``None`` for none.
    label, condition, guidance
        What they become, as for `generate`.
    solver
        As for `generate`; the share ``strength`` of its steps is taken, at least one. With ``keep`` it is `Fixed` or
        `Jumps`.
    seed
        Seed of the noise.
    batch_size
        Images at a time; ``None`` for as many as are quickest on the device. The result does not depend on it,
        but for the tolerance of an `Adaptive` solver, whose steps are those of all that are carried together.

    Returns
    -------
    ImageSet
        As many images, with the names and the table of the input.

    Raises
    ------
    NotFittedError, TypeError, KeyError
        As for `generate`.
    ValueError
        When the shape or levels of images differ from the fit, ``strength`` is not above 0 and at most 1, or ``keep``
        has another shape.

    Notes
    -----
    The noise is drawn independently of the image: with ``coupling="exact"``, where training pairs were not, states at
    low ``strength`` differ a little from those that were trained on.

    Source
    ------
    Meng et al. 2022 (SDEdit), algorithms 1 and 2 (``keep``), by the path and the ordinary differential equation of the
    model in place of its stochastic one.

    Examples
    --------
    >>> import cellflow as cf
    >>> from functools import partial
    >>> network = partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)
    >>> digits = cf.datasets.digits()
    >>> model = cf.ImageGenerator(conditional=True, network=network, steps=5, batch_size=8).fit(digits)
    >>> model.translate(digits.only("1").take([0, 1]), strength=0.4, label="7", solver=5)
    ImageSet(2 images, 1 x 8 x 8, 10 classes, generated)
    """
    chosen = integrate.resolve(solver, default=verbs.GENERATION, verb="ImageGenerator.translate", noisy=verbs.SIMULATE)
    rows = verbs._condition(self, len(images), label, condition, guidance)
    _check(self, images, strength, chosen, guidance)
    if keep is not None and self.autoencoder_ is not None:
        raise ValueError("Latents have no single pixels to keep. Leave `keep` out, or fit without an autoencoder.")
    stays = None if keep is None else _stays(keep, images)
    size = at_once(batch_size, self._state_shape, next(self.field_.parameters()).device)
    chosen = _shortened(chosen, strength)
    noise = torch.randn(len(images), *self._state_shape, generator=generator(seed=seed), dtype=torch.float32)
    made = [
        _carried(self, images, noise, some, rows, stays, guidance, chosen, start=1 - strength).cpu()
        for some in torch.arange(len(images)).split(size)
    ]
    (levels,), labels = self.levels_, None if rows is None or label is None else rows.argmax(dim=1)
    known: dict[str, Any] = {"names": images.names, "obs": images.obs, "levels": levels, "source": "generated"}
    classes = None if labels is None else self.classes_
    found = ImageSet(
        as_images(pixels(self.autoencoder_, torch.cat(made).float()), levels), labels, classes=classes, **known
    )
    return cast("ImageSet", relabelled(found, condition, self.conditions_))


def _check(
    flow: "ImageGenerator", images: ImageSet, strength: float, solver: Fixed | Adaptive | Jumps, guidance: float
) -> None:
    if images.shape != flow.shape_:
        raise ValueError(
            f"Expected images of shape {flow.shape_}, as in `fit`; found {images.shape}. Read them with "
            f'`size=({flow.shape_[1]}, {flow.shape_[2]})`, which scales them, and `fit="tiles"`, which cuts them.'
        )
    check_levels(flow.levels_[0], images, again="model.levels_[0]")
    check_part(strength)
    if isinstance(solver, Jumps) and guidance != 1:
        raise ValueError("The guidance of jumps is fixed by `distill(images, guidance=...)`. Leave it out here.")


def _stays(keep: Tensor, images: ImageSet) -> Tensor:
    n, (_, height, width) = len(images), images.shape
    if keep.dtype != torch.bool or tuple(keep.shape) not in ((height, width), (n, height, width)):
        raise ValueError(
            f"Expected `keep` as truth values ({height}, {width}) or ({n}, {height}, {width}); found "
            f"{tuple(keep.shape)} of {keep.dtype}."
        )
    return keep.expand(n, height, width)[:, None]


def _shortened(solver: Fixed | Adaptive | Jumps, share: float) -> Fixed | Adaptive | Jumps:
    """Return a solver with a share of its steps, at least one."""
    if isinstance(solver, Adaptive):
        return solver
    return replace(solver, steps=max(1, round(share * solver.steps)))


def _carried(
    flow: "ImageGenerator",
    images: ImageSet,
    noise: Tensor,
    some: Tensor,
    rows: Tensor | None,
    stays: Tensor | None,
    guidance: float,
    solver: Fixed | Adaptive | Jumps,
    *,
    start: float,
) -> Tensor:
    """Return some images, noised up to the time ``start`` and carried on from there."""
    velocity, weight = flow._velocity(), next(flow.field_.parameters())
    field = velocity if guidance == 1 else Guided(velocity, guidance)
    condition = None if rows is None else rows[some].to(weight)
    real, drawn = latents(flow.autoencoder_, images.scaled(some)).to(weight), noise[some].to(weight)
    how: dict[str, Any] = {"condition": condition}
    if stays is None:
        return flow._carry(field, _noised(flow, real, drawn, start), solver, start=start, **how).x[-1]
    if isinstance(solver, Adaptive):
        raise ValueError("Kept pixels are restored after every step: `keep` needs `cf.integrate.Fixed`, or `Jumps`.")
    fixed = stays[some].to(weight.device)
    times = torch.linspace(start, 1.0, solver.steps + 1, dtype=torch.float64).tolist()
    x, one = _noised(flow, real, drawn, start), replace(solver, steps=1)
    for now, then in pairwise(times):
        x = flow._carry(field, x, one, start=now, stop=then, **how).x[-1]
        x = torch.where(fixed, real if then == 1 else _noised(flow, real, drawn, then), x)
    return x


def _noised(flow: "ImageGenerator", real: Tensor, noise: Tensor, t: float) -> Tensor:
    """Return where images are at a time on the path from noise, without the noise of the path itself."""
    a, b, _ = paths.resolve(flow.path).coefficients(real.new_full((len(real),), t))
    return per_sample(a, real) * noise + per_sample(b, real) * real
