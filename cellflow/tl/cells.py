"""Writing: into the AnnData that was given or a copy of it, with what every result carries."""

from typing import TYPE_CHECKING

from cellflow.cells.snapshots import time_unit

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow


def about(adata: "AnnData", flow: "SnapshotFlow") -> dict[str, str]:
    """Return what every result carries with it: the representation, the time column, and the unit of time."""
    return {"rep": flow.rep, "time_key": flow.time_key, "unit": time_unit(adata, flow.time_key)}


def target(adata: "AnnData", *, copy: bool) -> "AnnData":
    """Return the AnnData to write into: the one given, or a copy.

    Raises
    ------
    ValueError
        When a backed file would have to be copied.
    """
    if adata.isbacked and (copy or adata.is_view):
        raise ValueError("A file, or a view of one, cannot be copied in place. Take `adata.to_memory()` first.")
    return adata.copy() if copy else adata


def refuse_jumps(jumps: int | None) -> None:
    """Raise where a flow with growth is asked to jump.

    Raises
    ------
    ValueError
        A flow map carries states, and knows nothing of their weights.
    """
    if jumps is not None:
        raise ValueError("This flow knows growth, and jumps would lose the weights of its cells. Leave out `jumps`.")
