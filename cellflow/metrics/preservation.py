"""How much of its input an image keeps: scores of each output against its own input.

A method that ignores its input can have a perfect distance to the target; these scores detect it. Each returns one
number per image ``(n,)``, for images from -1 to 1: take the mean, and an interval by `bootstrap`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cellflow.shapes import check_points
from cellflow.signature import checked

_WINDOW, _SIGMA = 11, 1.5
_K1, _K2, _RANGE = 0.01, 0.03, 2.0
_LEVELS = 256

Score = Callable[[Tensor, Tensor], Tensor]
"""Inputs and outputs ``(n, c, h, w)`` to one number per image ``(n,)``."""


class Preservation(NamedTuple):
    """A score of the true pairs beside that of shuffled ones.

    Parameters
    ----------
    value
        Mean score of each output with its own input.
    shuffled
        Mean score of each output with the input of another.
    sd
        Standard deviation of the latter over shuffles.
    """

    value: float
    shuffled: float
    sd: float

    @property
    def ignores_input(self) -> bool:
        """Whether the pairs score like shuffled ones, within three standard deviations.

        About one in a hundred methods that ignore their input falls outside by chance.
        """
        return abs(self.value - self.shuffled) <= 3 * self.sd


@checked
def transport_cost(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Return the squared distance between input and output, per pixel and channel: how far each image was moved.

    Examples
    --------
    >>> import torch
    >>> transport_cost(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4))
    tensor([1., 1.])
    """
    _check_pairs(inputs, outputs, numbers=True)
    return (outputs - inputs).square().flatten(1).mean(1)


@checked
def structural_similarity(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Return the structural similarity (SSIM) of input and output, from -1 to 1, where 1 is equality.

    Compared within Gaussian windows of scale 1.5, 11 pixels wide (fewer where the image is smaller), wholly inside
    the image, as in the original and in scikit-image; torchmetrics lets windows reach over the edge.

    Raises
    ------
    ValueError
        When shapes differ, numbers are not finite, or so large that their squares are not.

    Source
    ------
    Wang et al. 2004, equation 13.

    Examples
    --------
    >>> import torch
    >>> stripes = torch.tensor([-1.0, 1.0]).repeat(1, 1, 16, 8)
    >>> structural_similarity(stripes, stripes), bool(structural_similarity(stripes, -stripes) < -0.9)
    (tensor([1.]), True)
    """
    _check_pairs(inputs, outputs, numbers=True)
    side = min(_WINDOW, *inputs.shape[2:])
    window = _window(side if side % 2 else side - 1, inputs)

    # A product with a banded matrix for each side: faster than a convolution of single channels.
    down, across = (_positions(window, size) for size in inputs.shape[2:])

    def smooth(images: Tensor) -> Tensor:
        return down @ images @ across.T

    x, y = smooth(inputs), smooth(outputs)
    variances = smooth(inputs**2) - x**2 + smooth(outputs**2) - y**2
    covariance = smooth(inputs * outputs) - x * y
    c1, c2 = (_K1 * _RANGE) ** 2, (_K2 * _RANGE) ** 2
    similarity = (2 * x * y + c1) * (2 * covariance + c2) / ((x**2 + y**2 + c1) * (variances + c2))
    if not bool(similarity.isfinite().all()):
        most = max(float(side.abs().max()) for side in (inputs, outputs))
        raise ValueError(f"Expected images from -1 to 1; found numbers of up to {most:g}, whose squares are too large.")
    return similarity.flatten(1).mean(1)


@checked
def mask_dice(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Return the Dice overlap of two masks, from 0 to 1, which is 1 for two empty ones.

    Parameters
    ----------
    inputs, outputs
        Masks ``(n, ...)``: truth values, or numbers of which those above 0 belong to the mask.

    Source
    ------
    Dice 1945.

    Examples
    --------
    >>> import torch
    >>> mask_dice(torch.tensor([[[[1, 1, 0, 0]]]]), torch.tensor([[[[0, 1, 0, 0]]]]))
    tensor([0.6667])
    """
    _check_pairs(inputs, outputs)
    a, b = ((side > 0).flatten(1).float() for side in (inputs, outputs))
    total = a.sum(1) + b.sum(1)
    return torch.where(total > 0, 2 * (a * b).sum(1) / total.clamp(min=1), 1.0)


@checked
def foreground(images: Tensor, *, dark: bool = False) -> Tensor:
    """Return which pixels ``(n, 1, h, w)`` of images belong to the object, by a threshold for each image.

    Parameters
    ----------
    images
        ``(n, c, h, w)`` from -1 to 1; channels are averaged.
    dark
        Whether the object is darker than its surroundings, as a stained nucleus is.

    Source
    ------
    Otsu 1979, equation 14.

    Examples
    --------
    >>> import torch
    >>> foreground(torch.tensor([[[[-0.9, -0.8, 0.7, 0.9]]]]))
    tensor([[[[False, False,  True,  True]]]])
    """
    check_points(images, name="images", axes=4)
    grey = images.mean(1, keepdim=True).clamp(-1, 1)
    levels = ((grey + 1) / 2 * (_LEVELS - 1)).round().long().flatten(1)
    counts = torch.zeros(len(images), _LEVELS, dtype=torch.float64, device=images.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels, dtype=torch.float64))
    below = counts.cumsum(1) / levels.shape[1]
    level = torch.arange(_LEVELS, device=images.device).double()
    moment = (counts * level).cumsum(1) / levels.shape[1]
    between = (moment[:, -1:] * below - moment).square() / (below * (1 - below)).clamp(min=1e-12)
    bright = levels > between.argmax(1, keepdim=True)
    return (~bright if dark else bright).reshape(grey.shape)


