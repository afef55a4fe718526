"""The history of a training, step by step."""

from pathlib import Path
from typing import TYPE_CHECKING

from cellflow.files import committed
from cellflow.signature import checked, checked_but

if TYPE_CHECKING:
    import pandas as pd


@checked
class History:
    """The terms of the objective and the learning rate at every training step.

    Examples
    --------
    >>> history = History()
    >>> history.append({"loss": 2.0, "learning_rate": 0.1})
    >>> len(history), history["loss"]
    (1, [2.0])
    """

    def __init__(self, columns: dict[str, list[float]] | None = None) -> None:
        self.columns: dict[str, list[float]] = columns or {}

    def __len__(self) -> int:
        return len(self.columns.get("loss", []))

    def __getitem__(self, name: str) -> list[float]:
        return self.columns[name]

    def __repr__(self) -> str:
        last = f", last loss {self['loss'][-1]:.4g}" if len(self) else ""
        return f"History({len(self)} steps{last})"

    def __add__(self, later: "History") -> "History":
        """Return the steps of both, one after the other."""
        names = self.columns or later.columns
        return History({name: [*self.columns.get(name, []), *later[name]] for name in names})

    @checked
    def append(self, row: dict[str, float]) -> None:
        """Add one step."""
        for name, value in row.items():
            self.columns.setdefault(name, []).append(value)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per step, indexed by ``step`` from 1."""
        import pandas as pd

        return pd.DataFrame(self.columns, index=pd.RangeIndex(1, len(self) + 1, name="step"))

    @checked_but("path")
    def to_csv(self, path: str | Path) -> None:
        """Write one row per step; the file is written whole or not at all."""
        with committed(path) as partial:
            self.to_frame().to_csv(partial)
