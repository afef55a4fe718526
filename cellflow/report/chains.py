"""The conditions of a flow over time, as a section of its report: when each was measured, and what led to it."""

from typing import TYPE_CHECKING

import numpy as np

from cellflow.estimators.chains import chain_of
from cellflow.pl.labels import unit_of
from cellflow.report import html

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

MOST = 50
"""Maximum number of conditions to list."""


def section(adata: "AnnData", flow: "SnapshotFlow") -> str:
    """Return a table of the conditions of the cells: the fitted times at which there are any, and how many.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching((20, 20), times=(0, 1), seed=0)
    >>> adata.obs["drug"] = ["control"] * 20 + ["A"] * 20
    >>> flow = cf.SnapshotFlow(rep="X_latent", conditions="drug", steps=5).fit(adata)
    >>> "control at 0" in section(adata, flow)
    True
    """
    fitted = flow.conditions_
    if fitted is None:
        return ""
    table, states = fitted.read(adata.obs), flow.read(adata, weights=False)
    rows = []
    for condition, label in enumerate(table.labels[:MOST]):
        mine = table.index == condition
        seen = np.tile(table.vectors[condition], (len(states), 1))
        chain = chain_of(states, seen, fitted.effect)
        lead = sorted(set(chain.time[~mine[chain.rows]].tolist()))
        times = [time for time in flow.clock_.times if (states.time[mine] == time).any()]
        before = f"control at {lead[0]:g}" if lead else "its own first snapshot"
        rows.append((label, before, ", ".join(f"{time:g}" for time in times), f"{int(mine.sum()):,}"))
    unit = unit_of(adata, flow.time_key)
    header = ("condition", "begins with", f"snapshots{f' ({unit})' if unit else ''}", "cells")
    more = len(table) - MOST
    note = html.paragraph(f"{more} more conditions are not listed.", style="note") if more > 0 else ""
    said = (
        f"One field covers {len(table)} conditions. Cells are paired only inside a condition, and all conditions count "
        "equally. Velocities, trajectories and fates are those under each cell's own condition; the functions of "
        "`cellflow.tl` take another one as `condition`."
    )
    return html.paragraph(said) + html.table(header, rows, numbers=[3]) + note