@checked
def target_accuracy(images: Tensor, logits: Callable[[Tensor], Tensor], target: int | Tensor) -> Tensor:
    """Return, for each image, whether a classifier assigns it to its target class: 1 or 0.

    Parameters
    ----------
    images
        ``(n, c, h, w)`` from -1 to 1.
    logits
        Images to the logits of each class ``(n, k)``, such as ``feature_network(...).logits``.
    target
        The class that all, or each ``(n,)``, should have.

    Examples
    --------
    >>> import torch
    >>> target_accuracy(torch.ones(2, 1, 1, 2), lambda images: images.flatten(1) * torch.tensor([0.0, 1.0]), target=1)
    tensor([1., 1.])
    """
    check_points(images, name="images", axes=4)
    with torch.no_grad():
        parts = [logits(part) for part in images.split(_LEVELS)]
    if not all(isinstance(part, Tensor) and part.ndim == 2 for part in parts):
        raise TypeError(
            "Expected `logits` to return a tensor (n, k), a row for each image; it returned something else."
        )
    found = torch.cat([part.argmax(1) for part in parts])
    each = torch.as_tensor(target)
    if each.shape not in ((), found.shape) or each.is_floating_point() or each.is_complex():
        raise ValueError(f"Expected `target` as one class, or one for each of {len(found)} images; found {target!r}.")
    return (found == torch.as_tensor(target, device=found.device)).float()


@checked
def against_shuffled(
    score: Score, inputs: Tensor, outputs: Tensor, *, generator: torch.Generator, repeats: int = 20
) -> Preservation:
    """Return the mean score of each output with its own input, and with the inputs of others.

    Parameters
    ----------
    score
        Such as `structural_similarity`, `mask_dice` or `transport_cost`.
    inputs, outputs
        Images ``(n, c, h, w)``, in pairs.
    generator
        Draws the shuffles, in which no image keeps its place.
    repeats
        Shuffles, at least 2.

    Raises
    ------
    ValueError
        When there are fewer than three pairs or two repeats, or scores are not finite.
    TypeError
        When ``score`` does not return one number for each pair.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> rng = cf.generator(seed=0)
    >>> images = torch.rand(50, 1, 16, 16, generator=rng) * 2 - 1
    >>> against_shuffled(structural_similarity, images, 0.9 * images, generator=rng).ignores_input
    False
    """
    _check_pairs(inputs, outputs)
    n = len(inputs)
    if n < 3 or repeats < 2:
        raise ValueError(f"Expected three pairs or more to shuffle, and repeats >= 2; found {n} and {repeats}.")

    def mean(x: Tensor, y: Tensor) -> Tensor:
        found = score(x, y)
        if not isinstance(found, Tensor) or found.shape != (n,):
            shape = getattr(found, "shape", type(found).__name__)
            raise TypeError(f"Expected `score` to return one number for each of {n} pairs; found {shape}.")
        if not found.isfinite().all():
            raise ValueError("Expected finite scores; `score` returned others. Are the images in their usual range?")
        return found.double().mean()

    # A random cyclic permutation: no output gets its own input.
    circles = [
        torch.randperm(n, generator=generator, device=generator.device).to(inputs.device) for _ in range(repeats)
    ]
    means = torch.stack([mean(inputs[circle], outputs[circle.roll(1)]) for circle in circles])
    return Preservation(float(mean(inputs, outputs)), float(means.mean()), float(means.std()))


def _window(side: int, like: Tensor) -> Tensor:
    offsets = torch.arange(side, dtype=like.dtype, device=like.device) - side // 2
    window = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    return window / window.sum()


def _positions(window: Tensor, size: int) -> Tensor:
    """Return a row for each place of the window on a side of ``size`` pixels."""
    free = size - len(window)
    return torch.stack([F.pad(window, (place, free - place)) for place in range(free + 1)])


def _check_pairs(inputs: Tensor, outputs: Tensor, *, numbers: bool = False) -> None:
    if numbers:
        check_points(inputs, name="inputs", axes=4)
        check_points(outputs, name="outputs", axes=4)
        if inputs.dtype != outputs.dtype:
            raise TypeError(f"Expected `inputs` and `outputs` of one type; found {inputs.dtype} and {outputs.dtype}.")
    if any(side.layout != torch.strided or side.is_complex() for side in (inputs, outputs)):
        raise TypeError("Expected `inputs` and `outputs` as dense tensors of real numbers; found another kind.")
    if inputs.shape != outputs.shape or inputs.ndim != 4 or inputs.numel() == 0:
        raise ValueError(
            f"Expected inputs and outputs of one shape (n, c, h, w), in pairs; found {tuple(inputs.shape)} and "
            f"{tuple(outputs.shape)}."
        )
