"""The report of a flow from controls to treated cells, and the section on conditions of any report."""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow import couplings, paths, pl
from cellflow.files import committed
from cellflow.lock import A_SAVE, locked
from cellflow.pl.response import read_response
from cellflow.report import estimator, html
from cellflow.report.html import Drawing
from cellflow.tl.response import PREDICTED, name_of_row

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import PerturbationFlow

PAGE, FIGURES = "report.html", "figures"
MOST_ROWS, MOST_NAMES, MOST_DRAWN = 200, 8, 3
"""Conditions in the table, names in a sentence, and conditions of which the genes are drawn."""
CLOSER = 0.95
"""An energy distance below this share of another is closer, and above its inverse farther; between, both tie."""
HARM = 1.1
"""An energy distance above this multiple of that of no change, where nothing can be told, is an invented change."""
_TITLES = {
    "fitted": "What was fitted",
    "conditions": "What treatments change",
    "training": "Training",
    "use": "How to use this flow",
    "run": "The run",
}


def write_perturbation(
    folder: str | Path, adata: "AnnData", flow: "PerturbationFlow", *, title: str, details: Mapping[str, str]
) -> Path:
    """Write the report of a flow from controls to treated cells: one HTML page, and its figures as PNG files.

    Measured and predicted changes are shown if `cellflow.tl.response` has written them; ``adata`` is not
    changed.

    Parameters
    ----------
    folder
        The folder of the run, where the flow is saved; ``report.html`` and ``figures/`` in it are replaced.
    adata
        The cells, including those that were held out.
    flow
        The fitted flow.
    title
        Name of the run.
    details
        What else is known about the run: settings, versions, wall time.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    NotFittedError
        Before ``fit``.

    Examples
    --------
    >>> import anndata, tempfile, cellflow as cf
    >>> x, drug = np.random.default_rng(0).normal(size=(90, 3)), np.repeat(["control", "A", "B"], 30)
    >>> x[drug == "A", 0] += 3
    >>> adata = anndata.AnnData(obs=pd.DataFrame({"drug": drug}, index=[f"c{k}" for k in range(90)]), obsm={"X_pca": x})
    >>> flow = cf.PerturbationFlow(conditions="drug", steps=20).fit(adata)
    >>> cf.tl.response(adata, flow)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = cf.report.write_perturbation(folder, adata, flow, title="Two drugs", details={})
    ...     page.name, page.read_text().count("<img")
    ('report.html', 2)
    """
    flow.read(adata)  # refuses cells of another representation before anything is written
    folder = Path(folder)
    with locked(folder, wait=A_SAVE):
        (folder / FIGURES).mkdir(parents=True, exist_ok=True)
        return _write(folder, adata, flow, title, details)


def _write(folder: Path, adata: "AnnData", flow: "PerturbationFlow", title: str, details: Mapping[str, str]) -> Path:
    sections = {
        "fitted": _fitted(flow),
        "conditions": section(adata),
        "training": html.figure(estimator.loss(flow), folder / FIGURES),
        "use": estimator.unsaved(folder)
        + html.paragraph("In Python:")
        + html.listing(_python_lines(folder, flow), style="python")
        + html.paragraph("On the command line:")
        + html.listing(_shell_lines(folder, flow), style="shell"),
        "run": html.table(None, details.items()),
    }
    for drawing in drawings(adata):
        sections[drawing.section] += html.figure(drawing, folder / FIGURES)
    text = html.page(title, _lead(flow), _summary(adata), sections, _TITLES)
    with committed(folder / PAGE) as partial:
        partial.write_text(text, encoding="utf-8")
    return folder / PAGE


