"""Additive effects of treatments in closed form, shrunk as far as the noise of the means asks for."""

import itertools
import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cellflow.networks.additive import AdditiveShift, doses, within
from cellflow.shapes import check_points

log = logging.getLogger(__name__)

BLOCKS = ("line", "dose", "slope")
"""What the weights of each block of features are called."""
STRENGTHS = torch.cat([torch.zeros(1), torch.logspace(-3, 7, 61)]).double()
"""Variances of the effects that are tried, in units of the noise of their means."""
SHARED = 4.0
"""How many times the average coordinate counts beside each one, when the strength of effects along it is found."""
OWN = (0.0, 0.05, 0.2, 0.5)
"""Shares of it that belong to a condition alone: what no sum of effects explains."""
FORMS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5), (0.5, 0.5, 0.0))
"""Shares of lines in the amount, lines in the dose, and curves, of what is a sum of effects."""
GAIN = 1.0
"""Another form than lines is taken where its log-likelihood is better by more than this."""
MOST_KNOTS = 32
"""Amounts along an axis beyond which no curve is looked for."""
TINY = 1e-12
"""Least spread of cells along a coordinate, as a part of the average one."""
MOST_ROWS = 1000
"""Displacements beyond which those of one condition are averaged first."""


def fit_additive(
    changes: Tensor, *, noise: Tensor, spread: Tensor, effects: Tensor, curvature: Tensor | None = None
) -> "AdditiveEffects":
    r"""Return the additive effects of treatments that explain the mean displacements of conditions.

    The displacement of coordinate j of condition i, which has the amounts :math:`c_i`, is

    .. math:: \delta_{ij} = \sum_q f_{qj}(c_{iq}) + \omega_{ij} + \sqrt{s_j n_i} \, \varepsilon_{ij},

    a sum over treatments q of a curve each, a term of its own, and the noise of a mean. Curves are Gaussian
    processes from 0: lines in the amount, lines in the dose, and Brownian motions over the amount, whose estimate is
    piecewise linear. The size of effects is found for each coordinate by marginal likelihood, its own and `SHARED`
    times that of the average coordinate: 0 if displacements are no larger than noise. So is the form of the curves, for
    all coordinates together: lines in the amount, unless another form is clearly more likely. The result is the
    posterior mean. If no treatment has several doses, this is the ridge regression of displacements on names.

    Use it to predict the effect of a treatment on the mean at a dose or in a combination that was not measured. It has
    no synergy: the effect of two treatments together is the sum of their effects.

    Parameters
    ----------
    changes
        Mean of the treated minus mean of the control cells, ``(k, d)``; conditions may recur, with one row for each
        group.
    noise
        Variance of each row for a unit variance of cells, ``(k,)``: ``1 / n_treated + 1 / n_control``.
    spread
        Variance of cells within conditions along each coordinate, ``(d,)``.
    effects
        The part of treatments of each condition, ``(k, p)``: 0 for the control.
    curvature
        Curvature of the scale of doses along each axis, ``(p,)``, see
        `cellflow.cells.fitted_conditions.FittedConditions.dose_curvature`; ``None`` for none.

    Returns
    -------
    AdditiveEffects
        In the precision and on the device of ``changes``.

    Raises
    ------
    ValueError
        When there is no row, when numbers are not finite, or when shapes do not fit together.

    Source
    ------
    Rasmussen and Williams 2006, sections 2.7 and 5.4.1, for the model and its marginal likelihood.

    Examples
    --------
    Two treatments were measured alone; the third condition is both of them, and was not.

    >>> effects = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> changes = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    >>> found = fit_additive(changes, noise=torch.full((2,), 0.01), spread=torch.ones(2), effects=effects)
    >>> found.shift(torch.tensor([[1.0, 1.0]])).round(decimals=1)
    tensor([[3., 2.]])
    """
    curvature = effects.new_zeros(effects.shape[1:]) if curvature is None else curvature
    _check(changes, noise, spread, effects, curvature)
    y, noise, spread, effects, curvature = (
        x.detach().cpu().double() for x in (changes, noise, spread, effects, curvature)
    )
    spread = spread.clamp(min=TINY * max(float(spread.mean()), float(y.square().mean()), TINY))
    y, noise, effects, row = _averaged(y / spread.sqrt(), noise, effects)
    axis, low, high = _segments(effects, curvature)
    shift = AdditiveShift(effects.shape[1], y.shape[1], segments=len(axis)).double()
    shift.axis, shift.low, shift.high, shift.curvature = axis, low, high, curvature
    features, scales = _features(shift, effects)
    tried = [_Fit.of(y, noise, features, form, own) for form in _forms(shift) for own in OWN]
    best = max(tried, key=lambda each: each.likelihood)
    best = best if best.likelihood > tried[0].likelihood + GAIN else tried[0]
    log.debug("Additive effects of treatments: %s.", best.told())
    dual = best.dual(y, noise)
    for name, share, block, scale in zip(BLOCKS, best.form, features, scales, strict=True):
        setattr(shift, name, (1 - best.own) * share * (block * scale).T @ dual * spread.sqrt())
    explained = shift(effects) + best.own * dual * spread.sqrt()
    return AdditiveEffects(shift.to(changes), explained[row].to(changes))


class AdditiveEffects(NamedTuple):
    """Additive effects of treatments, and what they leave of the displacements that they explain.

    Attributes
    ----------
    shift
        The effects: the displacement of the mean at any condition.
    changes
        The displacement of each row without its noise ``(k, d)``: its effects and its own term.
    """

    shift: AdditiveShift
    changes: Tensor


