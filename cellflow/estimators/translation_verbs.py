"""A fitted `DomainTranslator` carries samples across, and back: its verbs, bound in its class."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from cellflow import integrate, paths
from cellflow.cells.decoders import Decoder
from cellflow.cells.decoding import Decode, Genes, read_decoder
from cellflow.cells.loadings import Loadings
from cellflow.estimators.conditional_verbs import Condition, asked, check_guidance, check_part, in_turn, own, relabelled
from cellflow.estimators.domains import Domain, Points, Samples, given_back, read_domain
from cellflow.estimators.guidance import Guided
from cellflow.estimators.latents import latents, pixels
from cellflow.estimators.pixel_levels import check_levels
from cellflow.estimators.portions import at_once, in_parts
from cellflow.estimators.representation import check_cells
from cellflow.estimators.tiling import by_tiles
from cellflow.integrate import Adaptive, Fixed, Jumps, Noisy, Solver, Trajectory
from cellflow.renamed import renamed
from cellflow.seeds import generator
from cellflow.signature import checked, checked_but
from cellflow.training.recipe import check_settings

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators.translation import DomainTranslator

TRANSLATION, TRAJECTORY, SIMULATION = Fixed("midpoint", steps=20), Fixed("midpoint", steps=24), Noisy(steps=50)
"""Default solvers: without noise, for trajectories, and with noise."""


@checked_but("solver", "condition", "genes", "decode")
def translate(
    self: "DomainTranslator",
    x: Samples,
    *,
    condition: Condition | None = None,
    guidance: float = 1.0,
    reverse: bool = False,
    genes: Genes = "auto",
    layer: str | None = None,
    use_raw: bool = False,
    decode: Decode | None = None,
    solver: Fixed | Adaptive | Jumps | str | int = TRANSLATION,
    overlap: int | None = None,
    batch_size: int | None = None,
    **old: Any,
) -> Any:
    """Carry samples from the source domain to the target domain, without noise.

    Parameters
    ----------
    x
        Samples of the source domain, in any form that `fit` takes.
    condition
        If conditions were learned, the one to carry to: a value for each column, as ``{"drug": "A+B", "dose": 3.0}``,
        or a column of values, or a data frame with a row for each sample. Categories and numbers that it leaves out are
        those of the samples. By default each sample has its own, from its ``obs``, which is that of the target: leave
        it out with ``reverse=True``.
    guidance
        Strength of guidance towards the condition: 1 for none, larger values for more typical and less diverse samples.
        Needs ``condition_dropout``.
    reverse
        Whether to carry samples of the target domain back; the inverse, up to the error of the solver.
    genes
        For cells: whether to decode genes through the stored PCA loadings, or the names of those to decode. ``"auto"``
        decodes all genes of the PCA if there are loadings that fit ``X`` and the result takes at most 1 GiB.
    layer, use_raw
        Where the expression is from which the PCA was computed: a layer, or ``raw``; by default ``X``.
    decode
        Another decoder: `cellflow.cells.Decoder`, or a function from states ``(n, d)`` to the genes of ``var_names``.
    solver
        `cellflow.integrate.Fixed`, `Adaptive`, or, once there is a flow map (`distill`), `Jumps`; or the name of a
        method, or a number of steps.
    overlap
        For images larger than those of the fit, such as whole microscope fields: they are carried in tiles of that
        size, which overlap by at least so many pixels and are blended. A quarter of a tile leaves no seams. A field
        smaller than a tile is padded at its border.
    batch_size
        Samples at a time; ``None`` for as many as are quickest on the device. The result does not depend on it,
        but for the tolerance of an `Adaptive` solver, whose steps are those of all that are carried together.

    Returns
    -------
    The same as ``x``: images with their names, bytes as bytes, cells as a new AnnData with ``obs``, the
    representation and, in ``X``, decoded genes in the units of the PCA's input, with ``"variance_carried"`` and
    ``"genes_left_out"`` in ``uns["translation"]``, as from `cellflow.tl.interpolate`; for both, ``obs`` has the
    requested condition, with the control in columns of treatments that it leaves out.

    Raises
    ------
    NotFittedError
        Before ``fit``; with ``Jumps``, before ``distill``.
    TypeError
        For a solver with noise: `simulate` takes it.
    ValueError
        When the shape or kind of samples differs from the fit; when a name in the condition is unknown, or no condition
        is needed or possible.
    KeyError
        When the condition lacks a column or has an extra one.
    """
    chosen = integrate.resolve(
        solver, default=TRANSLATION, verb="DomainTranslator.translate", noisy="simulate", old=old
    )
    if overlap is not None:
        given = {"condition": condition, "guidance": guidance, "reverse": reverse, "solver": chosen}
        return by_tiles(self, x, overlap, **given, batch_size=batch_size)
    domain, rows = _known(self, x, condition, reverse=reverse)
    check_guidance(self, guidance, chosen)
    decoder = _decoder(self, x, genes, {"decode": decode, "layer": layer, "use_raw": use_raw})
    size = at_once(batch_size, self._state_shape, next(self.field_.parameters()).device)
    flow = _smooth(self, chosen, in_turn(rows, size), guidance, save=2, reverse=reverse)
    carried = _carried(flow, self, domain, size).x[-1]
    return _back(self, carried, x, condition, decoder, reverse=reverse)


@checked_but("solver", "condition", "genes", "decode")
def simulate(
    self: "DomainTranslator",
    x: Samples,
    *,
    condition: Condition | None = None,
    reverse: bool = False,
    genes: Genes = "auto",
    layer: str | None = None,
    use_raw: bool = False,
    decode: Decode | None = None,
    strength: float = 1.0,
    solver: Noisy | str | int = SIMULATION,
    seed: int = 0,
    batch_size: int = 128,
    **old: Any,
) -> Any:
    """Carry samples from the source domain to the target domain with noise: each has many possible outcomes.

    The last step of images (bytes) has no noise, which would remain visible.

    Parameters
    ----------
    x, condition, reverse, genes, layer, use_raw, decode
        As for `translate`.
    strength
        The share of the path to follow: below 1, samples start part of the way along it, with the noise of the bridge
        from a sample to itself there, and keep more of themselves (Meng et al. 2022). Flows without noise, which could
        not discard anything, have none: see `cellflow.ImageGenerator.translate`.
    solver
        `cellflow.integrate.Noisy`; or its method, or its number of steps, of which the share ``strength`` is taken.
    seed
        Seed of the noise.
    batch_size
        Samples at a time; the noise depends on it.

    Returns
    -------
    The same as ``x``, see `translate`.

    Raises
    ------
    TypeError
        When the flow was fitted without a score, or for a solver without noise: `translate` takes it.
    ValueError
        As for `translate`; when ``strength`` is not above 0 and at most 1.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x = torch.randn(50, 2, generator=cf.generator(seed=0))
    >>> model = cf.DomainTranslator(path=cf.paths.BrownianBridge(0.5), stochastic=True, steps=20).fit(x, x + 3)
    >>> model.simulate(x[:5]).shape
    torch.Size([5, 2])
    """
    chosen: Noisy = integrate.resolve(
        solver, default=SIMULATION, verb="DomainTranslator.simulate", smooth="translate", old=old
    )
    check_part(strength)
    domain, rows = _known(self, x, condition, reverse=reverse)
    decoder = _decoder(self, x, genes, {"decode": decode, "layer": layer, "use_raw": use_raw})
    steps = max(1, round(strength * chosen.steps))
    chosen = replace(chosen, steps=steps, denoise=steps > 1 if self.pixels_ else chosen.denoise)
    part: dict[str, Any] = {"seed": seed, "save": 2, "reverse": reverse, "first": 1 - strength}
    flow = _noisy(self, chosen, in_turn(rows, batch_size), **part)
    carried = _carried(flow, self, domain, batch_size).x[-1]
    return _back(self, carried, x, condition, decoder, reverse=reverse)


@checked_but("solver", "condition")
def trajectory(
    self: "DomainTranslator",
    x: Samples,
    *,
    save: int = 9,
    condition: Condition | None = None,
    guidance: float = 1.0,
    reverse: bool = False,
    solver: Solver | str | int = TRAJECTORY,
    seed: int | None = None,
    batch_size: int = 128,
    **old: Any,
) -> Trajectory:
    """Return trajectories from one domain to the other.

    Parameters
    ----------
    x, condition, guidance, reverse
        As for `translate`; with noise there is no guidance.
    save
        Number of equally spaced times, including both ends.
    solver
        Any solver: without noise, as in `translate`, or `cellflow.integrate.Noisy`, as in `simulate`.
    seed
        Seed of the noise; ``None`` for 0.
    batch_size
        Samples at a time.

    Returns
    -------
    Trajectory
        Model times from 0 to 1, or back, and states ``(save, n, ...)`` on the CPU: pixels from -1 to 1, or numbers
        in the units of the data.
    """
    chosen: Solver = integrate.resolve(solver, default=TRAJECTORY, verb="DomainTranslator.trajectory", old=old)
    if seed is not None and isinstance(chosen, Fixed):  # a seed alone used to ask for noise
        noisy = {"solver": Noisy(chosen.steps), "seed": seed}
        chosen = renamed("DomainTranslator.trajectory", {"seed": seed}, {"seed": lambda _: noisy})["solver"]
    domain, given = _known(self, x, condition, reverse=reverse)
    check_guidance(self, guidance, chosen)
    rows = in_turn(given, batch_size)
    if isinstance(chosen, Noisy):
        flow = _noisy(self, chosen, rows, seed=seed or 0, save=save, reverse=reverse)
    else:
        flow = _smooth(self, chosen, rows, guidance, save=save, reverse=reverse)
    found = _carried(flow, self, domain, batch_size)
    return found._replace(x=pixels(self.autoencoder_, found.x))


def _known(
    flow: "DomainTranslator", x: Samples, condition: Condition | None, *, reverse: bool
) -> tuple[Domain, Tensor | None]:
    """Return samples as a domain, and what the field sees of their conditions; refuse others than the fit takes."""
    flow._check_fitted()
    domain = read_domain(x, rep=flow.rep)
    check_domain(flow, domain)
    check_levels(flow.levels_[int(reverse)], x, again=f"flow.levels_[{int(reverse)}]")
    check_cells(flow, x, domain)
    obs = getattr(x, "obs", None)
    rows = own(flow, obs) if condition is None else asked(flow, condition, len(domain), obs=obs)
    return domain, None if rows is None else rows.to(next(flow.field_.parameters()))


@checked
def check_domain(flow: "DomainTranslator", domain: Domain) -> None:
    """Refuse samples of another shape or kind than those of the fit."""
    if tuple(domain.shape) != flow.shape_:
        raise ValueError(
            f"Expected samples of shape {flow.shape_}, as in `fit`; found {tuple(domain.shape)}." + _ways(flow, domain)
        )
    if isinstance(domain, Points) == flow.pixels_:
        kinds = ("images as bytes (uint8)", "numbers other than bytes")
        expected, found = kinds if flow.pixels_ else reversed(kinds)
        raise ValueError(f"Expected {expected}, as in `fit`; found {found}.")


def _ways(flow: "DomainTranslator", domain: Domain) -> str:
    """Say what to do with images of another size."""
    if not flow.pixels_ or len(domain.shape) != len(flow.shape_) or domain.shape[0] != flow.shape_[0]:
        return ""
    side, least = f"({flow.shape_[1]}, {flow.shape_[2]})", max(min(flow.shape_[1:]) // 4, 1)
    return (
        f" `translate(..., overlap={least})` carries whole fields in tiles; or read the images with `size={side}`, "
        'which scales them, and `fit="tiles"`, which cuts them.'
    )


def _carried(
    carry: Callable[[Tensor], Trajectory], flow: "DomainTranslator", domain: Domain, batch_size: int
) -> Trajectory:
    return in_parts(carry, _parts(flow, domain, batch_size), n=len(domain), batch_size=batch_size)


def _parts(flow: "DomainTranslator", domain: Domain, batch_size: int) -> Iterator[Tensor]:
    check_settings(1, batch_size, None)
    weight = next(flow.field_.parameters())
    rows = torch.arange(len(domain)).split(batch_size)
    return (latents(flow.autoencoder_, domain.scaled(some)).to(weight) for some in rows)


def _smooth(
    flow: "DomainTranslator",
    solver: Fixed | Adaptive | Jumps,
    rows: Iterator[Tensor | None],
    guidance: float,
    *,
    save: int,
    reverse: bool,
) -> Callable[[Tensor], Trajectory]:
    """Return the flow without noise; ``rows`` has the conditions of each part."""
    velocity, (start, stop) = flow._velocity(), (1.0, 0.0) if reverse else (0.0, 1.0)
    field = velocity if guidance == 1 else Guided(velocity, guidance)
    return lambda x: flow._carry(field, x, solver, start=start, stop=stop, save=save, condition=next(rows))


def _noisy(
    flow: "DomainTranslator",
    solver: Noisy,
    rows: Iterator[Tensor | None],
    *,
    seed: int,
    save: int,
    reverse: bool,
    first: float = 0.0,
) -> Callable[[Tensor], Trajectory]:
    """Return the simulation from a share of the way to its end; ``rows`` has the conditions of each part."""
    if not flow.stochastic:
        raise TypeError(
            "This flow was fitted without a score and cannot be simulated with noise. Fit one with "
            "`DomainTranslator(path=cf.paths.BrownianBridge(sigma), stochastic=True)`, or use `translate`."
        )
    start, stop = (1 - first, 0.0) if reverse else (first, 1.0)
    rng = generator(seed=seed, device=next(flow.field_.parameters()).device)
    path, field = paths.resolve(flow.path), flow.field_

    def simulated(x: Tensor) -> Trajectory:
        if first > 0:
            spread = float(path.coefficients(torch.tensor([first]))[2])
            x = x + spread * torch.randn(x.shape, generator=rng, dtype=x.dtype, device=x.device)
        span: dict[str, Any] = {"start": start, "stop": stop, "condition": next(rows)}
        return integrate.sde(field, x, sigma=path.sigma, solver=solver, save=save, generator=rng, **span)

    return simulated


def _decoder(flow: "DomainTranslator", x: Samples, genes: Genes, how: dict[str, Any]) -> Loadings | Decoder | None:
    """Return what decodes the genes of cells; ``None`` where samples are no cells, or have no genes."""
    if hasattr(x, "obsm"):
        adata = cast("AnnData", x)
        return read_decoder(adata, flow.rep, genes=genes, width=flow.shape_[0], rows=adata.n_obs, **how)
    if any(how.values()) or not (genes is False or (isinstance(genes, str) and genes == "auto")):
        raise ValueError(
            f"Genes are decoded only for cells (AnnData); found {type(x).__name__}. Leave `genes` and `decode` out."
        )
    return None


def _back(
    flow: "DomainTranslator",
    states: Tensor,
    given: Samples,
    condition: Condition | None,
    decoder: Loadings | Decoder | None,
    *,
    reverse: bool,
) -> Any:
    keep = bool(flow.within_labels)
    levels = flow.levels_[0 if reverse else 1]
    states = pixels(flow.autoencoder_, states.float())
    found = given_back(states, given, rep=flow.rep, keep_labels=keep, levels=levels, decoder=decoder)
    return found if reverse else relabelled(found, condition, flow.conditions_)
