"""What an objective takes: a batch of pairs."""

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Pairs of points, and the stretch of model time that each pair spans.

    Parameters
    ----------
    x0, x1
        Source and target states, both ``(n, ...)``.
    start, stop
        Model times at which a pair begins and ends, both ``(n,)``; ``None`` stands for 0 and 1.
    condition
        Everything else that the field sees, ``(n, k)``; ``None`` for an unconditional field.
    log_mass0, log_mass1
        Logs of the mass that a pair carries at its start and at its end, both ``(n,)``, per pair drawn; in between the
        log changes linearly. ``None`` where all pairs carry the same mass throughout.
    bend0, bend1
        How far beyond ``x1`` the pair would come at its velocity at the start, and at its velocity at the end, both
        ``(n, ...)``; ``None`` for a straight end.

    Examples
    --------
    >>> import torch
    >>> batch = Batch(torch.zeros(4, 2), torch.ones(4, 2))
    >>> start, duration = batch.span()
    >>> duration
    tensor([1., 1., 1., 1.])
    """

    x0: Tensor
    x1: Tensor
    start: Tensor | None = None
    stop: Tensor | None = None
    condition: Tensor | None = None
    log_mass0: Tensor | None = None
    log_mass1: Tensor | None = None
    bend0: Tensor | None = None
    bend1: Tensor | None = None

    def check(self) -> None:
        """Raise unless every part is a tensor of the shape that it should have.

        Raises
        ------
        TypeError
            When a part is not a tensor, or states are not floating-point numbers.
        ValueError
            When it has another shape. Numbers that are not finite show in the loss, where training reports them.
        """
        for name, part in self._asdict().items():
            if isinstance(part, Tensor) and part.layout != torch.strided:
                raise TypeError(f"Expected `{name}` of a batch as a dense tensor; found layout {part.layout}.")
            if not isinstance(part, Tensor) and (part is not None or name in ("x0", "x1")):
                raise TypeError(f"Expected `{name}` of a batch as a torch tensor; found {type(part).__name__}.")
        x = self.x0
        if not (x.is_floating_point() and self.x1.is_floating_point()) or not x.ndim or x.numel() == 0:
            raise TypeError(
                f"Expected pairs of floating-point states (n, ...); found shape {tuple(x.shape)} of {x.dtype} in `x0`, "
                f"{self.x1.dtype} in `x1`."
            )
        for name, shape in (
            *((name, x.shape) for name in ("x0", "x1", "bend0", "bend1")),
            *((name, x.shape[:1]) for name in ("start", "stop", "log_mass0", "log_mass1")),
        ):
            part = getattr(self, name)
            if part is not None and (part.shape != shape or part.is_complex() or part.dtype == torch.bool):
                raise ValueError(
                    f"Expected `{name}` of a batch of shape {tuple(shape)}, as `x0` is; found {tuple(part.shape)} of "
                    f"{part.dtype}."
                )
        if self.condition is not None and self.condition.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"Expected `condition` of a batch with a row for each of {len(x)} pairs; found shape "
                f"{tuple(self.condition.shape)}."
            )

    def span(self) -> tuple[Tensor, Tensor]:
        """Return the model time at which each pair begins and how long it lasts, both ``(n,)``."""
        self.check()
        start = self.x0.new_zeros(len(self.x0)) if self.start is None else self.start
        stop = torch.ones_like(start) if self.stop is None else self.stop
        return start, stop - start

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "Batch":
        """Return the batch on another device, and in another precision if one is given.

        Whole numbers in the condition stay as they are: a field may look them up.
        """

        def moved(name: str, part: Tensor) -> Tensor:
            return part.to(device, dtype if part.is_floating_point() or name != "condition" else None)

        parts = zip(self._fields, self, strict=True)
        return Batch._make(part if part is None else moved(name, part) for name, part in parts)