def section(adata: "AnnData", key: str = "response") -> str:
    """Return the effects of treatments beside chance and, if any, predictions; empty without results."""
    if key not in adata.uns:
        return ""
    table = read_response(adata, key)
    names = {
        "energy_distance": "Energy distance",
        "energy_distance_floor": "half against half",
        "changed_genes": "Changed genes",
        "changed_genes_floor": "half against half",
        "share": "Share of the effect",
        "share_of_differences": "of how cells differ",
        "energy_distance_flow": "Flow to treated cells",
        "energy_distance_shift": "mean shift",
        "correlation_flow": "Correlation of changes, flow",
        "correlation_shift": "mean shift",
        "ceiling": "half against half",
    }
    shown = [name for name in names if name in table]
    order = table["energy_distance"].to_numpy().argsort()[::-1][:MOST_ROWS]
    rows = [
        (
            name_of_row(table.iloc[k]),
            f"{table['cells'].iloc[k]:,} / {table['controls'].iloc[k]:,}",
            "yes" if table["told"].iloc[k] else "no",
            *(_number(table[name].iloc[k]) for name in shown),
        )
        for k in order
    ]
    header = ("Condition", "Cells / controls", "Distinguishable from no effect", *(names[name] for name in shown))
    found = html.paragraph(
        "Energy distances are from the measured controls to the treated cells, beside those of two halves of the "
        "treated cells; a condition is distinguishable from no effect if random splits of the cells are rarely as far "
        "apart. The shares are what a flow keeps of each effect, and of its differences between cells: as much as "
        "held-out cells confirm. The flow uses all cells that have a treatment, alone or with others, and may keep "
        "effects that the table, which tests each condition by itself, cannot distinguish from none."
    )
    found += html.table(header, rows, numbers=range(1, len(header)))
    if len(table) > len(rows):
        found += html.paragraph(f"The {len(rows)} largest of {len(table):,} conditions are shown.", style="note")
    return found


def drawings(adata: "AnnData", key: str = "response") -> Iterator[Drawing]:
    """Yield the figures of the section on conditions."""
    if f"{key}_states" in adata.uns:
        figure = html.blank(7.2, 6.0)
        pl.conditions(adata, key=key, ax=figure.subplots())
        said = (
            "Conditions with similar changes of the mean of the cells lie near each other; the cross marks no change."
        )
        yield Drawing("conditions", "conditions", figure, said)
    if f"{key}{PREDICTED}" not in adata.varm:
        return
    table = read_response(adata, key)
    # First what the flow has not seen, and what is something, from the largest change on.
    first = table.assign(untold=~table["told"].astype(bool), near=-table["energy_distance"])
    order = first.sort_values(["untold", "fitted", "near"], kind="stable").index.tolist()
    for number, k in enumerate(order[:MOST_DRAWN]):
        figure, row = html.blank(6.0, 5.8), table.iloc[k]
        pl.response(adata, treatment=row["treatment"], group=row["group"], key=key, ax=figure.subplots())
        said = f"Predicted and measured change of the mean of every gene: {name_of_row(row)}."
        yield Drawing("conditions", f"response_{number + 1}", figure, said)


def untold(table: pd.DataFrame) -> str:
    """Say which conditions cannot be distinguished from no effect.

    Examples
    --------
    >>> untold(pd.DataFrame({"treatment": ["A", "B"], "group": "all", "told": [True, False]}))
    '1 of 2 conditions cannot be distinguished from no effect: B.'
    """
    names = [name_of_row(row) for _, row in table[~table["told"]].iterrows()]
    if not names:
        return "Every condition can be distinguished from no effect."
    if len(names) == len(table) > MOST_NAMES:
        return f"None of {len(table)} conditions can be distinguished from no effect."
    return f"{len(names)} of {_conditions(len(table))} cannot be distinguished from no effect: {_listed(names)}."


def verdict(table: pd.DataFrame) -> list[str]:
    """Say whether the flow is worth more than the mean shift, and whether it invents changes.

    Conditions that the flow has not seen are judged if there are any.

    Parameters
    ----------
    table
        What `cellflow.tl.response` wrote for a flow.

    Examples
    --------
    >>> columns = ["treatment", "group", "told", "fitted", "energy_distance", "energy_distance_flow"]
    >>> table = pd.DataFrame([("A", "all", True, False, 9.0, 1.0)], columns=columns).assign(energy_distance_shift=1.01)
    >>> verdict(table)[0][:60]
    'The flow only ties with the mean shift: it is closer to the '
    """
    judged = table[table["told"]]
    unseen = judged[~judged["fitted"].astype(bool)]
    seen = not len(unseen)
    judged = judged if seen else unseen
    if not len(judged):
        return _invented(table)
    ratio = (judged["energy_distance_flow"] / judged["energy_distance_shift"].clip(lower=1e-12)).to_numpy()
    closer, farther, n = int((ratio < CLOSER).sum()), int((ratio > 1 / CLOSER).sum()), len(ratio)
    middle = float(np.median(ratio))
    word = "is worth more than" if middle < CLOSER and closer > farther else "only ties with"
    word = "is worse than" if middle > 1 / CLOSER and farther > closer else word
    where = f"{_conditions(n)} {'that it was fitted on' if seen else 'that it did not see'}"
    if word == "only ties with":
        said = f": it is closer to the treated cells in {closer} and farther in {farther} of {where}"
    elif word == "is worse than":
        said = f" in {farther} of {where}: it is farther from the treated cells there, and closer in {closer}"
    else:
        said = f" in {closer} of {where}: it is closer to the treated cells there, and farther in {farther}"
    found = [f"The flow {word} the mean shift{said} (median energy distance {middle:.2f} times its own)."]
    if word != "is worth more than":
        found.append("In that case, use the mean shift: it predicts as well with fewer assumptions.")
    if seen:
        found.append(
            "Both have seen these cells. Leave a group or a treatment out of the fit to see how well they generalise."
        )
    return found + _invented(table)


