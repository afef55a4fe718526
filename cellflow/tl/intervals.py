"""Intervals from the members of an ensemble: how a result would vary with other cells and another seed.

Members show variance, not bias: errors that all of them share stay invisible.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cellflow.integrate import Fixed, Jumps

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.integrate import Solver

LEVEL = 0.9
"""Default coverage of intervals."""
ENDS = ("_low", "_high")
"""What the names of the ends of an interval end in."""


def t_interval(value: np.ndarray, members: np.ndarray, *, confidence: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of Student's interval around the results of a flow.

    Parameters
    ----------
    value
        Results of the flow, of any shape.
    members
        The same of each member, ``(m, ...)``.
    confidence
        Coverage of the interval if results are normal and unbiased.

    Raises
    ------
    ValueError
        When there are fewer than two members, or the confidence is not between 0 and 1.

    Source
    ------
    Efron and Tibshirani 1993, section 12.3.

    Examples
    --------
    >>> low, high = t_interval(np.zeros(1), np.array([[-1.0], [0.0], [1.0]]))
    >>> low.round(2), high.round(2)
    (array([-2.92]), array([2.92]))
    """
    half = t_half_width(members, confidence=confidence)
    return value - half, value + half


def t_half_width(members: np.ndarray, *, confidence: float = LEVEL) -> np.ndarray:
    """Return half of the width of `t_interval`, to be combined with another error as a root of squares.

    Examples
    --------
    >>> t_half_width(np.array([-1.0, 0.0, 1.0])).round(2)
    np.float64(2.92)
    """
    return np.asarray(t_quantile(len(members), confidence) * np.std(members, axis=0, ddof=1))[()]


def t_quantile(members: int, confidence: float) -> float:
    """Return half of the width of Student's interval in standard deviations over some members.

    Raises
    ------
    ValueError
        When there are fewer than two members, or the confidence is not between 0 and 1.

    Examples
    --------
    >>> round(t_quantile(5, 0.9), 2)
    2.13
    """
    from scipy.stats import t

    check_confidence(confidence)
    if members < 2:
        raise ValueError(f"Expected the results of two members or more; found {members}.")
    return float(t.ppf((1 + confidence) / 2, members - 1))


def for_members(solver: "Solver") -> "Solver":
    """Return the solver for members: the flow's, or steps instead of jumps, since only the flow has a map.

    Examples
    --------
    >>> for_members(Jumps(2)) == Fixed()
    True
    """
    return Fixed() if isinstance(solver, Jumps) else solver


def leave_no_intervals(adata: "AnnData", key: str, suffixes: Sequence[str]) -> None:
    """Remove the interval columns that an earlier flow with an ensemble wrote beside a result.

    Examples
    --------
    >>> import anndata, pandas as pd
    >>> adata = anndata.AnnData(obs=pd.DataFrame({"growth_low": [0.0]}, index=["a"]), uns={"growth": {"members": 5}})
    >>> leave_no_intervals(adata, "growth", ENDS)
    >>> list(adata.obs)
    []
    """
    if "members" in adata.uns.get(key, {}):
        adata.obs = adata.obs.drop(columns=[f"{key}{suffix}" for suffix in suffixes], errors="ignore")


def check_confidence(confidence: float) -> None:
    """Raise unless a coverage is between 0 and 1.

    Raises
    ------
    ValueError
        With the value found.

    Examples
    --------
    >>> check_confidence(0.9)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"Expected 0 < confidence < 1; found {confidence}.")


def agreement(velocity: np.ndarray, members: np.ndarray, *, confidence: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Return how far members agree on the direction of each velocity.

    Parameters
    ----------
    velocity
        Velocities of the flow, ``(n, d)``.
    members
        Those of each member, ``(m, n, d)``.
    confidence
        Share of directions that the angle should cover.

    Returns
    -------
    tuple
        The mean cosine between the members' velocities and the flow's, ``(n,)``, and the angle around the flow's in
        which the direction lies, in degrees, ``(n,)``, at most 180. Both are NaN where a velocity is 0.

    Notes
    -----
    The angle is the root mean square of the members' angles, times the root of a quantile of F: of squares summed over
    as many directions as members deviate in, which is counted over all cells, by sums and products of deviations.

    Examples
    --------
    Members that deviate by 10 degrees, to either side:

    >>> angle = np.deg2rad([10.0, -10.0])
    >>> members = np.stack([np.cos(angle), np.sin(angle)], axis=1)[:, None]
    >>> cosine, within = agreement(np.array([[1.0, 0.0]]), members)
    >>> cosine.round(3), within.round(1)
    (array([0.985]), array([29.2]))
    """
    from scipy.stats import f

    check_confidence(confidence)
    along, others = _unit(velocity.astype(np.float64)), _unit(members.astype(np.float64))
    cosine = np.clip(np.einsum("nd,mnd->mn", along, others), -1, 1)
    beside = others - cosine[..., None] * along
    squares = np.square(beside).sum(axis=2)
    products = np.square(np.einsum("knd,lnd->kln", beside, beside))
    apart = ~np.eye(len(members), dtype=bool)
    both = np.nansum((squares[:, None] * squares[None])[apart])
    directions = max(1.0, both / max(np.nansum(products[apart]), np.finfo(float).tiny))
    times = np.sqrt(f.ppf(confidence, directions, len(members) * directions))
    angle = times * np.sqrt(np.square(np.arccos(cosine)).mean(axis=0))
    return cosine.mean(axis=0), np.minimum(np.rad2deg(angle), 180.0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, np.nan)
