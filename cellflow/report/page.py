"""The page: sections of HTML around words, tables and figures. Everything from outside is escaped here."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from cellflow.pl.labels import moment, unit_of
from cellflow.report import verdict, words
from cellflow.report.figures import MOST_SNAPSHOTS, Drawing, drawings
from cellflow.tl import testable_times

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

PAGE, FIGURES = "report.html", "figures"
DPI, SCREEN_DPI = 160, 100
_TITLES = {
    "fitted": "What was fitted",
    "validation": "How good the predictions are",
    "predictions": "Predicted beside observed cells",
    "courses": "Courses and velocities",
    "genes": "Genes over time",
    "training": "Training",
    "use": "How to use this flow",
    "run": "The run",
}


def write(
    folder: str | Path,
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    title: str,
    details: Mapping[str, str],
    basis: str | None = None,
    genes: Sequence[str] = (),
) -> Path:
    """Write the report of a fitted flow: one HTML page that needs nothing else, and its figures as PNG files.

    Numbers beside baselines are shown where `cellflow.tl.validate` has written them; nothing is refitted here, and
    ``adata`` is not changed.

    Parameters
    ----------
    folder
        The folder of the run, where the flow is saved; made where it is not there. ``report.html`` and ``figures/``
        in it are replaced.
    adata
        The cells, left-out snapshots among them.
    flow
        The fitted flow.
    title
        Name of the run.
    details
        What else is known about the run: settings, versions, wall time.
    basis
        What cells are drawn on; None for the representation of the flow.
    genes
        Genes to draw over time, where the flow works on principal components.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    NotFittedError
        Before ``fit``.
    KeyError
        When a gene or the basis is not there.

    Examples
    --------
    >>> import tempfile, cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = cf.report.write(folder, adata, flow, title="A walk", details={"wall time": "2 s"})
    ...     page.name, page.read_text().count("<img")
    ('report.html', 4)
    """
    flow._check_fitted()
    folder = Path(folder)
    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    sections = {
        "fitted": _fitted(adata, flow),
        "validation": _validation(adata, flow),
        "predictions": _predictions_note(adata, flow),
        "courses": "",
        "genes": "",
        "training": "",
        "use": _use(folder, adata, flow),
        "run": _table(None, details.items()),
    }
    for drawing in drawings(adata, flow, basis=basis or flow.rep, genes=genes):
        sections[drawing.section] += _figure(drawing, folder / FIGURES)
    page = folder / PAGE
    page.write_text(_page(title, words.lead(adata, flow), _verdict(adata, flow, folder), sections), encoding="utf-8")
    return page


def _page(title: str, lead: str, found: str, sections: dict[str, str]) -> str:
    there = {name: body for name, body in sections.items() if body}
    return Template(files("cellflow.report").joinpath("template.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        lead=escape(lead),
        contents="\n".join(f'<a href="#{name}">{_TITLES[name]}</a>' for name in there),
        verdict=found,
        sections="\n".join(
            f'<section id="{name}">\n<h2>{_TITLES[name]}</h2>\n{there[name]}\n</section>' for name in there
        ),
    )


def _verdict(adata: "AnnData", flow: "SnapshotFlow", folder: Path) -> str:
    scores = verdict.read_scores(adata)
    if not scores:
        return _untested(adata, flow, folder)
    unit = unit_of(adata, flow.time_key)
    shown = scores[: verdict.MOST_SENTENCES]
    found = _paragraph(verdict.headline(scores))
    found += f"<ul>{''.join(f'<li>{escape(verdict.sentence(score, unit))}</li>' for score in shown)}</ul>"
    if len(scores) > len(shown):
        found += _paragraph(f"The other {len(scores) - len(shown)} left-out snapshots are in the table below.")
    return found


def _untested(adata: "AnnData", flow: "SnapshotFlow", folder: Path) -> str:
    if not testable_times(adata, flow):
        return _paragraph("Not tested against left-out cells.") + _paragraph(
            "There is no snapshot between two others, so none can be left out and predicted. The pictures below show "
            "what the flow does, not whether it is right."
        )
    command = words.report_line(folder) + " validate=true"
    return (
        _paragraph("Not tested against left-out cells yet.")
        + _paragraph("The pictures below show what the flow does, not whether it is right. This tests it:")
        + f"<pre>{escape(command)}</pre>"
    )


def _fitted(adata: "AnnData", flow: "SnapshotFlow") -> str:
    return _table(("Snapshot", "Cells", "Role"), words.snapshots(adata, flow), numbers=(1,)) + _table(
        None, words.settings(flow)
    )


def _validation(adata: "AnnData", flow: "SnapshotFlow") -> str:
    scores = verdict.read_scores(adata)
    if not scores:
        return ""
    unit = unit_of(adata, flow.time_key)
    methods = list(dict.fromkeys(name for score in scores for name in score.distances))
    rows = [
        [
            moment(score.time, unit),
            f"{score.n_cells:,}",
            *(verdict.number(score.distances[name]) if name in score.distances else "–" for name in methods),
        ]
        for score in scores
    ]
    explained = (
        "Each of these snapshots was predicted by a flow that had not seen it. W1 is how far, on average, the "
        "predicted cells must be moved to become the cells that were really there, in units of the representation: "
        "smaller is better, and 0 is reached by none, since the true cells are a sample themselves."
    )
    caution = (
        f"One fit and one seed: differences under {verdict.TIE:.0%} are called level. On myoblast snapshots of "
        "75 cells, another seed alone changed W1 by 3 to 5%. The noise floor compares two "
        "halves of the true cells; as W1 grows when cells are few, a good prediction may lie somewhat below it."
    ).replace("%", "\u00a0%")
    header = ("Left out", "Cells", *(verdict.SHORT.get(name, name) for name in methods))
    return (
        _paragraph(explained) + _table(header, rows, numbers=range(1, len(header))) + _paragraph(caution, style="note")
    )


def _predictions_note(adata: "AnnData", flow: "SnapshotFlow") -> str:
    n = adata.obs[flow.time_key].nunique() - 2
    if n <= MOST_SNAPSHOTS:
        return ""
    return _paragraph(f"There are {n} inner snapshots; {MOST_SNAPSHOTS} of them are drawn.", style="note")


def _use(folder: Path, adata: "AnnData", flow: "SnapshotFlow") -> str:
    at = words.unmeasured(adata, flow)
    return (
        _paragraph("In Python:")
        + f'<pre class="python">{escape(words.python_lines(folder, flow, at))}</pre>'
        + _paragraph("On the command line:")
        + f'<pre class="shell">{escape(words.shell_lines(folder, at))}</pre>'
    )


def _figure(drawing: Drawing, folder: Path) -> str:
    """Save a figure, and return it as HTML that holds the same picture."""
    path = folder / f"{drawing.name}.png"
    drawing.figure.savefig(path, dpi=DPI)
    data, said = b64encode(path.read_bytes()).decode("ascii"), escape(drawing.caption)
    width = round(drawing.figure.get_figwidth() * SCREEN_DPI)
    image = f'<img width="{width}" src="data:image/png;base64,{data}" alt="{said}">'
    return f"<figure>{image}<figcaption>{said}</figcaption></figure>\n"


def _paragraph(text: str, *, style: str = "") -> str:
    return f'<p class="{style}">{escape(text)}</p>\n' if style else f"<p>{escape(text)}</p>\n"


def _table(header: Sequence[str] | None, rows: Iterable[Sequence[str]], *, numbers: Sequence[int] | range = ()) -> str:
    """Return a table; the first cell of a row is its heading, and text of several lines keeps them."""
    kind = ['class="number"' if k in numbers else "" for k in range(len(header or ()))]
    head = "".join(f"<th {kind[k]}>{escape(name)}</th>" for k, name in enumerate(header or ()))
    body = ""
    for first, *rest in rows:
        cells = "".join(
            f"<td {kind[k] if header else ''}>{_cell(str(value))}</td>" for k, value in enumerate(rest, start=1)
        )
        body += f"<tr><th>{escape(str(first))}</th>{cells}</tr>\n"
    thead = f"<thead><tr>{head}</tr></thead>" if header else ""
    return f'<div class="wide"><table>{thead}<tbody>{body}</tbody></table></div>\n' if body else ""


def _cell(text: str) -> str:
    return f"<pre>{escape(text)}</pre>" if "\n" in text else escape(text)
