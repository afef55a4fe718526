"""The scores of a validation, and sentences on whether the flow is better or worse than the baselines."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cellflow.pl.labels import time_label
from cellflow.pl.validation import FLOOR, FLOW, read_validation
from cellflow.report import html

if TYPE_CHECKING:
    from anndata import AnnData

TIE = 0.05
"""Relative difference below which neither distance is called better. Measured on the myoblasts, about 75 cells a
snapshot: from seed to seed the flow's W1 has a standard deviation of 3 to 5 %."""
LINES = "linear transport"
STILL = {
    "previous snapshot": "the previous snapshot as it is",
    "next snapshot": "the next snapshot as it is",
    "previous and next": "a mixture of both neighbours",
}
"""Baselines in which no cell moves: doing nothing."""
MOST_SENTENCES = 6
SHORT = {
    FLOW: "Flow",
    LINES: "Straight lines",
    "previous and next": "Mixture",
    "previous snapshot": "Previous",
    "next snapshot": "Next",
    FLOOR: "Noise floor",
}
"""Headings of the table; the legend of the figure has the long names."""


@dataclass(frozen=True)
class Score:
    """The W1 distances to the cells of one held-out snapshot.

    Parameters
    ----------
    time
        When it was taken.
    distances
        W1 of every method, among them the flow.
    n_cells
        Number of cells compared.
    interval
        Interval of the flow; ``None`` if it was not stored.
    """

    time: float
    distances: dict[str, float]
    n_cells: int
    interval: tuple[float, float] | None = None

    @property
    def still(self) -> tuple[str, float]:
        """The best baseline in which no cell moves, and its distance."""
        name = min((name for name in STILL if name in self.distances), key=self.distances.__getitem__)
        return STILL[name], self.distances[name]

    @property
    def flow(self) -> float:
        """The distance of the flow's prediction."""
        return self.distances[FLOW]

    @property
    def lines(self) -> float:
        """The distance of straight lines along the optimal transport plan."""
        return self.distances[LINES]


def read_scores(adata: "AnnData") -> list[Score]:
    """Return the scores of each held-out snapshot, by time; empty if nothing was validated."""
    if "validation" not in adata.uns:
        return []
    found: list[Score] = []
    for time, rows in read_validation(adata).groupby("time"):
        own = rows[rows["method"] == FLOW]
        known = "W1_low" in rows and len(own)
        interval = (float(own["W1_low"].iloc[0]), float(own["W1_high"].iloc[0])) if known else None
        distances = dict(zip(rows["method"], rows["W1"], strict=True))
        found.append(Score(float(str(time)), distances, int(rows["n_cells"].max()), interval))
    return found


def headline(scores: list[Score]) -> str:
    """Return one sentence on how often the flow is better than doing nothing, and than straight lines.

    Examples
    --------
    >>> rows = {"flow": 1.0, "previous snapshot": 2.0, "next snapshot": 3.0, "linear transport": 1.01}
    >>> headline([Score(24.0, rows, 50)])
    'Tested on 1 held-out snapshot: the flow is better than doing nothing, but level with straight lines.'
    >>> headline([Score(24.0, rows, 50), Score(48.0, rows | {"flow": 3.0}, 50)])
    'Tested on 2 held-out snapshots: against doing nothing the flow is better on 1 and worse on 1; against straight
    lines it is level on 1 and worse on 1.'
    """
    still = [compare(score.flow, score.still[1]) for score in scores]
    lines = [compare(score.flow, score.lines) for score in scores]
    if len(scores) == 1:
        joint = "and" if still == lines else "but"
        return (
            f"Tested on 1 held-out snapshot: the flow is {_THAN[still[0]]} doing nothing, {joint} {_THAN[lines[0]]} "
            "straight lines."
        )
    return (
        f"Tested on {len(scores)} held-out snapshots: against doing nothing the flow is {_tally(still)}; against "
        f"straight lines it is {_tally(lines)}."
    )


