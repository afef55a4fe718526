"""By what the representation of a translator's cells is known again: both domains together, see `cellflow.cells`."""

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from cellflow.cells.fingerprint import Fingerprint, fingerprint
from cellflow.cells.raw_counts import warn_of_counts
from cellflow.estimators.domains import Domain, Points, Samples

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import DomainTranslator


def known_by(source: Samples, target: Samples, domains: tuple[Domain, Domain], *, rep: str) -> Fingerprint | None:
    """Return the fingerprint of the cells of both domains; ``None`` if neither holds cells.

    Parameters
    ----------
    source, target
        The domains as they were given.
    domains
        The same, read.
    rep
        Key of the representation of cells.

    Raises
    ------
    ValueError
        When both domains are in different representations.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> x = adata.obsm["X_latent"]
    >>> known_by(adata, x, (Points(cf.cells.as_states(x, what="x")),) * 2, rep="X_latent").counts.tolist()
    [1600]
    """
    both = ((given, domain) for given, domain in zip((source, target), domains, strict=True) if hasattr(given, "obsm"))
    cells = [(cast("AnnData", given), _states(domain)) for given, domain in both]
    if not cells:
        return None
    names = np.concatenate([np.asarray(adata.obs_names, dtype=object) for adata, _ in cells])
    warn_of_counts(cells[0][1], rep)
    time = np.repeat(np.arange(len(cells), dtype=np.float64), [len(x) for _, x in cells])
    found = fingerprint(cells[0][0], rep, np.concatenate([x for _, x in cells]), time, names=names)
    if not all(found.fits(adata, rep) for adata, _ in cells):
        raise ValueError(
            f"Source and target are in different representations: the loadings or the order of columns of {rep!r} "
            "differ. Compute it for both together, for example by `sc.pp.pca` of `anndata.concat([source, target])`."
        )
    return found


def check_cells(flow: "DomainTranslator", given: Samples, domain: Domain) -> None:
    """Refuse, or warn of, cells whose representation differs from the fit.

    Raises
    ------
    ValueError
        When the loadings or the order of columns differ.

    Warns
    -----
    UserWarning
        When the states of fitted cells have changed.
    """
    known = getattr(flow, "fingerprint_", None)
    if known is not None and hasattr(given, "obsm"):
        x = _states(domain)
        known.check(cast("AnnData", given), flow.rep, x, np.full(len(x), np.nan))


def _states(domain: Any) -> np.ndarray:
    return np.asarray(cast("Points", domain).x.cpu().numpy())
