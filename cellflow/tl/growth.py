"""The growth rate of every cell."""

from typing import TYPE_CHECKING

from cellflow.tl.cells import about, target

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow


def growth(
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    extrapolate: bool = False,
    key_added: str = "growth",
    copy: bool = False,
) -> "AnnData | None":
    """Evaluate the growth rate of the flow at every cell and its own time.

    A rate of log(2) doubles the cells in one unit of time, a negative one means that they die. Without sizes of the
    population (see ``masses`` of `SnapshotFlow`) only differences between cells are meaningful.

    Parameters
    ----------
    adata
        Cells with the time and the representation that the flow was fitted on.
    flow
        A flow that was fitted with growth.
    extrapolate
        Whether cells outside the fitted times are allowed.
    key_added
        Name of what is written.
    copy
        Whether to return a copy instead of writing into ``adata``.

    Writes
    ------
    ``obs[key_added]``
        Rate at which the log of a cell's mass grows, per unit of the user's time.
    ``uns[key_added]``
        ``"rep"``, ``"time_key"`` and ``"unit"`` of time: what the rate belongs to.

    Raises
    ------
    TypeError
        When the flow was fitted without growth.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> coupling = cf.couplings.UnbalancedSinkhorn(epsilon=0.1, relaxation=1.0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", coupling=coupling, growth=True, steps=20).fit(adata)
    >>> cf.tl.growth(adata, flow)
    >>> adata.obs["growth"].shape == (adata.n_obs,)
    True
    """
    states = flow.read(adata)
    found = flow.growth_rate(states.x, states.time, extrapolate=extrapolate)
    written = target(adata, copy=copy)
    written.obs[key_added] = found
    written.uns[key_added] = about(adata, flow)
    return written if copy else None
