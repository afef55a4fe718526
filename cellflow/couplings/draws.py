"""Sampling from a list of masses: independent draws in constant time, and systematic sampling."""

import torch
from torch import Tensor


class AliasTable:
    """Independent draws from ``(n,)`` masses, each in constant time for any ``n``.

    Every slot holds one unit of mass: a share of its own index, and the rest of one other index, its alias.
    The table is filled with prefix sums instead of the classical loop, so that large plans cost no Python time.

    Source
    ------
    Walker 1977; Vose 1991, "A linear algorithm for generating random numbers with a given distribution".

    Examples
    --------
    >>> import torch
    >>> from cellflow.seeds import generator
    >>> AliasTable(torch.tensor([0.0, 2.0, 0.0])).draw(4, generator=generator(seed=0))
    tensor([1, 1, 1, 1])
    """

    def __init__(self, masses: Tensor) -> None:
        scaled = masses.double() * (masses.numel() / masses.double().sum())
        self._share = scaled.clamp(max=1)
        self._alias = torch.arange(masses.numel(), device=masses.device)
        is_large = scaled >= scaled.max().clamp(max=1)  # the largest counts, even if rounded to below one
        small, large = (~is_large).nonzero().squeeze(1), is_large.nonzero().squeeze(1)
        zero = scaled.new_zeros(1)
        room = torch.cat([zero, (1 - scaled[small]).cumsum(0)])  # taken by the small slots before each
        excess = (scaled[large] - 1).clamp(min=0).cumsum(0)  # given by the large numbers up to each
        # A small slot is topped up by the first large number that was not exhausted before it.
        giver = torch.searchsorted(excess, room[:-1], right=True)
        self._alias[small] = large[giver.clamp(max=large.numel() - 1)]
        # A large number that gave more than its excess has become small: the next large one tops it up.
        taken = torch.cat([room[1:], zero])[torch.searchsorted(room[1:], excess)]
        self._share[large] = (1 - taken + excess).clamp(0, 1)
        self._alias[large[:-1]] = large[1:]

    def draw(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Return ``(n,)`` numbers, each drawn in proportion to its mass."""
        slots = torch.randint(self._share.numel(), (n,), generator=generator, device=generator.device)
        heights = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64)
        slots, heights = slots.to(self._share.device), heights.to(self._share.device)
        return torch.where(heights < self._share[slots], slots, self._alias[slots])


def systematic(cumulative: Tensor, n: int, *, generator: torch.Generator) -> Tensor:
    """Return ``(n,)`` ascending numbers: each one's count is ``n`` times its share, rounded up or down.

    A comb of ``n`` equally spaced teeth falls on the ``cumulative`` masses ``(k,)``. Every run of consecutive numbers
    gets its share as well, rounded up or down.

    Source
    ------
    Madow and Madow 1944, "On the theory of systematic sampling".

    Examples
    --------
    >>> import torch
    >>> from cellflow.seeds import generator
    >>> systematic(torch.tensor([1.0, 1.0, 3.0, 4.0]).double(), 4, generator=generator(seed=0))
    tensor([0, 2, 2, 3])
    """
    heights = comb(cumulative[-1], n, generator=generator)
    return torch.searchsorted(cumulative, heights, right=True).clamp(max=cumulative.numel() - 1)


def comb(total: Tensor, n: int, *, generator: torch.Generator) -> Tensor:
    """Return ``(n,)`` ascending heights below a scalar ``total``: equally spaced, from a random offset on.

    The offset is a multiple of 2^-24 of the spacing, plus half: no height comes nearer to a whole number of spacings
    than 3e-8 of one, so equal masses give every number exactly once although their sum is rounded.

    Examples
    --------
    >>> import torch
    >>> from cellflow.seeds import generator
    >>> comb(torch.tensor(8.0).double(), 4, generator=generator(seed=0)).diff()
    tensor([2., 2., 2.], dtype=torch.float64)
    """
    offset = (torch.randint(2**24, (1,), generator=generator, device=generator.device).float() + 0.5) / 2**24
    teeth = torch.arange(n, dtype=torch.float64, device=total.device) + offset.double().to(total.device)
    return teeth * (total / n)


def shuffled(numbers: Tensor, *, generator: torch.Generator) -> Tensor:
    """Return ``(n, ...)`` numbers in random order."""
    order = torch.randperm(numbers.shape[0], generator=generator, device=generator.device)
    return numbers[order.to(numbers.device)]
