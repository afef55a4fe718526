"""The distributions from which an objective draws times; they are exported by `cellflow.paths`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from cellflow.signature import checked

LARGEST = 1e15
"""Largest number of a setting: its square is still one in single precision."""


class TimeLaw(ABC):
    """A distribution on [0, 1] from which an objective draws times; subclasses implement ``sample``."""

    @abstractmethod
    def sample(self, n: int, *, generator: torch.Generator, like: Tensor) -> Tensor:
        """Draw ``(n,)`` times with the dtype and device of ``like``."""


@checked
@dataclass(frozen=True)
class Uniform(TimeLaw):
    """Independent uniform times.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> Uniform().sample(3, generator=cf.generator(seed=0), like=torch.zeros(1)).shape
    torch.Size([3])
    """

    @checked
    def sample(self, n: int, *, generator: torch.Generator, like: Tensor) -> Tensor:
        """Draw ``(n,)`` independent uniform times."""
        _check(n, like)
        return torch.rand(n, generator=generator, dtype=like.dtype, device=generator.device).to(like.device)


@checked
@dataclass(frozen=True)
class Stratified(TimeLaw):
    """Uniform times, one draw in each of ``n`` equal strata: the loss has the same mean and less variance.

    The strata come in random order, so that a batch made of several parts has all times in each part.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> t = Stratified().sample(4, generator=cf.generator(seed=0), like=torch.zeros(1))
    >>> (4 * t).floor().sort().values
    tensor([0., 1., 2., 3.])
    """

    @checked
    def sample(self, n: int, *, generator: torch.Generator, like: Tensor) -> Tensor:
        """Draw ``(n,)`` times, one per stratum."""
        _check(n, like)
        stratum = torch.randperm(n, generator=generator, device=generator.device)
        within = torch.rand(n, generator=generator, dtype=like.dtype, device=generator.device)
        return ((stratum + within) / n).to(like.device)


@checked
@dataclass(frozen=True)
class LogitNormal(TimeLaw):
    """Times whose logit is Gaussian: most lie in the middle, where the target is hardest to learn.

    Source
    ------
    Esser et al. 2024, equation 19.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> t = LogitNormal(scale=0.5).sample(1000, generator=cf.generator(seed=0), like=torch.zeros(1))
    >>> bool((t - 0.5).abs().mean() < 0.15)
    True
    """

    location: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not abs(self.location) <= LARGEST or not 0 <= self.scale <= LARGEST:
            raise ValueError(
                f"Expected a finite location and a scale >= 0, at most {LARGEST:g}; found {self.location} and "
                f"{self.scale}."
            )

    @checked
    def sample(self, n: int, *, generator: torch.Generator, like: Tensor) -> Tensor:
        """Draw ``(n,)`` independent logit-normal times."""
        _check(n, like)
        normal = torch.randn(n, generator=generator, dtype=like.dtype, device=generator.device)
        return torch.sigmoid(self.location + self.scale * normal).to(like.device)


def _check(n: int, like: Tensor) -> None:
    if not like.is_floating_point():
        raise TypeError(f"Expected `like` as a floating-point tensor; found {like.dtype}.")
    if n < 0:
        raise ValueError(f"Expected n >= 0 times to draw; found {n}.")
