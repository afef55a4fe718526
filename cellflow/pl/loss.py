"""The training loss."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow.errors import NotFittedError
from cellflow.pl.canvas import INK, OBSERVED, axes_or_new, plain
from cellflow.signature import checked
from cellflow.training import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cellflow.estimators import SnapshotFlow

SHARE = 50
"""The running median is over this fraction of all steps: short enough to follow, long enough to be calm."""
SHORTEST = 5
"""Steps that it is over at least."""


@checked
def loss(flow: "SnapshotFlow | History", *, ax: "Axes | None" = None) -> "Axes":
    """Draw the training loss: every step, and a running median.

    Parameters
    ----------
    flow
        A fitted flow, or a history.
    ax
        Axes to draw on; ``None`` for new ones.

    Raises
    ------
    NotFittedError
        When there was no training yet.

    Examples
    --------
    >>> import cellflow as cf
    >>> history = cf.training.History({"loss": [3.0, 2.0, 1.0]})
    >>> cf.pl.loss(history).get_xlabel()
    'step'
    """
    history = flow if isinstance(flow, History) else getattr(flow, "history_", None)
    if history is None or not len(history):
        raise NotFittedError("There is no loss to draw: call `fit(adata)` first.")
    values = pd.Series(history["loss"], index=np.arange(1, len(history) + 1))
    window = max(SHORTEST, len(values) // SHARE)
    ax = axes_or_new(ax, size=(6.0, 3.4))
    ax.plot(values.index, values, color=OBSERVED, alpha=0.4, linewidth=0.6, label="every step")
    course = values.rolling(window, center=True, min_periods=1).median()
    ax.plot(course.index, course, color=INK, linewidth=1.5, label=f"running median of {window} steps")
    if values.min() > 0 and values.max() > 10 * values.min():
        ax.set_yscale("log")
    ax.set(xlabel="step", ylabel="loss")
    ax.legend(frameon=False)
    plain(ax)
    return ax
