"""Why an integration left the finite numbers, and what cures it."""

from inspect import unwrap
from typing import Any

import torch
from torch import Tensor, nn

from cellflow.errors import ConvergenceError

GROWN = 1e3
"""How many times farther than all states at the start a state must be for the steps to have taken it there."""


def check_finite(found: Tensor, t: Tensor, *, field: Any, x: Tensor, start: Tensor) -> None:
    """Raise if a sample is not finite, with the time, the cause and the cure.

    Parameters
    ----------
    found
        Velocities or states, ``(n, ...)``.
    t
        Their times ``(n,)``.
    field
        What was evaluated; a module's weights are looked at.
    x
        Where it was evaluated, ``(n, ...)``.
    start
        States at the start ``(n, ...)``.

    Raises
    ------
    ConvergenceError
        When a value is infinite or not a number: since states have grown, or since the field returns such numbers.
    ValueError
        When the weights of the field are not finite.
    """
    # A sum is finite only if every value is, and is the cheaper question; only its answer no needs a closer look.
    if bool(torch.isfinite(found.sum())) or bool(torch.isfinite(found).all()):
        return
    broken = ~torch.isfinite(found).reshape(len(found), -1).all(dim=1)
    where = f"at t = {t[broken][0].item():.4g}, for {int(broken.sum())} of {len(found)} samples"
    check_weights(field)
    there, before = x[broken].abs(), float(start.abs().max())
    far = float(there.max()) if bool(torch.isfinite(there).all()) else torch.inf
    if far > GROWN * max(before, torch.finfo(x.dtype).tiny):
        raise ConvergenceError(
            f"Integration left the finite numbers {where}, after states had grown from {before:.2g} to {far:.2g}. Take "
            "more `steps`, a higher-order method, or `cf.integrate.Adaptive()`; when that does not help, the field "
            "itself grows without bound there."
        )
    raise ConvergenceError(
        f"The field returned NaN or infinity {where}, at states of up to {far:.2g}: not a matter of steps. Check what "
        "`field(t, x, condition)` returns there: a division by 0, an unknown time, numbers beyond "
        f"{torch.finfo(x.dtype).max:.1g}."
    )


def check_weights(field: Any) -> None:
    """Raise if a module, or a module inside a function (``__wrapped__``), has weights that are not finite.

    Raises
    ------
    ValueError
        With the name of the weight.

    Examples
    --------
    >>> check_weights(nn.Linear(1, 1))
    """
    field = unwrap(field)
    if not isinstance(field, nn.Module):
        return
    trained = {name for name, _ in field.named_parameters()}
    for name, weight in field.state_dict().items():
        if not isinstance(weight, Tensor) or not weight.is_floating_point():
            continue
        if (weight.isnan() | (weight.isinf() if name in trained else False)).any():  # masks are infinite by design
            raise ValueError(
                f"The weights of the field hold NaN or infinity, in `{name}`: it can return nothing else. Load them "
                "from an undamaged file, or train again."
            )
