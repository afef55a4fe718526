"""Held-out snapshots of embryoid bodies, through the command line: ``python -m benchmarks.embryoid_body``.

16,819 cells, five snapshots, 100 principal components. Each inner snapshot is left out in turn and the flow fitted
again; the error stands beside baselines that learn nothing, and beside the noise floor.
"""

import json
import os
import sys
import time
from pathlib import Path

import pandas as pd

import cellflow as cf
from benchmarks import page
from benchmarks.command import Words, guarded, options
from cellflow.cli import main as cellflow


def main(words: Words = None) -> None:
    """Fit and validate with the command line; write the scores."""
    given = options("embryoid_body", __doc__, words, folder=Path("runs/embryoid_body"), steps=3000)
    given.folder.mkdir(parents=True, exist_ok=True)
    cells, out = given.folder / "eb.h5ad", given.folder / "run"
    cf.datasets.embryoid_body().write_h5ad(cells)
    code = cellflow(
        ["fit", f"data.path={cells}", "data.time_key=day", "data.rep=X_pca", f"steps={given.steps}", f"out={out}"]
    )
    if code:
        sys.exit(code)
    start = time.perf_counter()
    cellflow(["interpolate", f"model={out}", "at=[10.5]"])
    seconds = json.loads((out / "run.json").read_text())["seconds"] | {"interpolate": time.perf_counter() - start}
    scores = pd.read_csv(out / "validation.csv")
    scores.round(4).to_csv(given.out / "embryoid_body.csv", index=False)
    page.write(given.out / "embryoid_body.md", text(scores, seconds, given.command))


def text(scores: pd.DataFrame, seconds: dict[str, float], command: str) -> list[str]:
    """Return the page."""
    table = scores.pivot_table(index="method", columns="time", values="W1").assign(mean=lambda t: t.mean(axis=1))
    made, taken = page.made_by(command, f"{os.cpu_count()} cores"), {k: f"{v:.0f}" for k, v in seconds.items()}
    (about,) = page.fill(Path(__file__).with_suffix(".md"), made=made, cells=scores["n_cells"].min(), **taken)
    rows = [[row.Index, *(f"{value:.3f}" for value in row[1:])] for row in table.sort_values("mean").itertuples()]
    return [*about, "", *page.table(["", *(f"day {time:g}" for time in table.columns[:-1]), "mean"], rows)]


if __name__ == "__main__":
    guarded("embryoid_body", main)