def sentence(score: Score, unit: str) -> str:
    """Return sentences on the scores at one held-out snapshot.

    Examples
    --------
    >>> rows = {"flow": 1.0, "previous snapshot": 2.0, "next snapshot": 3.0, "linear transport": 0.8}
    >>> print(sentence(Score(24.0, rows, 50), "hours"))
    At 24 hours, held out: the flow's prediction is at W1 = 1.00 from the true cells. The best way of doing nothing (the
    previous snapshot as it is) is at 2.00: the flow is better, by 50 %. Straight lines (optimal transport) are at
    0.800: the flow is worse, by 25 %.
    """
    name, still = score.still
    found = (
        f"At {time_label(score.time, unit)}, held out: the flow's prediction is at W1 = {_flow(score)} from the "
        f"true cells. The best way of doing nothing ({name}) is at {number(still)}: the flow is "
        f"{_by(score.flow, still)}. Straight lines (optimal transport) are at {number(score.lines)}: the flow is "
        f"{_by(score.flow, score.lines)}."
    )
    if FLOOR not in score.distances:
        return found
    return f"{found} Two random halves of the true cells are {number(score.distances[FLOOR])} apart (noise floor)."


def section(scores: list[Score], unit: str) -> str:
    """Return what was compared, and a table."""
    methods = list(dict.fromkeys(name for score in scores for name in score.distances))
    rows = [
        [
            time_label(score.time, unit),
            f"{score.n_cells:,}",
            *(_cell(score, name) for name in methods),
        ]
        for score in scores
    ]
    explained = (
        "Each of these snapshots was predicted by a flow that had not seen it. W1 is how far, on average, the "
        "predicted cells must be moved to become the observed cells, in units of the representation: lower is better, "
        "and 0 is never reached, since the observed cells are themselves a sample."
    )
    caution = (
        f"Differences under {TIE:.0%} are called level: on myoblast snapshots of 75 cells, another seed alone changed "
        "W1 by 3 to 5%. The interval shows where W1 would lie with other cells, and with other seeds if several were "
        "fitted. The noise floor compares two halves of the true cells; as W1 grows when cells are few, a good "
        "prediction may lie somewhat below it."
    ).replace("%", "\u00a0%")
    header = ("Left out", "Cells", *(SHORT.get(name, name) for name in methods))
    return (
        html.paragraph(explained)
        + html.table(header, rows, numbers=range(1, len(header)))
        + html.paragraph(caution, style="note")
    )


def compare(flow: float, other: float) -> str:
    """Return ``"better"``, ``"worse"``, or ``"level"`` if distances are within 5 % of each other.

    Examples
    --------
    >>> compare(1.0, 1.5), compare(1.0, 1.02), compare(1.5, 1.0)
    ('better', 'level', 'worse')
    """
    if abs(flow - other) <= TIE * max(flow, other):
        return "level"
    return "better" if flow < other else "worse"


def number(distance: float) -> str:
    """Write a distance with three digits."""
    return f"{distance:#.3g}".rstrip(".")


def _flow(score: Score) -> str:
    """Write the distance of the flow, with its interval where that is known."""
    if score.interval is None:
        return number(score.flow)
    low, high = map(number, score.interval)
    return f"{number(score.flow)} ({low} to {high})"


def _cell(score: Score, name: str) -> str:
    if name not in score.distances:
        return "–"
    return _flow(score) if name == FLOW else number(score.distances[name])


_THAN = {"better": "better than", "level": "level with", "worse": "worse than"}


def _by(flow: float, other: float) -> str:
    found = compare(flow, other)
    return "level with that" if found == "level" else f"{found}, by {abs(flow - other) / other:.0%}".replace("%", " %")


def _tally(outcomes: list[str]) -> str:
    """Return the number of each outcome, in words."""
    if len(set(outcomes)) == 1:
        return f"{outcomes[0]} on {'both' if len(outcomes) == 2 else f'all {len(outcomes)}'}"
    *most, last = [f"{outcome} on {outcomes.count(outcome)}" for outcome in _THAN if outcome in outcomes]
    return f"{', '.join(most)} and {last}"
