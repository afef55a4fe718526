"""Solvers: fixed and adaptive steps, jumps, and noise; methods of cellflow, of torchdiffeq and of torchdyn (extra)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cellflow.errors import ConvergenceError, optional, unknown
from cellflow.integrate.tables import TABLES, Table
from cellflow.integrate.trajectory import Velocity
from cellflow.renamed import renamed
from cellflow.seeds import precise_device
from cellflow.signature import checked_but

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2")
"""The adaptive methods of torchdiffeq; orders 5, 8, 3, 2 and 2."""
NOISY = ("heun", "euler_maruyama")
"""The methods for stochastic differential equations."""
TORCHDYN = "torchdyn:"
"""Prefix of torchdyn's methods."""
MOST_POWER = 3
"""At higher powers the last of a hundred steps is shorter than single precision can tell from the end."""
MOST_EVALUATIONS = 100_000
"""Most evaluations of an adaptive method; a tolerance below the resolution of the dtype would never be met."""


@dataclass(frozen=True)
class Fixed:
    """Equal steps of one method, without noise.

    The default: an adaptive method chooses its steps for the whole batch, so that the path of a cell would depend on
    the other cells.

    Parameters
    ----------
    method
        ``"euler"``, ``"midpoint"``, ``"heun"``, ``"rk4"``, ``"torchdyn:<name>"``, or your own `Table`.
    steps
        Number of steps, rounded up so that they divide evenly between the states that are kept.

    Raises
    ------
    ValueError
        For an unknown or adaptive method, or when ``steps`` is not a whole number >= 1.
    MissingDependencyError
        For a method of torchdyn, if that is not installed.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> decay = lambda t, x, condition: -x
    >>> cf.integrate.ode(decay, torch.ones(1, 1), solver=Fixed("heun", steps=50)).x[-1]
    tensor([[0.3679]])
    """

    method: str | Table = "rk4"
    steps: int = 20

    def __post_init__(self) -> None:
        _whole(self.steps)
        if _adaptive(self.method):
            raise ValueError(f"{self.method!r} chooses its own steps. Take `Adaptive({self.method!r})`.")

    def advance(self, velocity: Velocity, x: Tensor, k: int, parts: int) -> Tensor:
        """Advance ``x`` over part ``k`` of the unit of time that is cut into ``parts``."""
        steps, u, end = math.ceil(self.steps / parts), k / parts, (k + 1) / parts
        table = self.method if isinstance(self.method, Table) else TABLES.get(self.method)
        if table is None:
            return _fixed_torchdyn(str(self.method).removeprefix(TORCHDYN), velocity, x, u, end, steps)
        du = (end - u) / steps
        for j in range(steps):
            x = table.step(velocity, x, u + j * du, du)
        return x


