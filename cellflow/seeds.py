"""Where random numbers come from: always a generator that the caller owns."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def generator(seed: int = 0, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a new random generator; torch's global state is neither read nor changed.

    Examples
    --------
    >>> import torch
    >>> a, b = (torch.rand(3, generator=generator(seed=1)) for _ in range(2))
    >>> torch.equal(a, b)
    True
    """
    return torch.Generator(device=device).manual_seed(seed)


def draw_seed(generator: torch.Generator) -> int:
    """Draw a fresh seed; ``generator`` advances by one number."""
    return int(torch.randint(2**62, (1,), generator=generator, device=generator.device).item())


def generator_at(seed: int, index: int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return the generator of position ``index`` in the stream called ``seed``.

    Random numbers are addressed rather than consumed: whoever resumes at step 100 asks for the generator
    of step 100 and gets the same numbers, with no state to save.

    Examples
    --------
    >>> import torch
    >>> torch.equal(torch.rand(2, generator=generator_at(7, 3)), torch.rand(2, generator=generator_at(7, 3)))
    True
    >>> torch.equal(torch.rand(2, generator=generator_at(7, 3)), torch.rand(2, generator=generator_at(7, 4)))
    False
    """
    return torch.Generator(device=device).manual_seed(_mix(_mix(seed) + index))


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Let code that only knows torch's global generator draw from ``generator``; the global state is put back.

    For building networks: torch's layers draw their first weights from the global state.

    Examples
    --------
    >>> import torch
    >>> with seeded(generator_at(0, 0)):
    ...     a = torch.nn.Linear(2, 2)
    >>> with seeded(generator_at(0, 0)):
    ...     b = torch.nn.Linear(2, 2)
    >>> torch.equal(a.weight, b.weight)
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(draw_seed(generator))  # of the CPU alone, where layers are made
        yield


def _mix(number: int) -> int:
    """Scramble 64 bits, so that neighbouring indices give unrelated seeds (splitmix64's finaliser).

    Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 17.
    """
    bits = (number + 0x9E3779B97F4A7C15) & _ALL_BITS
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _ALL_BITS
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _ALL_BITS
    return (bits ^ (bits >> 31)) & (_ALL_BITS >> 1)


_ALL_BITS = 2**64 - 1
