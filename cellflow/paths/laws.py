"""Laws from which an objective draws the time within a pair."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class TimeLaw(ABC):
    """A law on [0, 1] from which an objective draws times; subclasses write ``sample``."""

    @abstractmethod
    def sample(self, n: int, *, generator: torch.Generator, like: Tensor) -> Tensor:
        """Draw ``(n,)`` times with the dtype and device of ``like``."""


@dataclass(frozen=True)
class Uniform(TimeLaw):
    """Every time alike, independently.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> Uniform().sample(3, generator=cf.generator(seed=0), like=torch.zeros(1)).shape
    torch.Size([3])
    """

    def sample(self, n: int, *, generator: torch.Generator, like: Tensor) -> Tensor:
        """Draw ``(n,)`` independent uniform times."""
        return torch.rand(n, generator=generator, dtype=like.dtype, device=generator.device).to(like.device)


@dataclass(frozen=True)
class Stratified(TimeLaw):
    """Every time alike, one draw in each of ``n`` equal strata: the same mean, a less noisy loss.

    The strata come in random order, so that a batch made of several parts has all times in each part.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> t = Stratified().sample(4, generator=cf.generator(seed=0), like=torch.zeros(1))
    >>> (4 * t).floor().sort().values
    tensor([0., 1., 2., 3.])
    """

    def sample(self, n: int, *, generator: torch.Generator, like: Tensor) -> Tensor:
        """Draw ``(n,)`` times, one per stratum."""
        stratum = torch.randperm(n, generator=generator, device=generator.device)
        within = torch.rand(n, generator=generator, dtype=like.dtype, device=generator.device)
        return ((stratum + within) / n).to(like.device)


@dataclass(frozen=True)
class LogitNormal(TimeLaw):
    """Times whose logit is Gaussian: more of the middle, where the target is hardest.

    Source: Esser et al. 2024, equation 19.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> t = LogitNormal(scale=0.5).sample(1000, generator=cf.generator(seed=0), like=torch.zeros(1))
    >>> bool((t - 0.5).abs().mean() < 0.15)
    True
    """

    location: float = 0.0
    scale: float = 1.0

    def sample(self, n: int, *, generator: torch.Generator, like: Tensor) -> Tensor:
        """Draw ``(n,)`` independent logit-normal times."""
        normal = torch.randn(n, generator=generator, dtype=like.dtype, device=generator.device)
        return torch.sigmoid(self.location + self.scale * normal).to(like.device)