@dataclass(frozen=True)
class Adaptive:
    """Adaptive steps, the same for the whole batch, without noise.

    Estimators carry all cells in one batch with it, in memory that grows with their number: steps of their own for some
    of the cells would change these by more than the tolerances. For hundreds of thousands of cells take `Fixed`.

    Parameters
    ----------
    method
        ``"dopri5"``, ``"dopri8"``, ``"bosh3"``, ``"adaptive_heun"`` or ``"fehlberg2"`` of torchdiffeq, or
        ``"torchdyn:<name>"``.
    rtol, atol
        Tolerances, relative to the states and in their units.

    Raises
    ------
    ValueError
        For an unknown method, one of fixed steps, or tolerances below 0.
    MissingDependencyError
        For a method of torchdyn, if that is not installed.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> decay = lambda t, x, condition: -x
    >>> cf.integrate.ode(decay, torch.ones(1, 1), solver=Adaptive("dopri5")).x[-1]
    tensor([[0.3679]])
    """

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5

    def __post_init__(self) -> None:
        if not _adaptive(self.method):
            raise ValueError(f"{self.method!r} takes fixed steps. Take `Fixed({self.method!r}, steps=20)`.")
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if not isinstance(value, Real) or not 0 <= value < math.inf:
                raise ValueError(f"Expected a finite `{name}` >= 0; found {value!r}.")

    def advance(self, velocity: Velocity, x: Tensor, k: int, parts: int) -> Tensor:
        """Advance ``x`` over part ``k`` of the unit of time that is cut into ``parts``."""
        u, end = k / parts, (k + 1) / parts
        tolerances: dict[str, Any] = {"rtol": self.rtol, "atol": self.atol}
        found: Tensor
        if self.method.startswith(TORCHDYN):
            slope, span = _bounded(velocity, _stretched(velocity, u, end)), x.new_tensor([0.0, 1.0])
            method = self.method.removeprefix(TORCHDYN)
            found = _torchdyn().odeint(slope, x, span, method, return_all_eval=True, **tolerances)[1][-1]
            return found
        from torchdiffeq import odeint

        span = x.new_tensor([u, end])
        # Without `step_t` the last step runs past the end, where no field was trained, and interpolates back.
        tolerances["options"] = {"step_t": span[1:]}
        if precise_device(x.device) != x.device:  # torchdiffeq's own clock is in double precision
            tolerances["options"]["dtype"] = x.dtype
        try:
            found = odeint(_bounded(velocity, velocity), x, span, method=self.method, **tolerances)[-1]
            return found
        except AssertionError as error:
            # torchdiffeq says with a bare assertion that its step has become too small to move the clock.
            if "underflow in dt" not in str(error):
                raise
            message = f"{self.method!r} cannot meet rtol={self.rtol}, atol={self.atol} in {x.dtype}; {_CURE}"
            raise ConvergenceError(message) from error


@dataclass(frozen=True)
class Jumps:
    """Equal jumps of a flow map, which a flow has once it is distilled.

    Parameters
    ----------
    steps
        Number of jumps; one may be enough.

    Raises
    ------
    ValueError
        When it is not a whole number >= 1.

    Examples
    --------
    >>> Jumps()
    Jumps(steps=1)
    """

    steps: int = 1

    def __post_init__(self) -> None:
        _whole(self.steps)


@dataclass(frozen=True)
class Noisy:
    """Steps with noise, for a flow that has learned a score.

    Parameters
    ----------
    steps
        Number of steps, rounded up so that they divide evenly between the states that are kept.
    method
        ``"heun"``: of weak order 2, as the noise does not depend on the state, with two evaluations for each step; or
        ``"euler_maruyama"``.
    power
        1 for equal steps. Above that steps become smaller towards the end: after the share ``u`` of the steps,
        ``1 - (1 - u)**power`` of the time has passed. Images need that: the noise that the last of equal steps meets
        hides their texture. If states between are kept, the steps before the last of them are equal.
    denoise
        Whether the last step has no noise, and leads to the mean of what is expected there: for images, in which the
        noise of a step remains visible. `cellflow.DomainTranslator.simulate` does so for images in any case.

    Raises
    ------
    ValueError
        For an unknown method, when the number of steps is not a whole number >= 1, or for a power below 1.
    TypeError
        When ``denoise`` is neither true nor false.

    Source
    ------
    Kloeden and Platen 1992, section 15.1, for the second-order scheme; Karras et al. 2022, equation 5, for smaller
    steps where noise is to vanish; Jolicoeur-Martineau et al. 2021, section 3.1, for a last step without noise.

    Examples
    --------
    >>> Noisy(50)
    Noisy(steps=50, method='heun', power=1.0, denoise=False)
    >>> [round(length, 2) for _, length in Noisy(4, power=2).schedule(1)]
    [0.44, 0.31, 0.19, 0.06]
    """

    steps: int = 100
    method: str = "heun"
    power: float = 1.0
    denoise: bool = False

    def __post_init__(self) -> None:
        _whole(self.steps)
        if not isinstance(self.method, str) or self.method not in NOISY:
            raise ValueError(unknown("method", self.method, NOISY))
        if not isinstance(self.power, Real) or isinstance(self.power, bool) or not 1 <= self.power <= MOST_POWER:
            raise ValueError(f"Expected a `power` from 1 to {MOST_POWER}; found {self.power!r}.")
        if not isinstance(self.denoise, bool):
            raise TypeError(f"Expected `denoise` to be True or False; found {self.denoise!r}.")

    def schedule(self, parts: int) -> list[tuple[float, float]]:
        """Return beginning and length of each step, as shares of the time; states are kept after equal ``parts``."""
        stretch = math.ceil(self.steps / parts)
        equal = stretch * parts
        found = [(k / equal, 1 / equal) for k in range(equal)]
        if self.power > 1:
            left = [(1 - k / stretch) ** self.power / parts for k in range(stretch + 1)]
            found[-stretch:] = [(1 - now, now - then) for now, then in pairwise(left)]
        return found


