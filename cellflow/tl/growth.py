"""The growth rate of every cell, and its expectation from genes."""

from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.estimators.conditional import Condition
from cellflow.renamed import warn
from cellflow.signature import checked_but
from cellflow.tl.cells import about, check_key, target
from cellflow.tl.files import on_files
from cellflow.tl.intervals import ENDS, LEVEL, check_confidence, leave_no_intervals, t_interval
from cellflow.tl.keys import check_free
from cellflow.tl.sensitivity import conclusion
from cellflow.tl.sensitivity import sensitivity as by_relaxation

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow


@on_files
@checked_but("condition")
def growth(
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    condition: Condition | None = None,
    sensitivity: bool = True,
    extrapolate: bool = False,
    confidence: float = LEVEL,
    key_added: str = "growth",
    copy: bool = False,
) -> "AnnData | None":
    """Evaluate the growth rate of the flow at every cell and its own time.

    A rate of log(2) doubles the cells in one unit of time, a negative one means that they die. Use it to compare groups
    of cells whose shares change between snapshots.

    Snapshots show how the shares of states change, and nothing else: growth is identified by these alone, and only as
    far as it is known how far cells travel. Two things are not identified. *Level*: without population sizes
    (``masses`` of `SnapshotFlow`) a constant may be added to all rates of a snapshot, and only differences between
    cells are meaningful. *Travel or death*: when one state empties while another fills, its cells have moved there, or
    died while the others divided. The relaxation of `UnbalancedSinkhorn` decides between both, by the squared distance:
    cells that move far get a low rate, whatever they do, in inverse proportion to the relaxation. Prior knowledge of
    single cells can be given as ``prior_key``, see `growth_prior`. From few cells, only the share of the plans' growth
    that held-out cells confirm is learned: ``"confirmed growth"`` in ``flow.search_history_``.

    Parameters
    ----------
    adata
        Cells with the time and the representation that the flow was fitted on.
    flow
        A flow that was fitted with growth.
    condition
        With a flow that has conditions: what the cells are to be under, such as ``{"drug": "A", "dose": 3.0}``;
        ``None`` for each cell's own.
    sensitivity
        Whether to match again with half and with double the relaxation, at most 1,000 cells per snapshot, and to warn
        if the ranks of cells or the level of their growth depend on it. Nothing is done if the flow has no relaxation,
        or has conditions, or ``adata`` lacks a fitted snapshot.
    extrapolate
        Whether cells outside the fitted times are allowed.
    confidence
        With an ensemble, the coverage that the spread of members would have if it contained all errors.
    key_added
        Name of the result, without "/".
    copy
        Whether to return a copy instead of writing into ``adata``.

    Writes
    ------
    ``obs[key_added]``
        Rate at which the log of a cell's mass grows, per unit of the user's time.
    ``uns[key_added]``
        ``"rep"``, ``"time_key"`` and ``"unit"`` of time: what the rate belongs to.
    ``obs[f"{key_added}_low"]``, ``obs[f"{key_added}_high"]``
        With an ensemble: the bounds of the spread of its members, by Student's t. It is not a confidence interval:
        members share the relaxation and the learned share of growth, and in simulations 90 % bounds held the true rate
        about every second time, see ``benchmarks/results/ensemble.md``. ``uns[key_added]`` then has ``"confidence"``
        and ``"members"`` too.
    ``uns[f"{key_added}_sensitivity"]``
        ``"table"``: for each snapshot the ``spread`` of the growth of log mass over an interval by the plans, its rank
        correlation with that at ``half`` and at ``double`` the relaxation, and how many times larger the spread is at
        half than at double (``level``: 1 where shares decide, up to 4 where travel is taken for death).
        ``"conclusion"``: the warning, if any.

    Warns
    -----
    UserWarning
        When ranks correlate by less than 0.9, or the level changes more than twofold, in a snapshot where growth
        matters.

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
    >>> cf.tl.growth(adata, flow, sensitivity=False)
    >>> adata.obs["growth"].shape == (adata.n_obs,)
    True
    """
    check_key(key_added)
    check_confidence(confidence)
    states = flow.read(adata, condition=condition, weights=False)
    given: dict[str, Any] = {"condition": states.condition, "extrapolate": extrapolate}
    found, *members = (one.growth_rate(states.x, states.time, **given) for one in (flow, *flow.members))
    table = by_relaxation(adata, flow) if sensitivity else None
    check_free(adata, key_added, [f"{key_added}{end}" for end in ("", *(ENDS if members else ()))])
    written = target(adata, copy=copy)
    written.obs[key_added] = found
    leave_no_intervals(written, key_added, ENDS)
    written.uns[key_added] = about(adata, flow)
    if members:
        for suffix, values in zip(ENDS, t_interval(found, np.stack(members), confidence=confidence), strict=True):
            written.obs[f"{key_added}{suffix}"] = values
        written.uns[key_added] |= {"confidence": confidence, "members": len(members)}
    written.uns.pop(f"{key_added}_sensitivity", None)
    if table is not None:
        said = conclusion(table, known=flow.prior_key is not None)
        written.uns[f"{key_added}_sensitivity"] = {"table": table, "conclusion": said}
        if said:
            warn(said)
    return written if copy else None