class _Fit(NamedTuple):
    """How well a form of curves explains displacements.

    Attributes
    ----------
    form, own
        Shares of lines, lines in the dose and curves; and of each condition's own term.
    strength
        The variance of effects that is most likely for each coordinate, in units of the mean noise ``(d,)``.
    likelihood
        The logarithm of the marginal likelihood, summed over coordinates.
    values, vectors
        Of the covariance of effects, in units of the noise of each row.
    """

    form: tuple[float, ...]
    own: float
    strength: Tensor
    likelihood: float
    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, y: Tensor, noise: Tensor, features: Sequence[Tensor], form: tuple[float, ...], own: float) -> "_Fit":
        """Return it for displacements ``(k, d)`` in units of the spread of cells."""
        covariance = sum(share * block @ block.T for share, block in zip(form, features, strict=True))
        covariance = (1 - own) * covariance + own * torch.eye(len(y), dtype=y.dtype)
        units = (noise.mean() / noise).sqrt()
        values, vectors = torch.linalg.eigh(units[:, None] * covariance * units)
        values = values.clamp(min=0)
        squares = (vectors.T @ (y / noise.sqrt()[:, None])).square()
        variances = 1 + STRENGTHS[:, None] * values
        likelihoods = -(variances.log().sum(dim=1, keepdim=True) + (1 / variances) @ squares) / 2
        best, where = (likelihoods + SHARED * likelihoods.mean(dim=1, keepdim=True)).max(dim=0)
        return cls(form, own, STRENGTHS[where], float(best.sum()), values, vectors)

    def dual(self, y: Tensor, noise: Tensor) -> Tensor:
        """Return displacements over their variance, times that of effects: a covariance times it is an effect."""
        turned = self.vectors.T @ (y / noise.sqrt()[:, None])
        shrunk = self.strength / (1 + self.strength * self.values[:, None]) * turned
        return (noise.mean() / noise).sqrt()[:, None] * (self.vectors @ shrunk) * noise.mean().sqrt()

    def told(self) -> str:
        """Return it in words."""
        names = ("lines in the amount", "lines in the dose", "curves")
        forms = " and ".join(name for name, share in zip(names, self.form, strict=True) if share)
        none = int((self.strength == 0).sum())
        return f"{forms}, {self.own:.0%} of each condition's own, none along {none} of {len(self.strength)} coordinates"


def _features(shift: AdditiveShift, effects: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return each block of features ``(k, size)``, as large as the others on average, and what they are multiples of.

    Increments of a Brownian motion are independent, and their variance is the length of their segment.
    """
    lengths = (shift.high - shift.low).sqrt()
    raw = effects, doses(effects, shift.curvature), within(effects[:, shift.axis], shift.low, shift.high)
    priors = torch.ones_like(effects[0]), torch.ones_like(effects[0]), 1 / lengths
    blocks, scales = [], []
    for features, prior in zip(raw, priors, strict=True):
        size = float((features * prior).square().sum(dim=1).mean())
        scales.append(prior / max(size, TINY) ** 0.5)
        blocks.append(features * scales[-1])
    return blocks, scales


def _segments(effects: Tensor, curvature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the axis, beginning and end of the segments between amounts, along axes on which there are several."""
    found: list[tuple[int, float, float]] = []
    for axis, amounts in enumerate(effects.T):
        knots = [0.0, *amounts.unique().tolist()]
        if curvature[axis] > 0 and min(knots) >= 0:
            knots = sorted(set(knots))
            several = 2 < len(knots) <= MOST_KNOTS
            found += [(axis, *pair) for pair in itertools.pairwise(knots) if several]
    columns = torch.tensor(found, dtype=effects.dtype).reshape(-1, 3).T
    return columns[0].long(), columns[1], columns[2]


def _forms(shift: AdditiveShift) -> Sequence[tuple[float, ...]]:
    """Return the forms that can be told apart: without several doses of a treatment there are lines alone."""
    return FORMS if len(shift.axis) else FORMS[:1]


def _averaged(y: Tensor, noise: Tensor, effects: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the rows, or their means by condition where they are many, and where each row has gone."""
    if len(y) <= MOST_ROWS:
        return y, noise, effects, torch.arange(len(y))
    distinct, which = effects.unique(dim=0, return_inverse=True)
    weights = noise.new_zeros(len(distinct)).index_add(0, which, 1 / noise)
    sums = y.new_zeros(len(distinct), y.shape[1]).index_add(0, which, y / noise[:, None])
    return sums / weights[:, None], 1 / weights, distinct, which


def _check(changes: Tensor, noise: Tensor, spread: Tensor, effects: Tensor, curvature: Tensor) -> None:
    given = {"changes": changes, "noise": noise, "spread": spread, "effects": effects, "curvature": curvature}
    for name, x in given.items():
        check_points(x, name=name, axes=2 if name in ("changes", "effects") else 1)
    (k, dim), (rows, width) = changes.shape, effects.shape
    if (len(noise), len(spread), rows, len(curvature)) != (k, dim, k, width):
        raise ValueError(
            f"Expected `noise` ({k},), `spread` ({dim},), `effects` ({k}, p) and `curvature` (p,) to `changes` "
            f"{tuple(changes.shape)}; found "
            + ", ".join(f"`{name}` {tuple(x.shape)}" for name, x in given.items() if name != "changes")
            + "."
        )
    if not (noise > 0).all() or (spread < 0).any():
        raise ValueError("Expected a `noise` above 0 and a `spread` of 0 or more.")
