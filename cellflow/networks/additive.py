"""The mean displacement that each treatment brings at each amount: a closed form, with weights but nothing to train."""

import torch
from torch import Tensor, nn

from cellflow.shapes import check_points


class AdditiveShift(nn.Module):
    """What treatments displace the mean of a population by, as a sum over treatments of a curve of the amount each.

    A curve is a line in the amount, that is in the logarithm of the dose, plus a line in the dose itself, plus a
    piecewise linear curve with knots at the amounts of the training. It is 0 at 0: the control stays where it is.
    `cellflow.training.additive.fit_additive` finds all of it.

    Parameters
    ----------
    width
        Width of the effect part of a condition.
    dim
        Width of the states.
    segments
        Number of segments of all piecewise linear curves.

    Attributes
    ----------
    line, dose
        Displacement per unit of the amount and at the dose that is seen as 1, ``(width, dim)`` each.
    curvature
        Curvature of the scale of doses along each axis ``(width,)``: ``expm1(k * a) / expm1(k)`` is the dose seen as
        ``a``; 0 for axes without doses.
    axis, low, high
        Axis, beginning and end of each segment ``(segments,)``.
    slope
        Displacement per unit of the amount within each segment ``(segments, dim)``.

    Examples
    --------
    >>> shift = AdditiveShift(width=2, dim=1)
    >>> shift.line.copy_(torch.tensor([[3.0], [4.0]]))
    tensor([[3.],
            [4.]])
    >>> shift(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.5]])).flatten()
    tensor([0., 3., 5.])
    """

    line: Tensor
    dose: Tensor
    curvature: Tensor
    axis: Tensor
    low: Tensor
    high: Tensor
    slope: Tensor

    def __init__(self, width: int, dim: int, *, segments: int = 0) -> None:
        super().__init__()
        for name in ("line", "dose"):
            self.register_buffer(name, torch.zeros(width, dim))
        self.register_buffer("curvature", torch.zeros(width))
        self.register_buffer("axis", torch.zeros(segments, dtype=torch.int64))
        for name in ("low", "high"):
            self.register_buffer(name, torch.zeros(segments))
        self.register_buffer("slope", torch.zeros(segments, dim))

    def forward(self, effect: Tensor, share: Tensor | None = None) -> Tensor:
        """Return the displacement ``(n, dim)`` under each condition; ``effect`` is its part for the treatments.

        With ``share`` ``(n, width)``, each term of the sum is multiplied by its share.

        Raises
        ------
        ValueError
            When the conditions are not ``(n, width)``, or some are NaN or infinite.
        """
        check_points(effect, name="effect", axes=2)
        if effect.shape[1] != len(self.line):
            raise ValueError(f"Expected treatments of width {len(self.line)}; found {effect.shape[1]}.")
        terms = effect, doses(effect, self.curvature), within(effect[:, self.axis], self.low, self.high)
        if share is not None:
            terms = terms[0] * share, terms[1] * share, terms[2] * share[:, self.axis]
        return terms[0] @ self.line + terms[1] @ self.dose + terms[2] @ self.slope


def doses(effect: Tensor, curvature: Tensor) -> Tensor:
    """Return doses, in units of the one that is seen as 1, for amounts ``(n, width)``; 0 along axes without doses.

    Examples
    --------
    >>> doses(torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([2.0, 2.0, 0.0])).round(decimals=2)
    tensor([[0.0000, 0.2700, 0.0000]])
    """
    bent = curvature > 0
    k = torch.where(bent, curvature, 1)
    return torch.where(bent, effect.sign() * torch.expm1(k * effect.abs()) / torch.expm1(k), 0)


def within(amounts: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return how much of each segment lies below an amount, ``(n, segments)``.

    Examples
    --------
    >>> within(torch.tensor([[0.0, 0.0], [0.7, 0.7]]), torch.tensor([0.0, 0.5]), torch.tensor([0.5, 1.0]))
    tensor([[0.0000, 0.0000],
            [0.5000, 0.2000]])
    """
    return torch.minimum((amounts - low).clamp(min=0), high - low)
