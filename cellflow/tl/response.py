"""What treatments change: measured, beside the level of chance and the prediction of a flow."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow.cells.conditions import Conditions
from cellflow.cells.name_vectors import listed
from cellflow.errors import unknown
from cellflow.estimators import PerturbationFlow
from cellflow.estimators.arms import ALL, Arms
from cellflow.estimators.mean_shift import shifts_of
from cellflow.seeds import generator_at
from cellflow.signature import checked_but
from cellflow.tl.cells import check_key, target
from cellflow.tl.changes import discovered, moments
from cellflow.tl.files import on_files
from cellflow.tl.genes import LOADINGS, REP, read_loadings
from cellflow.tl.measured import correlation, decoded, measured, measured_genes, predicted

if TYPE_CHECKING:
    from anndata import AnnData

log = logging.getLogger(__name__)

MOST = 2**26
"""Most numbers in a table of changes by gene, 256 MiB."""
PREDICTED = "_predicted"
"""End of the name of the predicted changes."""


@on_files
@checked_but("conditions")
def response(
    adata: "AnnData",
    flow: "PerturbationFlow | None" = None,
    *,
    conditions: Conditions | str | None = None,
    control: str | None = None,
    within: str | None = None,
    rep: str = "X_pca",
    genes: bool | str = "auto",
    max_cells: int = 500,
    seed: int = 0,
    key_added: str = "response",
    copy: bool = False,
) -> "AnnData | None":
    """Measure what each treatment changes in each group of cells, and compare it with what a flow predicts.

    All changes are from the *measured* controls of the group. A condition is *distinguishable from no effect* if its
    cells are farther from the controls than random splits of both; few cells or a weak treatment may not be. No model
    can be right or wrong about a treatment that cannot be distinguished from no effect.

    Parameters
    ----------
    adata
        Control and treated cells.
    flow
        A fitted flow whose predictions to compare; its settings replace the next four. ``None`` for the measured
        changes only.
    conditions, control, within, rep
        As for `cellflow.PerturbationFlow`, if there is no flow.
    genes
        Whether to include genes, in ``X``: log expression, in the units of the PCA. ``"auto"`` if there are
        any.
    max_cells
        Maximum number of controls, and of treated cells of each condition, for distances, which depend on it.
    seed
        Seed of the random splits of cells.
    key_added
        Name of the result, without "/".
    copy
        Whether to return a copy instead of writing into ``adata``.

    Writes
    ------
    ``uns[key_added]``
        Table with a row for each treatment and group: ``treatment``, ``group``, ``cells`` and ``controls``;
        ``energy_distance`` from controls to treated cells, and ``energy_distance_floor``, that between two halves of
        the treated cells; ``p``, how often a random split gives as large a distance, and ``told``, whether that is rare
        (at a false discovery rate of 5 % among all conditions). With genes, ``changed_genes`` (by Welch's test, at the
        same rate), ``changed_genes_floor``, the number between two halves of the treated cells, and ``ceiling``, the
        correlation over genes of the changes of two halves. With a flow, ``fitted``, whether it has seen this treatment
        in this group; ``share`` and ``share_of_differences``, how much it keeps of the treatment's effect, and of its
        differences between cells, as confirmed on held-out cells; ``energy_distance_flow`` and
        ``energy_distance_shift``, from predicted to treated cells, for the flow and for the mean shift of the fit (for
        treatments not fitted, the shift that is linear in the condition); and, where genes are known,
        ``correlation_flow`` and ``correlation_shift``, of predicted and measured changes.
    ``varm[key_added]``
        With genes, the mean change of each, ``(genes, rows)``: a column for each row of the table.
    ``varm[f"{key_added}_predicted"]``
        The same as predicted by the flow; missing (NaN) for genes that were not in the PCA.
    ``uns[f"{key_added}_states"]``
        The mean change of the states, in units of the representation, ``(rows, d)``.
    ``uns[f"{key_added}_about"]``
        ``"rep"``; ``"within"``, the columns of groups; and ``"separator"``, the text between the names of a
        combination, empty if there are none.

    Raises
    ------
    KeyError, ValueError
        When a column is missing or unusable, there are no controls, no group has both, or the changes of all genes in
        all conditions do not fit into memory.

    Notes
    -----
    If ``fitted`` is true, both the flow and the mean shift have seen the cells with which they are compared. Leave a
    group out of the fit to see how either generalises.

    Examples
    --------
    >>> import anndata, cellflow as cf
    >>> x = np.random.default_rng(0).normal(size=(90, 2)).astype("float32")
    >>> drug = np.repeat(["control", "A", "nothing"], 30)
    >>> x[drug == "A", 0] += 3
    >>> adata = anndata.AnnData(obs=pd.DataFrame({"drug": drug}, index=[f"c{k}" for k in range(90)]), obsm={"X_pca": x})
    >>> cf.tl.response(adata, conditions="drug")
    >>> adata.uns["response"].set_index("treatment")["told"].to_dict()
    {'A': True, 'nothing': False}
    """
    check_key(key_added)
    if max_cells < 2:
        raise ValueError(f"Expected max_cells >= 2; found {max_cells}.")
    arms, about = _arms(adata, flow, conditions, control, within, rep)
    rep = about["rep"]
    looks = _looks_at_genes(adata, genes, len(arms.arms))
    decodes = looks and flow is not None and (flow.rep == "X" or (flow.rep == REP and LOADINGS in adata.varm))
    loadings = read_loadings(adata, rep, genes="auto") if decodes and rep != "X" else None
    decodes = decodes and (rep == "X" or loadings is not None)  # there are none where they do not fit `X`
    controls = {arm.group: moments(adata, arm.source) for arm in arms.arms} if looks else {}
    rows, found, guessed = [], [], []
    for number, arm in enumerate(arms.arms):
        rng = generator_at(seed, number)
        row, change = measured(arms, arm, max_cells, rng), None
        if looks:
            more, change = measured_genes(adata, arm, controls[arm.group], rng)
            row |= more
            found.append(change)
        if flow is not None:
            more, *guesses = predicted(flow, arms, arm, max_cells, rng)
            row |= more
            if decodes and change is not None:
                guess, shift = (decoded(one, loadings) for one in guesses)
                row |= {"correlation_flow": correlation(guess, change), "correlation_shift": correlation(shift, change)}
                guessed.append(guess)
        rows.append(row)
    table = pd.DataFrame(rows)
    table.insert(list(table).index("p") + 1, "told", discovered(table["p"].to_numpy()))
    _say(table)
    written = target(adata, copy=copy)
    written.uns[key_added], written.uns[f"{key_added}_about"] = table, about
    written.uns[f"{key_added}_states"] = shifts_of(arms)
    for name, columns in ((key_added, found), (f"{key_added}{PREDICTED}", guessed)):
        written.varm.pop(name, None)
        if columns:
            written.varm[name] = np.stack(columns, axis=1).astype(np.float32)
    return written if copy else None


def name_of_row(row: pd.Series) -> str:
    """Return the name of a row of the table: the treatment, and the group if there are several.

    Examples
    --------
    >>> name_of_row(pd.Series({"treatment": "A", "group": "x"}))
    'A in x'
    """
    return str(row["treatment"]) if row["group"] == ALL else f"{row['treatment']} in {row['group']}"


def _arms(
    adata: "AnnData",
    flow: "PerturbationFlow | None",
    conditions: Conditions | str | None,
    control: str | None,
    within: str | None,
    rep: str,
) -> tuple[Arms, dict[str, str]]:
    """Return the cells, and what is written about them."""
    if flow is not None:
        for name, value in (("conditions", conditions), ("control", control), ("within", within)):
            if value is not None:
                raise ValueError(f"`{name}` is a setting of the flow: leave it out, or leave the flow out.")
        flow.read(adata)
        return _both_sides(flow._arms(adata)), _about(flow)
    known = PerturbationFlow(
        conditions="condition" if conditions is None else conditions, control=control, within=within, rep=rep
    )
    known.conditions_ = known._conditions().fit(adata.obs, adata.uns)
    return _both_sides(known._arms(adata)), _about(known)


def _about(flow: PerturbationFlow) -> dict[str, str]:
    separator = flow.conditions_.separator or ""
    return {"rep": flow.rep, "within": ", ".join(flow._groups()), "separator": separator}


def _both_sides(arms: Arms) -> Arms:
    """Return the arms that have controls."""
    lacking = [arm.group for arm in arms.arms if not len(arm.source)]
    if lacking:
        log.warning(
            "no controls in %s: the changes by treatments there are unknown", listed(list(dict.fromkeys(lacking)))
        )
    kept = tuple(arm for arm in arms.arms if len(arm.source))
    if not kept:
        raise ValueError("Expected a group with controls and treated cells; found none. Check the groups, `within`.")
    return replace(arms, arms=kept)


def _looks_at_genes(adata: "AnnData", genes: bool | str, rows: int) -> bool:
    if genes not in (True, False, "auto"):
        raise ValueError(unknown("value of `genes`", genes, [True, False, "auto"]))
    there = adata.X is not None and adata.n_vars > 0
    if genes is True and not there:
        raise ValueError("Expected genes in `adata.X`; found none. Leave `genes` out.")
    looks = bool(genes) and there
    if looks and rows * adata.n_vars > MOST:
        raise ValueError(
            f"Changes of {adata.n_vars:,} genes in {rows:,} conditions and groups take "
            f"{4 * rows * adata.n_vars / 2**30:.1f} GiB. Use fewer genes, `adata[:, genes]`, or `genes=False`."
        )
    return looks


def _say(table: pd.DataFrame) -> None:
    """Say which conditions cannot be distinguished from no effect."""
    names = [name_of_row(row) for _, row in table[~table["told"]].iterrows()]
    if names:
        log.warning(
            "%d of %d conditions cannot be distinguished from no effect: %s", len(names), len(table), listed(names)
        )
