"""The integrand in unit time, and the trajectory that solvers return."""

from typing import NamedTuple

import torch
from torch import Tensor

from cellflow.fields import Field, outputs
from cellflow.integrate.failures import check_finite
from cellflow.seeds import precise_device
from cellflow.shapes import check_dense, finite, per_sample, time_of


class Trajectory(NamedTuple):
    """States at several times, with weights where a population grows; the last ones are ``x[-1]``.

    Attributes
    ----------
    t
        Times, shape ``(k,)``, or ``(k, n)`` if every sample has its own.
    x
        States at these times, shape ``(k, n, ...)``.
    evaluations
        Number of evaluations of the field on the whole batch.
    log_weight
        Log weights at these times, shape ``(k, n)``; ``None`` if states carry no weights.

    Examples
    --------
    >>> found = Trajectory(torch.zeros(2), torch.zeros(2, 3, 1), 1, torch.tensor([[0.0] * 3, [1.0] * 3]))
    >>> found.mass()
    tensor([1.0000, 2.7183])
    """

    t: Tensor
    x: Tensor
    evaluations: int
    log_weight: Tensor | None = None

    def mass(self) -> Tensor:
        """Return the sum of the weights at each time, relative to the first one, ``(k,)``.

        Raises
        ------
        ValueError
            When states carry no weights.
        """
        if self.log_weight is None:
            raise ValueError("These states carry no weights. Use a field with a growth rate.")
        total = torch.logsumexp(self.log_weight, dim=1)
        return (total - total[0]).exp()

    def shares(self) -> Tensor:
        """Return the weights of the states at each time, ``(k, n)``, normalised to sum to 1.

        Without weights all are equal.
        """
        if self.log_weight is None:
            device = precise_device(self.x.device)
            return torch.full(self.x.shape[:2], 1 / self.x.shape[1], dtype=torch.float64, device=device)
        return self.log_weight.to(precise_device(self.log_weight.device)).double().softmax(dim=1)


class Velocity:
    """The field in unit time: every sample travels from its ``start`` (u = 0) to its ``stop`` (u = 1).

    Solvers therefore integrate from 0 to 1, whatever the samples' own times and directions are. Evaluations are counted
    and checked here, once for all solvers.

    Parameters
    ----------
    field
        The field, called as ``field(t, x, condition)``.
    x
        States where all begin, shape ``(n, ...)``.
    start, stop
        Times, one number or shape ``(n,)``.
    condition
        Condition of the field, or ``None``.
    """

    def __init__(
        self, field: Field, x: Tensor, start: float | Tensor, stop: float | Tensor, condition: Tensor | None
    ) -> None:
        self.field, self.x = field, x
        self.condition = condition
        self.start, self.stop = time_of(start, x), time_of(stop, x)
        self.evaluations = 0

    def __call__(self, u: float | Tensor, x: Tensor) -> Tensor:
        """Return dx/du, shape ``(n, ...)``."""
        t = torch.lerp(self.start, self.stop, torch.as_tensor(u, dtype=x.dtype, device=x.device).reshape(()))
        velocity = outputs(self.field(t, x, self.condition)).velocity
        self.evaluations += 1
        if velocity.shape != x.shape:
            message = (
                f"Expected a velocity of the states' shape {tuple(x.shape)}; the field returned "
                f"{tuple(velocity.shape)}."
            )
            raise ValueError(message)
        check_finite(velocity, t, field=self.field, x=x, start=self.x)
        return velocity * per_sample(self.stop - self.start, x)


def saved_times(x: Tensor, start: float | Tensor, stop: float | Tensor, save: int) -> Tensor:
    """Return the times of the saved states, ``(save,)`` for one clock and ``(save, n)`` for one a sample."""
    own_clocks = any(isinstance(end, Tensor) and end.ndim > 0 for end in (start, stop))
    shape = x.shape[:1] if own_clocks else ()
    first, last = (torch.as_tensor(end, dtype=x.dtype, device=x.device).expand(shape) for end in (start, stop))
    fractions = torch.linspace(0.0, 1.0, save, dtype=x.dtype, device=x.device)
    return torch.lerp(first, last, fractions.reshape(-1, *(1,) * first.ndim))


def check_states(x: Tensor, condition: Tensor | None = None, *, some: bool = False) -> None:
    """Raise unless states are finite floating-point numbers, and conditions finite numbers.

    Parameters
    ----------
    x, condition
        States and conditions, ``(n, ...)``.
    some
        Whether there must be one.

    Raises
    ------
    TypeError
        When states are of another kind.
    ValueError
        When some are NaN or infinite, or a tensor is sparse, nested, complex, or on the meta device.
    """
    check_dense(x, what="`x`")
    if not x.is_floating_point() or x.ndim == 0:
        message = (
            f"Expected floating-point states of shape (n, ...); found shape {tuple(x.shape)} of {x.dtype}. "
            "Convert them first, for example with `x.float()`."
        )
        raise TypeError(message)
    if some and not x.numel():
        raise ValueError(f"Expected at least one state in `x`; found shape {tuple(x.shape)}.")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("The states at `start` hold NaN or infinity. Remove or impute these samples first.")
    if condition is not None:
        check_dense(condition, what="`condition`")
        finite(condition, what="`condition`")
