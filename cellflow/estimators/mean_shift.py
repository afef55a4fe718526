"""The mean shift: what is left of a perturbation when every cell responds alike. The baseline of every prediction."""

from typing import TYPE_CHECKING

import numpy as np

from cellflow.estimators.arms import Arms, treatments_alone

if TYPE_CHECKING:
    from cellflow.estimators.perturbation import PerturbationFlow


def shifts_of(arms: Arms) -> np.ndarray:
    """Return the change of the mean from controls to treated cells of each arm, ``(k, d)`` float32."""
    found = [arms.x[arm.target].mean(axis=0, dtype=np.float64) for arm in arms.arms]
    before = [arms.x[arm.source].mean(axis=0, dtype=np.float64) for arm in arms.arms]
    return np.asarray(np.stack(found) - np.stack(before), dtype=np.float32)


def mean_shift(flow: "PerturbationFlow", treatment: str, group: str, effect: np.ndarray) -> np.ndarray:
    """Return the mean shift by the cells of the fit, ``(d,)``.

    For a treatment and group that were fitted it is theirs; for a treatment that was fitted in other groups, the mean
    over these; for others a linear function of the condition, so that a combination has the sum of its parts.

    Parameters
    ----------
    flow
        A fitted flow.
    treatment, group
        Names, as in the table ``arms_``.
    effect
        What a field sees of the treatment, ``(e,)``.

    Examples
    --------
    >>> import anndata, pandas as pd, cellflow as cf
    >>> x = np.random.default_rng(0).normal(size=(90, 2)).astype("float32")
    >>> drug = np.repeat(["control", "A", "B"], 30)
    >>> x[drug == "A", 0] += 3
    >>> adata = anndata.AnnData(obs=pd.DataFrame({"drug": drug}, index=[f"c{k}" for k in range(90)]), obsm={"X_pca": x})
    >>> flow = cf.PerturbationFlow(conditions="drug", steps=2).fit(adata)
    >>> both = mean_shift(flow, "A+B", "all", np.ones(2))
    >>> np.allclose(both, flow.shifts_.sum(axis=0), atol=1e-5)
    True
    """
    known = flow.arms_["treatment"].to_numpy()
    here = (known == treatment) & (flow.arms_["group"].to_numpy() == group)
    if not here.any():
        here = known == treatment
    if here.any():
        return np.asarray(flow.shifts_[here].mean(axis=0))
    of = treatments_alone(flow.conditions_)
    seen = np.concatenate([of.encode(one, 1) for one in flow.treatments_]).astype(np.float64)
    labels = list(dict.fromkeys(known))
    shifts = np.stack([flow.shifts_[known == label].mean(axis=0) for label in labels])
    found: np.ndarray = effect @ np.linalg.lstsq(seen, shifts.astype(np.float64), rcond=1e-6)[0]
    return found
