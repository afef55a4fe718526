"""Simulated cells of several donors under drugs, doses and combinations, whose effects are known in closed form."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
import pandas as pd
from anndata import AnnData

from cellflow.errors import unknown
from cellflow.signature import checked

_CONTROL = "control"


@checked
@dataclass(frozen=True)
class Perturbations:
    r"""Gaussian cells whose mean every drug shifts, in proportion to its dose; the drugs of a combination add up.

    .. math:: x \sim \mathrm{Normal}\Big(m_{donor} + s_{donor} \, dose \sum_{drug} e_{drug}, \; spread^2\Big)

    The effects :math:`e`, of length ``strength``, the means :math:`m` and the sensitivities
    :math:`s = 1 + sensitivity \cdot z` are drawn once from ``seed``. With a ``strength`` of 0 no treatment has an
    effect.

    Parameters
    ----------
    drugs
        Names of the drugs.
    n_donors
        Number of donors.
    n_genes
        Number of genes.
    strength
        Length of the shift by a dose of 1, over all genes.
    sensitivity
        Standard deviation of the donors' sensitivity; all equal by default.
    donor_spread
        Standard deviation of the means of the donors, in each gene.
    spread
        Standard deviation of the cells of one donor and condition, in each gene.
    seed
        Seed of the effects and of the donors.

    Examples
    --------
    >>> law = Perturbations(n_genes=10, strength=2.0)
    >>> bool(np.allclose(law.shift("A+B", 3.0), 3 * (law.shift("A") + law.shift("B"))))
    True
    >>> float(np.linalg.norm(law.shift("A")).round(3)), float(np.abs(law.shift("control")).max())
    (2.0, 0.0)
    """

    drugs: tuple[str, ...] = ("A", "B", "C")
    n_donors: int = 4
    n_genes: int = 50
    strength: float = 3.0
    sensitivity: float = 0.0
    donor_spread: float = 0.5
    spread: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        counts = self.n_donors, self.n_genes
        if min(counts) < 1 or self.seed < 0:
            raise ValueError(f"Expected n_donors and n_genes >= 1 and seed >= 0; found {counts} and {self.seed}.")
        sizes = [self.strength, self.sensitivity, self.donor_spread, self.spread]
        if not np.isfinite(sizes).all() or min(sizes) < 0:
            raise ValueError(
                f"`strength`, `sensitivity`, `donor_spread` and `spread` are finite and >= 0; found {sizes}."
            )
        if not self.drugs or len(set(self.drugs)) < len(self.drugs) or {"", _CONTROL} & set(self.drugs):
            raise ValueError(f"Expected different names of drugs, none of them {_CONTROL!r}; found {self.drugs}.")

    @checked
    def shift(self, drug: str, dose: float = 1.0, donor: int = 0) -> np.ndarray:
        """Return the true change of the mean ``(n_genes,)`` by a drug, ``"A+B"``, or ``"control"``, in one donor."""
        effects, _, sensitivities = self._drawn()
        names = [] if drug == _CONTROL else drug.split("+")
        if wrong := [name for name in names if name not in self.drugs]:
            raise ValueError(unknown("drug", wrong[0], [*self.drugs, _CONTROL]))
        self._check_donor(donor)
        total = np.zeros(self.n_genes)
        for name in names:
            total += effects[self.drugs.index(name)]
        return np.asarray(dose * sensitivities[donor] * total)

    @checked
    def mean(self, donor: int = 0) -> np.ndarray:
        """Return the mean ``(n_genes,)`` of the untreated cells of a donor."""
        self._check_donor(donor)
        return np.asarray(self._drawn()[1][donor])

    def _check_donor(self, donor: int) -> None:
        if not 0 <= donor < self.n_donors:
            raise ValueError(f"Expected a donor from 0 to {self.n_donors - 1}; found {donor}.")

    def _drawn(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return effects ``(drugs, n_genes)``, means ``(donors, n_genes)`` and sensitivities ``(donors,)``."""
        rng = np.random.default_rng(self.seed)
        effects = rng.standard_normal((len(self.drugs), self.n_genes))
        effects *= self.strength / np.linalg.norm(effects, axis=1, keepdims=True)
        means = 3 + self.donor_spread * rng.standard_normal((self.n_donors, self.n_genes))
        return effects, means, 1 + self.sensitivity * rng.standard_normal(self.n_donors)


_DEFAULT = Perturbations()


@checked
def perturbations(
    n_cells: int = 60,
    *,
    treatments: Sequence[str] = ("A", "B", "C", "A+B", "A+C", "B+C"),
    doses: Sequence[float] = (1.0,),
    law: Perturbations = _DEFAULT,
    seed: int = 0,
) -> AnnData:
    """Simulate cells of several donors, untreated and under every treatment at every dose, with the ground truth.

    Use it to test predictions of an unseen dose, combination or donor: `Perturbations` knows the answer.

    Parameters
    ----------
    n_cells
        Cells of each donor and condition.
    treatments
        Drugs of the law, and combinations of them as ``"A+B"``.
    doses
        Doses of every treatment, above 0.
    law
        The effects.
    seed
        Seed of the cells.

    Returns
    -------
    adata
        ``X`` ``(cells, genes)``. ``obs``: drug ("control" for untreated cells), dose (0 for them) and donor ("donor0",
        ...). ``var``: the true effect of a dose of 1 of each drug, as effect_A. ``uns``: source, and the parameters of
        the law under perturbations.

    Raises
    ------
    ValueError
        When there are no treatments or doses, or a name is unknown.

    Examples
    --------
    >>> adata = perturbations(20, treatments=["A", "A+B"], doses=[1.0, 3.0], law=Perturbations(n_donors=2))
    >>> adata.shape, adata.obs["drug"].value_counts().to_dict()
    ((200, 50), {'A': 80, 'A+B': 80, 'control': 40})
    """
    if n_cells < 1 or seed < 0:
        raise ValueError(f"Expected n_cells >= 1 and seed >= 0; found {n_cells} and {seed}.")
    if not len(treatments) or not len(doses) or not np.isfinite(doses).all() or min(doses) <= 0:
        raise ValueError(f"Expected treatments, and finite doses above 0; found {list(treatments)} and {list(doses)}.")
    rng = np.random.default_rng(seed)
    conditions = [(_CONTROL, 0.0), *product(treatments, map(float, doses))]
    x, rows = [], []
    for donor, (drug, dose) in product(range(law.n_donors), conditions):
        mean = law.mean(donor) + law.shift(drug, dose, donor)
        x.append(mean + law.spread * rng.standard_normal((n_cells, law.n_genes)))
        rows += [(drug, dose, f"donor{donor}")] * n_cells
    obs = pd.DataFrame(rows, columns=["drug", "dose", "donor"], index=[f"cell{k}" for k in range(len(rows))])
    true = {f"effect_{drug}": effect for drug, effect in zip(law.drugs, law._drawn()[0], strict=True)}
    return AnnData(
        X=np.concatenate(x).astype(np.float32),
        obs=obs.astype({"drug": "category", "donor": "category"}),
        var=pd.DataFrame(true, index=[f"gene{k}" for k in range(law.n_genes)]),
        uns={
            "source": "simulated by cellflow.datasets.perturbations",
            "perturbations": {**asdict(law), "drugs": np.asarray(law.drugs, dtype=object)},
        },
    )
