"""Run the example of ``docs/one_step.md`` as printed, and draw its figure."""

import re
from pathlib import Path
from typing import Any

from cellflow.report.grids import rows_figure

DOCS = Path(__file__).parents[2] / "docs"
ROWS = {
    "two": "twos",
    "one Euler\nstep": "euler",
    "one jump": "fast",
    "100 Euler\nsteps": "slow",
    "back\nagain": "back",
}
SHOWN = 12


def main() -> None:
    """Draw the figure."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "one_step.md").read_text(), flags=re.DOTALL):
        exec(compile(block, "one_step.md", "exec"), names)
    figure = rows_figure([(label, names[name].scaled()[:SHOWN]) for label, name in ROWS.items()])
    figure.savefig(DOCS / "figures" / "one_step.png", dpi=130)


if __name__ == "__main__":
    main()
