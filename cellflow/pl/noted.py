"""What a result of `cellflow.tl` carries with it about its representation, compared with the cells it is drawn over."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cellflow.cells.fingerprint import Fingerprint
from cellflow.cells.snapshots import read_rep, read_times

if TYPE_CHECKING:
    from anndata import AnnData


def check_noted(adata: "AnnData", about: Mapping[str, Any]) -> None:
    """Refuse to draw, or warn about drawing, states or velocities over cells in another representation.

    Parameters
    ----------
    adata
        The cells.
    about
        The metadata of the result; nothing is compared if another program, or an earlier version, wrote it.

    Raises
    ------
    ValueError
        When the representation has been recomputed since.

    Warns
    -----
    UserWarning
        When the states of the cells have changed since the fit.

    Examples
    --------
    >>> import cellflow as cf
    >>> check_noted(cf.datasets.branching(seed=0), {"rep": "X_latent", "time_key": "time"})
    """
    if not {"fingerprint", "rep", "time_key"} <= set(about) or about["time_key"] not in adata.obs:
        return
    x = read_rep(adata, str(about["rep"]), n_pcs=width_of(about))
    known = Fingerprint.of(about["fingerprint"], width=x.shape[1])
    if known is not None:
        known.check(adata, str(about["rep"]), x, read_times(adata, str(about["time_key"])))


def width_of(about: Mapping[str, Any]) -> int | None:
    """Return how many of the first columns of its representation a result has; ``None`` for all.

    Examples
    --------
    >>> width_of({"rep": "X_pca", "n_pcs": 10}), width_of({"rep": "X_pca"})
    (10, None)
    """
    return None if about.get("n_pcs") is None else int(about["n_pcs"])