def _invented(table: pd.DataFrame) -> list[str]:
    """Say where cells are moved without a distinguishable effect."""
    still = table[~table["told"]]
    bad = still[still["energy_distance_flow"] > HARM * still["energy_distance"]]
    names = [name_of_row(row) for _, row in bad.iterrows()]
    if not names:
        return []
    return [
        f"The flow changes cells under conditions without a distinguishable effect: {_listed(names)}. Do not rely on "
        "it there."
    ]


def _conditions(n: int) -> str:
    return f"{n} condition{'s' if n > 1 else ''}"


def _listed(names: list[str]) -> str:
    """Return the first names of a list for a sentence."""
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def _summary(adata: "AnnData", key: str = "response") -> str:
    if key not in adata.uns:
        return html.paragraph("Not compared with measured changes yet: run `cf.tl.response(adata, flow)` first.")
    table = read_response(adata, key)
    said = [untold(table)]
    if "energy_distance_flow" in table:
        said = verdict(table) + said
    return html.bullets(said)


def _fitted(flow: "PerturbationFlow") -> str:
    arms = flow.arms_
    early = f" of {flow.steps:,}, as held-out cells stopped improving" if len(flow.history_) < flow.steps else ""
    blur = f", blurred by {flow.blur_:.3g}" if flow.blur_ else ""
    settings = [
        ("Representation", f"{flow.rep}, {flow.n_features_in_} columns"),
        ("Treatments", f"{arms['treatment'].nunique():,}, each counts the same"),
        ("Paired within", ", ".join(flow._groups()) or "all cells"),
        ("Pairing", repr(couplings.resolve(flow.coupling))),
        ("Path", f"{paths.resolve(flow.path)!r}{blur}"),
        ("Network", estimator.parameters(flow)),
        ("Training", f"{len(flow.history_):,} steps{early}, {flow.batch_size:,} pairs per step"),
        *estimator.chosen(flow, besides=("rep", "coupling", "path", "steps", "batch_size")),
    ]
    rows = [
        (str(treatment), str(group), f"{cells:,}", f"{controls:,}")
        for treatment, group, cells, controls in arms.head(MOST_ROWS).itertuples(index=False)
    ]
    return html.table(("Treatment", "Group", "Cells", "Controls"), rows, numbers=(2, 3)) + html.table(None, settings)


def _lead(flow: "PerturbationFlow") -> str:
    n, groups = flow.arms_["treatment"].nunique(), flow.arms_["group"].nunique()
    return (
        f"A flow from controls to {n} treatment{'s' if n > 1 else ''} in {groups} group{'s' if groups > 1 else ''} of "
        f"cells, fitted on {flow.arms_['cells'].sum():,} treated cells, in {flow.rep}."
    )


def _python_lines(folder: Path, flow: "PerturbationFlow") -> str:
    return "\n".join([
        "import anndata",
        "import cellflow as cf",
        "",
        'adata = anndata.read_h5ad("cells.h5ad")  # your cells',
        f"flow = cf.PerturbationFlow.load({str(folder)!r})",
        f"treated = cf.tl.perturb(adata, flow, condition={flow.treatments_[0]!r})  # controls, as if treated",
        "cf.tl.response(adata, flow)  # writes adata.uns['response']: measured beside predicted changes",
    ])  # fmt: skip


def _shell_lines(folder: Path, flow: "PerturbationFlow") -> str:
    """Return shell commands that use the run."""
    model, first = shlex.quote(f"model={folder}"), flow.treatments_[0]
    asked = " ".join(
        shlex.quote(f"condition.{name}={_typed(value)}") for name, value in first.items() if value is not None
    )
    return f"cellflow perturb {model} {asked}\ncellflow report {model}"


def _typed(value: object) -> str:
    """Return a value as it is typed on the command line: in quotation marks where it is more than letters."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if re.fullmatch(r"[\w.+-]+", text, flags=re.ASCII) else "'" + text.replace("'", "\\'") + "'"


def _number(value: float) -> str:
    return "–" if value != value else f"{value:,}" if isinstance(value, int | np.integer) else f"{value:.3g}"
