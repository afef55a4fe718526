"""Parts of every page that describe its estimator: the chosen settings, and the training loss."""

import inspect
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellflow import pl
from cellflow.estimators.loading import DESCRIPTION
from cellflow.report import html
from cellflow.report.html import Drawing

if TYPE_CHECKING:
    from cellflow.estimators import DomainTranslator, ImageGenerator, PerturbationFlow, SnapshotFlow

    Estimator = DomainTranslator | ImageGenerator | PerturbationFlow | SnapshotFlow

LOSS = "Training loss. It should fall and level off; it does not fall to zero, since many paths cross at each point."


def chosen(estimator: "Estimator", *, besides: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Return name and value of every setting that is not at its default.

    Parameters
    ----------
    estimator
        Any estimator.
    besides
        Settings that the page shows elsewhere.

    Examples
    --------
    >>> import cellflow as cf
    >>> flow = cf.SnapshotFlow(time_key="hours", path=cf.paths.BrownianBridge(0.3), standardize=False)
    >>> chosen(flow, besides=["time_key"])
    [('path', 'BrownianBridge(sigma=0.3)'), ('standardize', 'False')]
    """
    defaults = {name: setting.default for name, setting in inspect.signature(type(estimator)).parameters.items()}
    settings = estimator.get_params(deep=False).items()
    # By their printed form: arrays and networks have no equality of their own.
    return [(k, shown(v)) for k, v in settings if k not in besides and shown(v) != shown(defaults[k])]


def shown(value: Any) -> str:
    """Return the printed form of a setting, without module names and addresses.

    Examples
    --------
    >>> import cellflow as cf
    >>> shown(partial(cf.networks.UNet, width=8)), shown(cf.paths.Linear()), shown("X_pca")
    ('UNet(width=8)', 'Linear(sigma=0.0)', "'X_pca'")
    """
    if isinstance(value, partial):
        given = [*map(shown, value.args), *(f"{name}={shown(one)}" for name, one in value.keywords.items())]
        return f"{shown(value.func)}({', '.join(given)})"
    return value.__qualname__ if inspect.isclass(value) or inspect.isfunction(value) else repr(value)


def parameters(estimator: "Estimator") -> str:
    """Return the number of weights of a fitted estimator, in words."""
    return f"{sum(weights.numel() for weights in estimator.field_.parameters()):,} parameters"


def unsaved(folder: Path) -> str:
    """Say that the folder of a page holds no model, which its code would load; empty if it does."""
    if (folder / DESCRIPTION).exists():
        return ""
    return html.paragraph("The flow is not saved here yet; these lines need that:") + html.listing(
        f"flow.save({str(folder)!r})", style="note"
    )


def loss(estimator: "Estimator") -> Drawing:
    """Draw the training loss of a fitted estimator."""
    figure = html.blank(7.2, 3.6)
    pl.loss(estimator.history_, ax=figure.subplots())
    return Drawing("training", "loss", figure, LOSS)
