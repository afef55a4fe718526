"""Modes of torch that a caller has switched on, and its defaults: none of them changes what cellflow does."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from cellflow.seeds import BORROWED


@contextmanager
def own_modes() -> Iterator[None]:
    """Run as if outside of `torch.no_grad`, ``inference_mode``, ``autocast`` or another default device.

    Also a decorator for whatever trains or evaluates a model for its user: precision and device are those of the model
    and its settings. If none of these modes is on, it does nothing.

    Examples
    --------
    >>> with torch.inference_mode(), own_modes():
    ...     torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    (True, False)
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(mode=False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


@contextmanager
def single_precision() -> Iterator[None]:
    """Build networks in single precision, whatever torch's default; the default is restored.

    Threads that do so wait for each other, as they do in `cellflow.seeds.seeded`.

    Examples
    --------
    >>> with single_precision():
    ...     torch.nn.Linear(1, 1).weight.dtype
    torch.float32
    """
    with BORROWED:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
