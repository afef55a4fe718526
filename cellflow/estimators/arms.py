"""Arms: the treated cells of one treatment and one group, and the controls that they are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from cellflow.cells.columns import read_groups
from cellflow.cells.condition_rows import ConditionTable
from cellflow.cells.fitted_conditions import FittedConditions
from cellflow.cells.name_vectors import listed
from cellflow.cells.snapshots import read_rep
from cellflow.cells.treatments import joined_columns
from cellflow.pairing.condition_legs import ConditionLeg

if TYPE_CHECKING:
    from anndata import AnnData

ALL = "all"
"""The group of every cell where there are no groups."""


class Arm(NamedTuple):
    """Treated cells of one treatment and group.

    Attributes
    ----------
    label
        The treatment, printable.
    group
        The group; ``"all"`` without groups.
    source, target
        Positions of the controls of the group, and of the treated cells.
    """

    label: str
    group: str
    source: np.ndarray
    target: np.ndarray


@dataclass(frozen=True, eq=False)
class Arms:
    """The cells of an experiment with controls, read once.

    Parameters
    ----------
    x
        States of all cells, ``(n, d)``.
    table
        Their conditions.
    control
        Whether each cell is a control, ``(n,)``.
    groups
        The group of each, ``(n,)``.
    arms
        The treated cells by treatment and group.
    """

    x: np.ndarray
    table: ConditionTable
    control: np.ndarray
    groups: np.ndarray
    arms: tuple[Arm, ...]

    @property
    def labels(self) -> list[str]:
        """The treatments, each once."""
        return list(dict.fromkeys(arm.label for arm in self.arms))

    def taken(self, chosen: np.ndarray) -> "Arms":
        """Return the same with only some cells of each arm, a mask over all cells ``(n,)``."""
        arms = (arm._replace(source=_some(arm.source, chosen), target=_some(arm.target, chosen)) for arm in self.arms)
        return replace(self, arms=tuple(arms))

    def legs(self) -> list[ConditionLeg]:
        """Return what to pair: for each arm, the cells of each condition with the controls of its group."""
        found = []
        for number, arm in enumerate(self.arms):
            source, condition = torch.from_numpy(arm.source), self.table.index[arm.target]
            for row in np.unique(condition).tolist():
                target = torch.from_numpy(arm.target[condition == row])
                found.append(ConditionLeg(f"{number}.{row}", source, target, condition=row))
        return found


def read_arms(adata: "AnnData", conditions: FittedConditions, *, rep: str, within: Sequence[str] = ()) -> Arms:
    """Read the cells of an experiment, and split the treated ones by treatment and group.

    Parameters
    ----------
    adata
        The cells.
    conditions
        How the columns of ``obs`` are read.
    rep
        Key of the representation in ``obsm``, or ``"X"``.
    within
        Columns of ``obs`` whose groups are kept apart: controls come from the same group.

    Raises
    ------
    KeyError, ValueError
        When a column or the representation is missing or unusable, or there are no controls.

    Examples
    --------
    >>> import anndata, pandas as pd, cellflow as cf
    >>> obs = pd.DataFrame({"drug": ["control", "A"] * 4}, index=list("abcdefgh"))
    >>> adata = anndata.AnnData(obs=obs, obsm={"X_pca": np.zeros((8, 2))})
    >>> read_arms(adata, cf.Conditions(treatment="drug").fit(obs), rep="X_pca").arms
    (Arm(label='A', group='all', source=array([0, 2, 4, 6]), target=array([1, 3, 5, 7])),)
    """
    x, table = read_rep(adata, rep), conditions.read(adata.obs)
    conditions.require_control(table)
    treatments = treatments_alone(conditions).read(adata.obs)
    groups, control = group_names(adata, within), treatments.is_control[treatments.index]
    names, number = np.unique(groups, return_inverse=True)
    sources = [np.flatnonzero(control & (number == k)) for k in range(len(names))]
    treated = np.flatnonzero(~control)
    both, place = np.unique(np.stack([treatments.index[treated], number[treated]]), axis=1, return_inverse=True)
    arms = (
        Arm(treatments.labels[label], str(names[group]), sources[group], treated[place.ravel() == k])
        for k, (label, group) in enumerate(both.T.tolist())
    )
    return Arms(x, table, control, groups, tuple(arms))


def treatments_alone(conditions: FittedConditions) -> FittedConditions:
    """Return the same without what is not a treatment: categories and numbers.

    Examples
    --------
    >>> import pandas as pd, cellflow as cf
    >>> obs = pd.DataFrame({"drug": ["control", "A"] * 2, "donor": ["x"] * 4})
    >>> treatments_alone(cf.Conditions(treatment="drug", categories=("donor",)).fit(obs)).columns
    ('drug',)
    """
    return replace(conditions, categories=(), numbers=(), levels=(), moments=())


def check_arms(arms: Arms, *, within: Sequence[str]) -> None:
    """Refuse arms from which nothing can be learned.

    Raises
    ------
    ValueError
        When there are no treated cells, or a group has treated cells and no controls; the message names these.

    Examples
    --------
    >>> arm = Arm("A", "x", np.arange(0), np.arange(3))
    >>> check_arms(Arms(np.zeros((3, 1)), None, np.zeros(3, bool), np.full(3, "x"), (arm,)), within=["donor"])
    Traceback (most recent call last):
    ValueError: Groups of `adata.obs['donor']` with treated cells and no controls: 'x'. Treated cells are paired ...
    """
    if not arms.arms:
        raise ValueError("All cells are controls: there is no treatment to learn. Check the column of treatments.")
    without = list(dict.fromkeys(arm.group for arm in arms.arms if not len(arm.source)))
    if without:
        columns = " and ".join(f"`adata.obs[{name!r}]`" for name in within)
        raise ValueError(
            f"Groups of {columns} with treated cells and no controls: {listed(without)}. Treated cells are paired with "
            "controls of their own group. Leave these groups out, or choose other groups, `within`."
        )


def group_names(adata: "AnnData", within: Sequence[str]) -> np.ndarray:
    """Return the group of each cell by several columns together, ``(n,)``.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> group_names(adata, ["fate"])[-1], group_names(adata, [])[-1]
    (np.str_('upper'), np.str_('all'))
    """
    if not len(within):
        return np.full(adata.n_obs, ALL)
    columns = [read_groups(adata, name, setting="within") for name in within]
    return joined_columns(columns)


def _some(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return np.asarray(rows[chosen[rows]])
