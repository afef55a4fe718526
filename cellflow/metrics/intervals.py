"""Uncertainty of a score: bootstrap intervals, and the floor of real data against real data."""

import math
from collections.abc import Callable
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

from cellflow.shapes import check_points
from cellflow.signature import checked


class Interval(NamedTuple):
    """A score with its bootstrap interval.

    Parameters
    ----------
    value
        Score of the sample itself.
    low, high
        Bounds that hold the fraction ``level`` of the bootstrap scores.
    level
        Coverage, such as 0.95.
    """

    value: float
    low: float
    high: float
    level: float


@checked
def bootstrap(
    score: Callable[..., float | Tensor],
    *samples: Tensor,
    generator: torch.Generator,
    repeats: int = 200,
    level: float = 0.95,
    paired: bool = False,
) -> Interval:
    """Return a score of one or more samples, with its percentile bootstrap interval.

    A distance between samples rises when points occur twice, so its interval is biased upwards and may exclude the
    value itself: compare methods by intervals computed the same way.

    Parameters
    ----------
    score
        Function of the samples that returns one number.
    *samples
        Points ``(n, ...)`` each, resampled with replacement.
    generator
        Draws the resamples.
    repeats
        Number of repeats.
    level
        Fraction of the scores that the interval holds.
    paired
        Whether the samples are paired row by row, and resampled together.

    Source
    ------
    Efron 1979; Efron and Tibshirani 1993, section 13.3.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x = torch.randn(400, generator=cf.generator(seed=0))
    >>> found = bootstrap(torch.mean, x, generator=cf.generator(seed=0))
    >>> 0.15 < found.high - found.low < 0.25  # 4 standard errors of 0.05
    True
    """
    if not samples or repeats < 2 or not 0 < level < 1:
        raise ValueError(
            f"Expected a sample, repeats >= 2 and 0 < level < 1; found {len(samples)}, {repeats} and {level}."
        )
    sizes = {len(sample) for sample in samples}
    if paired and len(sizes) > 1:
        raise ValueError(f"Expected samples of one length, as they are paired; found {sorted(sizes)}.")
    for k, sample in enumerate(samples):
        check_points(sample, name=f"samples[{k}]")
    scores = [_number(score(*_again(samples, generator, paired=paired))) for _ in range(repeats)]
    low, high = (float(torch.tensor(scores).double().quantile(end)) for end in ((1 - level) / 2, (1 + level) / 2))
    return Interval(_number(score(*samples)), low, high, level)


@checked
def real_floor(
    distance: Callable[[Tensor, Tensor], float],
    real: Tensor,
    *,
    n: int,
    generator: torch.Generator,
    repeats: int = 10,
) -> Interval:
    """Return the distance between two real samples of ``n``: the score of a perfect model.

    Parameters
    ----------
    distance
        Function of two samples that returns one number, and draws no random numbers.
    real
        Points or images ``(m, ...)``, with ``m >= 2 n``: both samples are drawn disjoint.
    n
        Number of samples with which the model is scored.
    generator
        Draws the samples.
    repeats
        Number of repeats.

    Returns
    -------
    The mean distance, with the smallest and the largest as bounds (``level=1``).

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> real = torch.randn(400, 4, generator=cf.generator(seed=0))
    >>> floor = real_floor(cf.metrics.frechet_distance, real, n=100, generator=cf.generator(seed=0))
    >>> 0 < floor.low < floor.value < floor.high < 0.5
    True
    """
    check_points(real, name="real")
    if not 1 <= n <= len(real) // 2 or repeats < 1:
        raise ValueError(
            f"Expected repeats >= 1, and n from 1 to {len(real) // 2}, half of {len(real)} real points; found "
            f"{repeats} and {n}."
        )
    found = []
    for _ in range(repeats):
        order = torch.randperm(len(real), generator=generator, device=generator.device).to(real.device)
        found.append(_number(distance(real[order[:n]], real[order[n : 2 * n]])))
    return Interval(sum(found) / repeats, min(found), max(found), 1.0)


@checked
def standard_error(
    score: Callable[..., float | Tensor],
    *sizes: int,
    generator: torch.Generator,
    repeats: int | None = None,
    most: int = 500,
) -> float:
    """Return the standard error of a score of one or more samples, from random subsets of each without repetition.

    For distances, which rise when points occur twice, as in a bootstrap. They rise with fewer points too, but equally
    in every part: only the spread between parts is used, scaled to the size of the samples.

    Parameters
    ----------
    score
        Function of the chosen rows of each sample, ``(k,)`` each, that returns one number.
    *sizes
        Number of points of each sample; at least one sample has two or more. The same fraction of each is drawn, at
        least one point.
    generator
        Draws the parts.
    repeats
        Number of parts; ``None`` for 10, or 40 for samples of at most 200 points.
    most
        Maximum number of points of the largest sample in a part; half of the sample if that is less.

    Source
    ------
    Shao and Wu 1989 (delete-d jackknife), equation 2.3.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x = torch.randn(400, generator=cf.generator(seed=0))
    >>> found = standard_error(lambda rows: x[rows].mean(), 400, generator=cf.generator(seed=0), repeats=100)
    >>> 0.04 < found < 0.06  # the standard deviation over the root of 400
    True
    """
    if repeats is None:
        repeats = 10 if max(sizes, default=0) > 200 else 40
    if not sizes or max(sizes) < 2 or repeats < 2 or most < 1:
        raise ValueError(
            "Expected a sample of two points or more, repeats >= 2 and most >= 1; found samples of "
            f"{list(sizes)} points, {repeats} and {most}."
        )
    share = min(0.5, most / max(sizes))

    def some(n: int) -> Tensor:
        order = torch.randperm(n, generator=generator, device=generator.device).cpu()
        return order[: max(1, round(share * n))]

    scores = torch.tensor([_number(score(*map(some, sizes))) for _ in range(repeats)], dtype=torch.float64)
    return float(scores.std()) * math.sqrt(share / (1 - share))


def _number(score: object) -> float:
    """Return a score as a number."""
    single = score.item() if isinstance(score, Tensor) and score.numel() == 1 else score
    if not isinstance(single, Real) or isinstance(single, bool):
        raise TypeError(f"Expected the score to be one number; found {type(score).__name__}.")
    if not math.isfinite(single):
        raise ValueError(f"Expected a finite score; found {single}. Look for extreme values in the samples.")
    return float(single)


def _again(samples: tuple[Tensor, ...], generator: torch.Generator, *, paired: bool) -> list[Tensor]:
    """Draw as many points again of each sample."""
    draws = [_draw(len(sample), generator) for sample in (samples[:1] if paired else samples)]
    rows = draws * len(samples) if paired else draws
    return [sample[row.to(sample.device)] for sample, row in zip(samples, rows, strict=True)]


def _draw(n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(n, (n,), generator=generator, device=generator.device)