Solver: TypeAlias = Fixed | Adaptive | Jumps | Noisy


@checked_but("solver")
def resolve(
    solver: Solver | Table | str | int,
    *,
    default: Solver,
    verb: str,
    smooth: str | None = None,
    noisy: str | None = None,
    jumps: str | None = None,
    old: Mapping[str, Any] | None = None,
) -> Any:
    """Return the solver of a call.

    Parameters
    ----------
    solver
        A solver; a method, with the default's number of steps; or a number of steps of the default.
    default
        The default of the function.
    verb
        Name of the function in messages: ``"SnapshotFlow.transport"``.
    smooth, noisy, jumps
        What to use for a solver without noise, with noise, or with jumps, if the function does not take it.
    old
        Former keywords: ``steps``, ``method``, ``rtol``, ``atol`` and ``jumps``.

    Raises
    ------
    TypeError
        For a solver that the function does not take, something that is not a solver, or unknown keywords.
    ValueError
        For an unknown method, or when the number of steps is not a whole number >= 1.

    Warns
    -----
    FutureWarning
        For former keywords; the message names the solver.

    Examples
    --------
    >>> resolve(5, default=Fixed("midpoint"), verb="translate"), resolve("bosh3", default=Fixed(), verb="ode")
    (Fixed(method='midpoint', steps=5), Adaptive(method='bosh3', rtol=1e-05, atol=1e-05))
    """
    if old:
        names = ("steps", "method") if isinstance(default, Noisy) else ("steps", "method", "rtol", "atol", "jumps")
        found = renamed(verb, old, {names: lambda **given: {"solver": _from_old(default, given)}})["solver"]
        if solver != default:
            raise TypeError(f"{verb}() was given `solver={solver!r}` and {', '.join(old)}. Give only the solver.")
        solver = found
    if isinstance(solver, str | Table):
        solver = _named(solver, default)
    elif isinstance(solver, Real):
        solver = replace(default, steps=solver)  # type: ignore[arg-type]
    if not isinstance(solver, Solver):
        known = "`cf.integrate.Fixed('rk4', steps=20)`, the name of a method or a number of steps"
        raise TypeError(f"{verb}() expected `solver` to be such as {known}; found {solver!r}.")
    if other := {Noisy: noisy, Jumps: jumps or smooth}.get(type(solver), smooth):
        raise TypeError(f"{verb}() takes no {type(solver).__name__} solver; found {solver!r}. Use `{other}` for that.")
    return solver


def _named(method: str | Table, default: Solver) -> Solver:
    smooth = isinstance(method, Table) or method in {*TABLES, *ADAPTIVE} or str(method).startswith(TORCHDYN)
    if isinstance(default, Noisy) and (method in NOISY or not smooth):
        return replace(default, method=str(method))
    if method in NOISY and not smooth:
        return Noisy(method=str(method))
    if _adaptive(method):
        return Adaptive(str(method))
    return replace(default if isinstance(default, Fixed) else Fixed(), method=method)


