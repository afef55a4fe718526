"""Tables of samples, and the groups in them within which samples are paired."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cellflow.cells.conditions import resolve
from cellflow.cells.treatments import coded, joined_columns
from cellflow.estimators.domains import Domain
from cellflow.images.labels import named_labels

Groups = tuple[np.ndarray, np.ndarray]
"""The group of each source sample and of each target sample, ``(n,)`` and ``(m,)``."""


def check_conditional(model: Any) -> None:
    """Refuse settings of conditions and groups that contradict each other.

    Raises
    ------
    TypeError, ValueError
        With the name of the setting.
    """
    conditions = resolve(model.conditions)
    if not 0 <= model.condition_dropout <= 1:
        raise ValueError(f"Expected `condition_dropout` from 0 to 1; found {model.condition_dropout}.")
    if conditions is None and model.condition_dropout:
        raise ValueError("There are no conditions to drop: leave out `condition_dropout`, or give `conditions`.")
    if model.within is not None and model.within_labels:
        raise ValueError("Expected one of `within` and `within_labels`; found both. Name all columns in `within`.")
    if model.within is not None and not len(model.within):
        raise ValueError("Expected the name of a column, or of several, in `within`; found none. Leave it out.")


def table_of(given: Any, *, what: str) -> pd.DataFrame:
    """Return the table of samples.

    Raises
    ------
    ValueError
        When they have no table.
    """
    obs: pd.DataFrame | None = getattr(given, "obs", None)
    if obs is None:
        raise ValueError(
            f"Expected {what} with a table `obs`, from which conditions and groups are read; found none. Give images "
            'read with `cf.images.read_images(folder, table="plate.csv")`, or vectors as `anndata.AnnData(x, obs=...)` '
            'with rep="X".'
        )
    return obs


def groups_of(given: Any, within: str | Sequence[str], *, what: str) -> np.ndarray:
    """Return the group of each sample by one column of its table, or by several together, ``(n,)`` text.

    Raises
    ------
    KeyError
        When the column does not exist.
    ValueError
        When there is no table, or a sample has no group.

    Examples
    --------
    >>> import anndata
    >>> cells = anndata.AnnData(np.zeros((2, 1)), obs=pd.DataFrame({"plate": [1, 2]}, index=["a", "b"]))
    >>> groups_of(cells, "plate", what="`source`").tolist()
    ['1', '2']
    """
    obs, names = table_of(given, what=what), [within] if isinstance(within, str) else [*within]
    columns = []
    for name in names:
        if name not in obs:
            raise KeyError(f"No column {name!r} in `obs` of {what}, for `within`. Available: {[*obs.columns][:30]}.")
        missing = int(obs[name].isna().sum())
        if missing:
            raise ValueError(f"{missing} of {len(obs)} samples have no {name!r} in `obs` of {what}. Leave them out.")
        codes, different = coded(obs[name])
        columns.append(np.array(different, dtype=str)[codes])
    return joined_columns(columns)


def with_groups(domains: tuple[Domain, Domain], groups: Groups) -> tuple[Domain, Domain]:
    """Return both domains with the groups as their classes.

    Examples
    --------
    >>> import torch
    >>> from cellflow.estimators.domains import Points
    >>> both = Points(torch.zeros(2, 1)), Points(torch.ones(1, 1))
    >>> with_groups(both, (np.array(["x", "y"]), np.array(["y"])))[1].labels
    tensor([1])
    """
    numbers, classes = named_labels(np.concatenate(groups))
    parts = numbers.split([len(side) for side in groups])
    first, second = (
        replace(domain, labels=part.to(domain.device), classes=classes)
        for domain, part in zip(domains, parts, strict=True)
    )
    return first, second


def groups_of_both(source: Any, target: Any, within: str | Sequence[str]) -> Groups:
    """Return the groups of the samples of both domains, see `groups_of`."""
    return groups_of(source, within, what="`source`"), groups_of(target, within, what="`target`")


def names_of_classes(source: Domain, target: Domain) -> Groups:
    """Return the name of the class of each sample of both domains.

    Raises
    ------
    ValueError
        When a domain has no classes.
    """
    found = []
    for what, domain in (("source", source), ("target", target)):
        if domain.labels is None:
            raise ValueError(f"Expected labels on both sides for `within_labels`; found none of the {what} samples.")
        found.append(np.array(domain.classes, dtype=object)[domain.labels.cpu().numpy()].astype(str))
    return found[0], found[1]
