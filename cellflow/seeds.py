"""Random numbers: always drawn from a generator that the caller passes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from cellflow.signature import checked

BORROWED = threading.RLock()
"""Held while what is global in torch is borrowed, its generators and its default precision: all threads share it."""


@checked
def generator(seed: int = 0, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a new random generator; torch's global state is neither read nor changed.

    Examples
    --------
    >>> import torch
    >>> a, b = (torch.rand(3, generator=generator(seed=1)) for _ in range(2))
    >>> torch.equal(a, b)
    True
    """
    return torch.Generator(device=device_of(device)).manual_seed(_kept(seed))


def numpy_generator(seed: int = 0) -> np.random.Generator:
    """Return a new numpy generator for any seed that `generator` takes; numpy itself takes none below 0.

    Examples
    --------
    >>> bool(numpy_generator(-3).random() == numpy_generator(-3).random())
    True
    """
    return np.random.default_rng(_kept(seed) % 2**64)


@checked
def draw_seed(generator: torch.Generator) -> int:
    """Draw a fresh seed; ``generator`` advances by one number."""
    return int(torch.randint(2**62, (1,), generator=generator, device=generator.device).item())


@checked
def generator_at(seed: int, index: int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return the generator of position ``index`` in the stream called ``seed``.

    Random numbers are addressed rather than consumed: a training that resumes at step 100 asks for the generator of
    step 100 and gets the same numbers, with no state to save.

    Examples
    --------
    >>> import torch
    >>> torch.equal(torch.rand(2, generator=generator_at(7, 3)), torch.rand(2, generator=generator_at(7, 3)))
    True
    >>> torch.equal(torch.rand(2, generator=generator_at(7, 3)), torch.rand(2, generator=generator_at(7, 4)))
    False
    """
    return torch.Generator(device=device_of(device)).manual_seed(_mix(_mix(int(seed)) + int(index)))


def device_of(name: str | torch.device) -> torch.device:
    """Return the device with this name.

    Raises
    ------
    ValueError
        When torch knows no such device.

    Examples
    --------
    >>> device_of("cpu")
    device(type='cpu')
    """
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"Unknown device {name!r}. Choose 'cpu', 'cuda' or one of several, such as 'cuda:1'."
        ) from error


def precise_device(device: torch.device) -> torch.device:
    """Return the device on which to compute in double precision, as plans are: Apple's GPUs do not support it.

    Examples
    --------
    >>> precise_device(torch.device("mps")), precise_device(torch.device("cuda", 1))
    (device(type='cpu'), device(type='cuda', index=1))
    """
    return torch.device("cpu") if device.type == "mps" else device


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Let code that only knows torch's global generators draw from ``generator``; the global state is restored.

    For building networks, whose layers draw their initial weights from it, and for dropout. Threads wait for each other
    here, so that none draws the numbers of another. The CPU's generator is borrowed, and the GPU's if ``generator``
    lives on one.

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
    gpus = [generator.device] if generator.device.type == "cuda" else []
    with BORROWED, torch.random.fork_rng(devices=gpus):
        seed = draw_seed(generator)
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


def _kept(seed: int) -> int:
    """Return a seed, provided that torch can hold it."""
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"Expected a seed of at most 64 bits; found {seed}.")
    return int(seed)


def _mix(number: int) -> int:
    """Scramble 64 bits, so that neighbouring indices give unrelated seeds (splitmix64's finaliser).

    Source
    ------
    Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 17.
    """
    bits = (number + 0x9E3779B97F4A7C15) & _ALL_BITS
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _ALL_BITS
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _ALL_BITS
    return (bits ^ (bits >> 31)) & (_ALL_BITS >> 1)


_ALL_BITS = 2**64 - 1
