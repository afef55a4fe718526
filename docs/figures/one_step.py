"""Run the example of ``docs/one_step.md`` as printed, and draw its figure: ``python -m docs.figures.one_step``."""

import re
from pathlib import Path
from typing import Any

from cellflow.report.grids import rows_figure

HERE = Path(__file__)
ROWS = {
    "two": "twos", "one Euler\nstep": "euler", "one jump": "fast", "100 Euler\nsteps": "slow", "back\nagain": "back",
}  # fmt: skip
SHOWN = 12


def main() -> None:
    """Draw the figure."""
    names: dict[str, Any] = {}
    page = (HERE.parents[1] / "one_step.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(block, "one_step.md", "exec"), names)
    figure = rows_figure([(label, names[name].scaled()[:SHOWN]) for label, name in ROWS.items()])
    figure.savefig(HERE.with_suffix(".png"), dpi=130)


if __name__ == "__main__":
    main()
