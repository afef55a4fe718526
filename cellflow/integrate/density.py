"""Log densities under a flow: the instantaneous change of variables."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cellflow.fields import Field, outputs
from cellflow.integrate.ode import ELSEWHERE, ode
from cellflow.integrate.solvers import Adaptive, Fixed, resolve
from cellflow.integrate.tables import Table
from cellflow.integrate.trajectory import check_states
from cellflow.signature import checked_but


@checked_but("solver")
def log_density(
    field: Field,
    x: Tensor,
    base_log_density: Callable[[Tensor], Tensor],
    *,
    solver: Fixed | Adaptive | Table | str | int = Fixed(),
    start: float | Tensor = 0.0,
    stop: float | Tensor = 1.0,
    condition: Tensor | None = None,
    n_probes: int | None = None,
    generator: torch.Generator | None = None,
    gradient: bool = False,
    **old: Any,
) -> Tensor:
    r"""Return the log density of samples ``x`` at ``stop``, for a known density at ``start``.

    The samples and the divergence of the field are integrated together from ``stop`` back to ``start``:

    .. math:: \log p_{stop}(x) = \log p_{start}(x_{start}) - \int_{start}^{stop} \nabla \cdot field \, dt

    Parameters
    ----------
    field
        ``field(t, x, condition)``. It must treat samples independently (no batch statistics) and be differentiable.
    x
        Samples at ``stop``, shape ``(n, ...)``.
    base_log_density
        Log density at ``start``: states ``(n, ...)`` to ``(n,)``.
    solver, condition, gradient
        As in `ode`.
    start, stop
        Times of the base density and of ``x``, one number or one for each sample, shape ``(n,)``.
    n_probes
        ``None`` for the exact divergence: one backward pass for each coordinate. A number of random sign vectors, fixed
        along the trajectory, for Hutchinson's unbiased estimate.
    generator
        Draws the signs; required with ``n_probes``, and only then.

    Returns
    -------
    log_density
        Shape ``(n,)``, in nats.

    Raises
    ------
    ValueError
        When only one of ``generator`` and ``n_probes`` is given, or the field is not differentiable.

    Source
    ------
    Chen, Rubanova, Bettencourt and Duvenaud 2018, "Neural ordinary differential equations", theorem 1;
    Grathwohl et al. 2019, "FFJORD", section 3.1 (the estimate with fixed probes).

    Examples
    --------
    >>> import torch
    >>> def standard_normal(x):
    ...     return torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
    >>> x = torch.zeros(1, 2)
    >>> log_p = log_density(lambda t, x, condition: x, x, standard_normal)  # both axes stretched e-fold
    >>> round((standard_normal(x) - log_p).item(), 3)
    2.0
    """
    solver = resolve(solver, default=Fixed(), verb="integrate.log_density", **ELSEWHERE, old=old)
    check_states(x, some=True)
    directions, weight = _directions(x, n_probes, generator)

    def with_divergence(t: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        state = z[:, :-1].reshape(x.shape)
        velocity, divergence = _divergence(field, t, state, condition, directions)
        return torch.cat([velocity.reshape(len(x), -1), weight * divergence.unsqueeze(1)], dim=1)

    with_divergence.__wrapped__ = field  # type: ignore[attr-defined]
    z = torch.cat([x.reshape(len(x), -1), x.new_zeros(len(x), 1)], dim=1)
    backwards = ode(
        with_divergence, z, solver=solver, start=stop, stop=start, condition=condition, gradient=gradient
    )  # fmt: skip
    origin, minus_integral = backwards.x[-1][:, :-1].reshape(x.shape), backwards.x[-1][:, -1]
    base = base_log_density(origin)
    if not isinstance(base, Tensor) or base.shape != minus_integral.shape:
        found = getattr(base, "shape", type(base).__name__)
        message = f"Expected `base_log_density` to return shape ({len(x)},); found {found}."
        raise ValueError(message)
    return base + minus_integral


def _directions(x: Tensor, n_probes: int | None, generator: torch.Generator | None) -> tuple[Tensor, float]:
    """Return directions e, ``(k, n or 1, ...)``, and a weight: the divergence is weight * sum of e'(dv/dx)e.

    The coordinate axes give it exactly, random signs without bias.
    """
    if (n_probes is None) != (generator is None):
        message = (
            "`n_probes` and `generator` belong together: give both for Hutchinson's estimate, neither for the exact "
            f"divergence. Found n_probes={n_probes!r}, generator={generator!r}."
        )
        raise ValueError(message)
    if n_probes is None:
        n_coordinates = x[:1].numel()
        axes = torch.eye(n_coordinates, dtype=x.dtype, device=x.device)
        return axes.reshape(n_coordinates, 1, *x.shape[1:]), 1.0
    if n_probes < 1:
        message = f"`n_probes` must be at least 1; found {n_probes}."
        raise ValueError(message)
    drawn_on = generator.device if generator is not None else x.device
    bits = torch.randint(2, (n_probes, *x.shape), generator=generator, device=drawn_on)
    return (2 * bits - 1).to(x), 1 / n_probes


def _divergence(
    field: Field, t: Tensor, x: Tensor, condition: Tensor | None, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the velocity, and the sum over ``directions`` of e'(dv/dx)e, shape ``(n,)``."""
    keep_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if keep_graph and x.requires_grad else x.detach().requires_grad_()
        velocity = outputs(field(t, x, condition)).velocity
        if not velocity.requires_grad:
            message = (
                "The field returned a velocity without a graph, so its divergence is unknown. Remove "
                "`torch.no_grad` or `detach` from it; if it really does not depend on x, add `0 * x`."
            )
            raise ValueError(message)
        total = x.new_zeros(len(x))
        for direction in directions.expand(-1, *x.shape):
            (row,) = torch.autograd.grad(
                velocity,
                x,
                direction,
                retain_graph=True,
                create_graph=keep_graph,
                materialize_grads=True,
            )
            total = total + (row * direction).reshape(len(x), -1).sum(1)
    return (velocity, total) if keep_graph else (velocity.detach(), total.detach())
