"""Simulated cells among whose genes a few are known to go with their later fate."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from cellflow.datasets.simulated import Branching
from cellflow.signature import checked

_LAW = Branching(spread=0.3, growth=(0.0, 1.0))
"""The upper fate gains on the lower one: cells of later snapshots have it more often, so that time goes with fate."""
_N_UNRELATED = 6
"""Coordinates of the state that have nothing to do with the fate, such as a cell cycle."""
_MEAN = 1.5
"""Mean of log expression; its standard deviation is 1."""
_WITH = {"time": 0.95, "unrelated": 0.7, "noise": 0.0}
"""Correlation of other genes with what they go with."""


@checked
def planted_drivers(
    n_cells: int = 1500,
    *,
    n_genes: int = 2000,
    n_drivers: int = 20,
    correlation: float = 0.3,
    dropout: float = 0.6,
    times: Sequence[float] = (0.0, 1.0, 2.0, 3.0),
    seed: int = 0,
) -> AnnData:
    r"""Simulate cells of two fates: a few genes go with the fate, many with time or other factors.

    States follow `Branching`, with six coordinates beside that are unrelated to the fate. The upper fate grows faster:
    its share rises with time. The log expression of a gene, before dropout, is

    .. math:: \max(0, \; 1.5 + r \, z + \sqrt{1 - r^2} \, \varepsilon), \qquad \varepsilon \sim \mathrm{Normal}(0, 1)

    where z is the fate (for drivers, :math:`r` = ``correlation``; standardised within each time), time (a fifth of the
    other genes, :math:`r = 0.95`), or one of the unrelated coordinates (a fifth of the others, :math:`r = 0.7`); the
    rest is noise. Then values are set to 0 at random, which lowers the correlation of what is measured with the fate
    to about 0.4 times as much. Use it to test whether a method finds drivers, and how many of its findings are false:
    genes with time go with the fate unless time is accounted for, and genes with unrelated coordinates go with errors
    of a predicted fate, which neighbouring cells share.

    Parameters
    ----------
    n_cells
        Cells in every snapshot.
    n_genes
        Number of genes.
    n_drivers
        Number of genes that go with the fate; 0 for none.
    correlation
        Their correlation with the fate at each time, before dropout.
    dropout
        Fraction of the values that are set to 0.
    times
        Times of the snapshots, 0 or more.
    seed
        Seed of the simulation.

    Returns
    -------
    adata
        ``X`` ``(cells, genes)``, sparse: log expression after dropout. ``obs``: time, fate ("lower" or "upper"),
        growth_rate (per unit of time). ``obsm["X_latent"]``: the state ``(cells, 8)``. ``var``: kind ("driver", "time",
        "unrelated", "noise") and correlation_true, with the fate given time. ``uns["source"]``.

    Raises
    ------
    ValueError
        When numbers contradict each other.

    Examples
    --------
    >>> adata = planted_drivers(100, n_genes=50, n_drivers=5)
    >>> adata.shape, adata.var["kind"].value_counts().sort_index().to_dict()
    ((400, 50), {'driver': 5, 'noise': 27, 'time': 9, 'unrelated': 9})
    """
    if n_cells < 2 or n_drivers < 0 or n_genes < max(n_drivers, 1) or seed < 0:
        found = n_cells, n_genes, n_drivers, seed
        raise ValueError(
            f"Expected n_cells >= 2, n_genes >= n_drivers >= 0, n_genes >= 1 and seed >= 0; found {found}."
        )
    if not abs(correlation) <= 1 or not 0 <= dropout < 1:
        raise ValueError(f"Expected a correlation from -1 to 1 and 0 <= dropout < 1; found {correlation}, {dropout}.")
    if not len(times) or not np.isfinite(times).all() or min(times) < 0 or len(set(times)) < len(times):
        raise ValueError(f"Expected distinct times of 0 or more; found {list(times)}.")
    rng = np.random.default_rng(seed)
    latent = np.concatenate([_LAW.snapshot(n_cells, time, rng) for time in times])
    unrelated = _LAW.spread * rng.standard_normal((len(latent), _N_UNRELATED))
    time = np.repeat(np.asarray(times, dtype=float), n_cells)
    upper = latent[:, 1] > 0
    kind = _kinds(n_genes, n_drivers, rng)
    x = np.empty((len(time), n_genes), dtype=np.float32)
    for gene, what in enumerate(kind):
        z = {
            "driver": _within(upper.astype(float), time),
            "time": _standard(time),
            "unrelated": _standard(unrelated[:, gene % _N_UNRELATED]),
            "noise": np.zeros(len(time)),
        }[what]
        r = _WITH.get(what, correlation)
        expressed = _MEAN + r * z + np.sqrt(1 - r**2) * rng.standard_normal(len(time))
        x[:, gene] = np.maximum(expressed, 0) * (rng.random(len(time)) >= dropout)
    obs = pd.DataFrame(
        {
            "time": time,
            "fate": pd.Categorical(np.where(upper, "upper", "lower"), categories=["lower", "upper"]),
            "growth_rate": _LAW.growth_rate(latent),
        },
        index=[f"cell{k}" for k in range(len(time))],
    )
    true = np.where(kind == "driver", correlation, 0.0)
    return AnnData(
        X=sparse.csr_matrix(x),
        obs=obs,
        var=pd.DataFrame({"kind": kind, "correlation_true": true}, index=[f"gene{k}" for k in range(n_genes)]),
        obsm={"X_latent": np.concatenate([latent, unrelated], axis=1).astype(np.float32)},
        uns={"source": "simulated by cellflow.datasets.planted_drivers"},
    )


def _kinds(n_genes: int, n_drivers: int, rng: np.random.Generator) -> np.ndarray:
    """Return what each gene goes with, ``(n_genes,)``, in random order."""
    others = (n_genes - n_drivers) // 5
    kind = np.array(["noise"] * n_genes, dtype=object)
    kind[:n_drivers] = "driver"
    kind[n_drivers : n_drivers + others] = "time"
    kind[n_drivers + others : n_drivers + 2 * others] = "unrelated"
    return rng.permutation(kind)


def _standard(values: np.ndarray) -> np.ndarray:
    """Return values with mean 0 and variance 1; 0 where they do not vary."""
    return np.asarray((values - values.mean()) / max(values.std(), 1e-12))


def _within(values: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return values standardised among the cells of each time."""
    found = np.zeros_like(values)
    for moment in np.unique(time):
        found[time == moment] = _standard(values[time == moment])
    return found
