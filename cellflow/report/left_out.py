"""What a page does not show, and what that would need."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cellflow.cells.decoding import read_decoder
from cellflow.report import html

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

log = logging.getLogger(__name__)

UMAP = "X_umap"


def section(adata: "AnnData", flow: "SnapshotFlow", *, basis: str, groupby: str | None, genes: Sequence[str]) -> str:
    """Return the reasons for what is left out as an HTML list; empty if nothing is."""
    return html.bullets(reasons) if (reasons := _reasons(adata, flow, basis, groupby, genes)) else ""


def undecoded(adata: "AnnData", flow: "SnapshotFlow", genes: Sequence[str]) -> str:
    """Return why the named genes cannot be decoded from states; empty if they can, or none is named."""
    if not len(genes):
        return ""
    try:
        read_decoder(adata, flow.rep, genes=list(genes), width=flow.n_features_in_)
    except KeyError as error:
        return str(error.args[0])
    except ValueError as error:
        return str(error)
    return ""


def _reasons(
    adata: "AnnData", flow: "SnapshotFlow", basis: str, groupby: str | None, genes: Sequence[str]
) -> list[str]:
    found = []
    if groupby is None:
        found.append(
            "Cell types, growth by group, fates and drivers: no column with groups was named. Columns of obs: "
            f"{', '.join(map(str, adata.obs.columns))}. Name one with `groupby=`."
        )
    if not len(genes):
        found.append("Genes over time, and trends toward fates: no genes were named. Name some with `genes=`.")
    if why := undecoded(adata, flow, genes):
        log.warning("the page does not show genes over time: %s", why)
        found.append(f"Genes over time: {why}")
    if UMAP not in adata.obsm and basis == flow.rep:
        found.append(
            f"A UMAP: the cells have none, so the figures are drawn on {flow.rep}. Run `sc.pp.neighbors(adata)` "
            "and `sc.tl.umap(adata)`, or name another embedding with `basis=`."
        )
    if not flow.growth_:
        found.append("Growth: this flow was fitted without it. Set `growth=True`, or `coupling='auto'`.")
    if flow.conditions_ is not None and "response" not in adata.uns:
        found.append("What treatments change: run `cf.tl.response(adata, flow)` before the page is written.")
    return found
