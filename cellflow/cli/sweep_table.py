"""One table of all members of a sweep: the settings that vary, how each ended, and its scores."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cellflow.cli import runs
from cellflow.cli.members import DONE, MISSING, record_of
from cellflow.report.image_scores import MADE

if TYPE_CHECKING:
    import pandas as pd

TABLE = "sweep.csv"
SHOWN = 40
"""Most rows that are printed."""


def varying(jobs: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Return for each job the settings that differ between jobs.

    Examples
    --------
    >>> varying([["steps=5", "seed=0"], ["steps=5", "seed=1"]])
    [{'seed': '0'}, {'seed': '1'}]
    """
    said = [dict(word.partition("=")[::2] for word in job) for job in jobs]
    names = [name for name in said[0] if len({one.get(name) for one in said}) > 1]
    return [{name: one.get(name, "") for name in names} for one in said]


def gather(folder: Path, jobs: Sequence[Sequence[str]]) -> "pd.DataFrame":
    """Return the table of a sweep, a row for each job, and write it into its folder.

    Failed jobs are rows with their error. Scores are means; all are distances, for which lower is
    better.

    Parameters
    ----------
    folder
        The folder of the sweep.
    jobs
        The words of each job.

    Examples
    --------
    >>> import tempfile
    >>> gather(Path(tempfile.mkdtemp()), [["seed=0"], ["seed=1"]])[["member", "seed", "status"]]
       member seed   status
    0       0    0  not run
    1       1    1  not run
    """
    import pandas as pd

    rows = []
    for number, settings in enumerate(varying(jobs)):
        record, place = record_of(folder, number), folder / str(number)
        status = record.get("status", MISSING)
        scores = scores_of(place) if status == DONE else {}
        rows.append(
            {"member": number, **settings, "status": status, "seconds": record.get("seconds"), **scores}
            | {"folder": str(place) if place.is_dir() else "", "error": record.get("error", "")}
        )
    table = pd.DataFrame(rows)
    last = ["folder", "error"]
    table = table[[name for name in table if name not in last] + last]
    runs.write_table(table, folder / TABLE)
    return table


def scores_of(folder: Path) -> dict[str, float]:
    """Return the stored scores of a run, as numbers by which to compare runs.

    ``loss`` is the mean of the last tenth of the steps. For cells, ``W1`` is the distance to held-out snapshots, and
    ``ED_new`` the energy distance of new cells carried to the next snapshot; for treatments, the energy distance of
    predicted to treated cells; for images, the distances of generated to real ones.

    Examples
    --------
    >>> scores_of(Path("runs/of-nobody"))
    {}
    """
    import pandas as pd

    found: dict[str, float] = {}
    readers: dict[str, Callable[[pd.DataFrame], dict[str, float]]] = {
        runs.HISTORY: _of_history,
        "validation.csv": lambda table: {"W1": _mean(table[table["method"] == "flow"], "W1")},
        "validation_new_cells.csv": lambda table: {
            "ED_new": _mean(table[(table["method"] == "flow") & (table["cells"] == "new")], "ED")
        },
        "response.csv": lambda table: {"energy_distance": _mean(table, "energy_distance_flow")},
        "scores.csv": lambda table: dict(
            zip((made := table[table["of"] == MADE])["measure"], made["value"].astype(float), strict=True)
        ),
    }
    for name, read in readers.items():
        if (folder / name).is_file():
            found |= read(pd.read_csv(folder / name))
    return found


def shown(table: "pd.DataFrame") -> str:
    """Return a table for the terminal: the best first by the first score, and no more rows than fit.

    Examples
    --------
    >>> import pandas as pd
    >>> print(shown(pd.DataFrame({"member": [0, 1], "status": "done", "W1": [2.0, 1.0], "folder": "", "error": ""})))
     member status  W1
          1   done   1
          0   done   2
    """
    known = ["member", "status", "seconds", "loss", "folder", "error"]
    scores = [str(name) for name in table if name not in known and table[name].dtype.kind == "f"]
    ordered = table.sort_values(scores[:1], na_position="last", kind="stable") if scores else table
    ordered = ordered.drop(columns="folder")
    if not ordered["error"].astype(bool).any():
        ordered = ordered.drop(columns="error")
    text: str = ordered.head(SHOWN).to_string(index=False, na_rep="", float_format=lambda value: f"{value:.4g}")
    return text if len(table) <= SHOWN else f"{text}\n... and {len(table) - SHOWN} more"


def _of_history(table: "pd.DataFrame") -> dict[str, float]:
    return {"loss": float(table["loss"].tail(max(1, len(table) // 10)).mean())}


def _mean(table: "pd.DataFrame", column: str) -> float:
    return float(table[column].mean()) if column in table else float("nan")