def _from_old(default: Solver, given: Mapping[str, Any]) -> Solver:
    """Return the solver of former keywords."""
    if given.get("jumps") is not None:
        return Jumps(given["jumps"])
    method, rtol, atol = (given.get(name) for name in ("method", "rtol", "atol"))
    found = default if method is None else _named(method, default)
    if isinstance(found, Adaptive):
        if given.get("steps") is not None:
            raise ValueError(f"`steps` belongs to fixed-step methods; {method!r} is adaptive: set its tolerances.")
        return Adaptive(found.method, *(1e-5 if value is None else value for value in (rtol, atol)))
    if rtol is not None or atol is not None:
        raise ValueError(f"`rtol` and `atol` belong to adaptive methods; {found} takes fixed steps.")
    steps = given.get("steps", found.steps)
    return replace(found, steps=20 if steps is None else steps)


def _whole(steps: object) -> None:
    if not isinstance(steps, Integral) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"Expected `steps` to be a whole number >= 1; found {steps!r}.")


def _adaptive(method: object) -> bool:
    """Return whether a method chooses its own steps; refuse an unknown one."""
    if isinstance(method, Table) or (isinstance(method, str) and method in (*TABLES, *ADAPTIVE)):
        return method in ADAPTIVE
    if not isinstance(method, str) or not method.startswith(TORCHDYN):
        raise ValueError(unknown("method", method, [*TABLES, *ADAPTIVE, f"{TORCHDYN}<name>"]))
    _torchdyn()
    from torchdyn.numerics.solvers.ode import SOLVER_DICT

    name, second_order = method.removeprefix(TORCHDYN), ("alf", "AsynchronousLeapfrog")  # of positions and velocities
    solvers = {known: solver for known, solver in SOLVER_DICT.items() if known not in second_order}
    if name not in solvers:
        raise ValueError(unknown("torchdyn method", name, solvers))
    return bool(solvers[name]().stepping_class == "adaptive")


_CURE = (
    "loosen `rtol` and `atol`, use float64, or take a fixed-step method such as 'rk4'. "
    "A field that is stiff, or grows without bound, has the same symptom."
)


def _torchdyn() -> Any:
    return optional("torchdyn.numerics", install="pip install 'cellflow-torch[torchdyn]'")


def _fixed_torchdyn(method: str, velocity: Velocity, x: Tensor, u: float, end: float, steps: int) -> Tensor:
    from torchdyn.numerics.solvers.ode import SOLVER_DICT, RungeKutta4

    if method in ("ieuler", "implicit_euler") and torch.is_grad_enabled():  # their root finder ends on a new leaf
        raise ValueError(f"Gradients do not pass through torchdyn's {method!r}. Use an explicit method instead.")
    solver = SOLVER_DICT[method](dtype=x.dtype)
    if isinstance(solver, RungeKutta4) and len(solver.tableau[0]) == 4:
        # torchdyn 1.0.6 takes the times 0, 1/2, 1/2 of its table for those of slopes two to four, which are
        # 1/2, 1/2, 1: of first order where the field depends on time.
        times, *rest = solver.tableau
        solver.tableau = (times[1:], *rest)
    span = torch.linspace(0.0, 1.0, steps + 1, dtype=x.dtype, device=x.device)
    found: Tensor = _torchdyn().odeint(_stretched(velocity, u, end), x, span, solver, save_at=span[-1:])[1][-1]
    return found if torch.is_grad_enabled() else found.detach()


def _stretched(velocity: Velocity, u: float, end: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Stretch the time from ``u`` to ``end`` to 0..1.

    torchdyn's adaptive loop ends by comparing t + (T - t) with T, which is certain to agree in floating point
    for T = 1 only; where it does not, the loop never ends.
    """
    return lambda w, x: (end - u) * velocity(u + w * (end - u), x)


def _bounded(velocity: Velocity, slope: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Stop a method that does not end."""

    def bounded(u: Tensor, x: Tensor) -> Tensor:
        if velocity.evaluations >= MOST_EVALUATIONS:
            message = f"The tolerances were not met within {MOST_EVALUATIONS} evaluations of the field; {_CURE}"
            raise ConvergenceError(message)
        return slope(u, x)

    return bounded
