"""A simulated population that branches and grows, with velocities, fates and growth in closed form."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from cellflow.errors import ConvergenceError
from cellflow.signature import checked

_NEAREST = float(np.nextafter(1.0, 0.0))
_LONGEST = 300
"""How far a branch can be followed: e^300 is still a number when it is squared."""
_MOST_ROUNDS = 1000
"""Draws of founders; with growth as fast as cells can divide, a few suffice."""


@checked
@dataclass(frozen=True)
class Branching:
    r"""The dynamics of a branching population with two latent coordinates: progress p and branch q, with -1 < q < 1.

    .. math:: \dot p = speed, \qquad \dot q = split \, q \, (1 - q^2), \qquad
        \dot w / w = g(q) = \tfrac{1 + q}{2} g_{upper} + \tfrac{1 - q}{2} g_{lower}

    Cells start at p ~ Normal(0, spread^2), q = tanh(Normal(0, spread^2)), all with the weight w = 1. The middle q = 0
    is repelling: a cell ends at q = 1 ("upper") or q = -1 ("lower") by the sign of its q, which never changes. With
    :math:`s(q) = q / \sqrt{1 - q^2}` the flow is :math:`s(q_t) = s(q_0) e^{split \, t}`, and the weight follows from
    :math:`\int q \, dt = (\operatorname{artanh} q_t - \operatorname{artanh} q_0) / split`.

    Parameters
    ----------
    speed
        Progress per unit of time.
    split
        Rate at which the branches part, per unit of time.
    spread
        Standard deviation of the stem cells.
    growth
        Net division rate at the end of the lower and the upper branch, per unit of time; the trunk grows at their
        mean.

    Examples
    --------
    >>> law = Branching(speed=1.0, split=2.0)
    >>> law.velocity(np.array([[0.0, 0.5]]))
    array([[1.  , 0.75]])
    >>> law.flow(np.array([[0.0, 0.1]]), 3.0).round(2)
    array([[3., 1.]])
    """

    speed: float = 1.0
    split: float = 1.5
    spread: float = 0.2
    growth: tuple[float, float] = (0.0, 0.5)

    def __post_init__(self) -> None:
        if not 0 < self.split < np.inf or not 0 < self.spread < np.inf:
            message = f"`split` and `spread` must be positive and finite; found {self.split} and {self.spread}."
            raise ValueError(message)
        if not np.isfinite([self.speed, *self.growth]).all():
            raise ValueError(f"Expected finite `speed` and `growth`; found {self.speed} and {self.growth}.")

    def _grown(self, x: np.ndarray, duration: float) -> tuple[np.ndarray, np.ndarray]:
        """Return s(q) now, and after ``duration``."""
        if x.ndim != 2 or x.shape[1] != 2 or x.dtype.kind != "f" or not np.all(np.abs(x[:, 1]) <= 1):
            raise ValueError(f"Expected latent states (n, 2) with the second from -1 to 1; found shape {x.shape}.")
        if not self.split * abs(duration) < _LONGEST:
            raise ValueError(f"Expected a duration below {_LONGEST} / split; found {duration}.")
        q = np.clip(x[:, 1], -_NEAREST, _NEAREST)  # at the very end of a branch, the limit
        s = np.asarray(q / np.sqrt(1 - q**2))
        return s, s * np.exp(self.split * duration)

    @checked
    def velocity(self, x: np.ndarray) -> np.ndarray:
        """Return the velocity at latent states ``(n, 2)``, per unit of time; it does not depend on time."""
        q = x[:, 1]
        return np.stack([np.full_like(q, self.speed), self.split * q * (1 - q**2)], axis=1)

    @checked
    def flow(self, x: np.ndarray, duration: float) -> np.ndarray:
        """Return where latent states ``(n, 2)`` are after ``duration``; a negative duration goes back in time."""
        _, s = self._grown(x, duration)
        return np.stack([x[:, 0] + self.speed * duration, s / np.sqrt(1 + s**2)], axis=1)

    @checked
    def growth_rate(self, x: np.ndarray) -> np.ndarray:
        """Return the net division rate at latent states ``(n, 2)``, per unit of time, shape ``(n,)``."""
        lower, upper = self.growth
        return (upper + lower) / 2 + (upper - lower) / 2 * x[:, 1]

    @checked
    def log_weight(self, x: np.ndarray, duration: float) -> np.ndarray:
        """Return the log of the descendants at the end of ``duration`` of a cell now at ``x``, shape ``(n,)``."""
        lower, upper = self.growth
        s, grown = self._grown(x, duration)
        integral_of_q = (np.arcsinh(grown) - np.arcsinh(s)) / self.split
        return np.asarray((upper + lower) / 2 * duration + (upper - lower) / 2 * integral_of_q)

    @checked
    def snapshot(self, n: int, time: float, rng: np.random.Generator) -> np.ndarray:
        """Draw ``n`` cells of the population at ``time``, independently, shape ``(n, 2)``.

        Founders are accepted with a probability proportional to their number of descendants, so that the
        result is an exact sample of the grown population.
        """
        fastest = max(self.growth) * time
        kept = np.empty((0, 2))
        for _ in range(_MOST_ROUNDS):
            if len(kept) >= n:
                break
            founders = self.spread * rng.standard_normal((4 * n, 2))
            founders[:, 1] = np.tanh(founders[:, 1])
            accepted = np.log(rng.random(len(founders))) < self.log_weight(founders, time) - fastest
            kept = np.concatenate([kept, founders[accepted]])
        else:
            raise ConvergenceError(
                f"Growth of {self.growth} until time {time:g} leaves too few founders. Use less growth."
            )
        return self.flow(kept[:n], time)


_DEFAULT = Branching()


@checked
def branching(
    n_cells: int | Sequence[int] = 400,
    *,
    times: Sequence[float] = (0.0, 1.0, 2.0, 4.0),
    held_out: Sequence[float] = (),
    n_genes: int = 50,
    noise: float = 0.1,
    law: Branching = _DEFAULT,
    seed: int = 0,
) -> AnnData:
    """Simulate snapshots of a population that branches in two and grows, with the true dynamics.

    Genes are a linear image of two latent coordinates, with noise: ``X = mean + X_latent @ loadings.T + noise``.
    The latent coordinates follow `Branching`, whose formulas give velocities, fates and growth exactly.

    Parameters
    ----------
    n_cells
        Cells in every snapshot, or one number for each.
    times
        Times of the snapshots, 0 or more, in any unit, evenly spaced or not.
    held_out
        Times for testing; their cells are marked in ``obs["held_out"]``.
    n_genes
        Number of genes, at least 2.
    noise
        Standard deviation of the measurement noise, independent for every gene and cell.
    law
        The dynamics.
    seed
        Seed of the simulation.

    Returns
    -------
    adata
        ``obs``: time, fate ("lower" or "upper"), growth_rate (per unit of time), held_out. ``obsm``: X_latent and
        velocity_true, shape ``(n, 2)``. ``layers``: velocity_true (of the genes). ``varm``: loadings_true.
        ``var``: mean_true. ``uns``: source, and the parameters of the law under branching.

    Raises
    ------
    ValueError
        When counts and times do not match.

    Examples
    --------
    >>> adata = branching(n_cells=(100, 150, 200), times=(0, 1, 4), held_out=(1,))
    >>> adata.obs.groupby("time").size().to_dict(), int(adata.obs["held_out"].sum())
    ({0.0: 100, 1.0: 150, 4.0: 200}, 150)
    """
    if seed < 0 or not 0 <= noise < np.inf:
        raise ValueError(f"Expected a seed >= 0 and a finite noise >= 0; found {seed} and {noise}.")
    counts = _counts(n_cells, times, held_out, n_genes)
    rng = np.random.default_rng(seed)
    loadings = np.sqrt(n_genes) * np.linalg.qr(rng.standard_normal((n_genes, 2)))[0]
    mean = rng.uniform(1.0, 3.0, n_genes)
    latent = np.concatenate([law.snapshot(n, time, rng) for n, time in zip(counts, times, strict=True)])
    velocity = law.velocity(latent)
    time = np.repeat(np.asarray(times, dtype=float), counts)
    obs = pd.DataFrame(
        {
            "time": time,
            "fate": pd.Categorical(np.where(latent[:, 1] > 0, "upper", "lower"), categories=["lower", "upper"]),
            "growth_rate": law.growth_rate(latent),
            "held_out": np.isin(time, np.asarray(held_out, dtype=float)),
        },
        index=[f"cell{k}" for k in range(len(time))],
    )
    genes = mean + latent @ loadings.T + noise * rng.standard_normal((len(time), n_genes))
    return AnnData(
        X=genes.astype(np.float32),
        obs=obs,
        var=pd.DataFrame({"mean_true": mean}, index=[f"gene{k}" for k in range(n_genes)]),
        obsm={"X_latent": latent, "velocity_true": velocity},
        varm={"loadings_true": loadings},
        layers={"velocity_true": (velocity @ loadings.T).astype(np.float32)},
        uns={"source": "simulated by cellflow.datasets.branching", "branching": _parameters(law, noise, seed)},
    )


def _parameters(law: Branching, noise: float, seed: int) -> dict[str, object]:
    return {**asdict(law), "growth": np.asarray(law.growth), "noise": noise, "seed": seed}


def _counts(n_cells: int | Sequence[int], times: Sequence[float], held_out: Sequence[float], n_genes: int) -> list[int]:
    counts = [int(n) for n in np.atleast_1d(n_cells)] * (len(times) if np.ndim(n_cells) == 0 else 1)
    if len(counts) != len(times) or min(counts, default=0) < 1:
        message = f"Expected one positive number of cells for each of {len(times)} times; found {n_cells}."
        raise ValueError(message)
    if not np.isfinite([*times, *held_out]).all() or min(times) < 0 or len(set(times)) != len(times):
        message = f"Expected distinct times of 0 or more; found {list(times)}."
        raise ValueError(message)
    if unknown_times := sorted(set(held_out) - set(times)):
        message = f"`held_out` names some of the times {list(times)}; {unknown_times} are not among them."
        raise ValueError(message)
    if n_genes < 2:
        message = f"Two latent coordinates need at least 2 genes; found n_genes={n_genes}."
        raise ValueError(message)
    return counts
