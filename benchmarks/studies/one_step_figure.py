"""Run the example of ``docs/one_step.md`` as printed, and draw its figure: ``benchmarks.studies.one_step_figure``."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import parse, parser
from benchmarks.page import save
from cellflow.report.grids import rows_figure

DOCS = Path(__file__).parents[2] / "docs"
ROWS = {
    "two": "twos", "one Euler\nstep": "euler", "one jump": "fast", "100 Euler\nsteps": "slow", "back\nagain": "back",
}  # fmt: skip
SHOWN = 12


def main(words: Sequence[str] | None = None) -> None:
    """Draw the figure; with ``--commit-table`` into ``docs/figures``."""
    given = parse(parser("studies.one_step_figure", __doc__), words)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "one_step.md").read_text(), flags=re.DOTALL):
        exec(compile(block, "one_step.md", "exec"), names)
    figure = rows_figure([(label, names[name].scaled()[:SHOWN]) for label, name in ROWS.items()])
    print(save(figure, (DOCS / "figures" if given.commit_table else given.out) / "one_step.png"))


if __name__ == "__main__":
    main()
