"""Classifier-free guidance: conditions that are dropped in training, and amplified in sampling."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from cellflow.batch import Batch
from cellflow.errors import unknown
from cellflow.fields import Field
from cellflow.objectives import Objective

Labels = int | str | Sequence[int | str] | Tensor
"""A class, by name or number, or one for each sample."""


@dataclass(frozen=True)
class ConditionDropout:
    """An objective that drops the class of some samples, so that the field also learns the unconditional flow.

    A dropped class is a row of zeros.

    Parameters
    ----------
    objective
        The loss to minimise.
    share
        Fraction of samples whose class is dropped.

    Source
    ------
    Ho and Salimans 2022, algorithm 1.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> batch = cf.Batch(torch.zeros(2, 2), torch.ones(2, 2), condition=torch.eye(2))
    >>> seen = []
    >>> def field(t, x, condition):
    ...     seen.append(condition)
    ...     return x
    >>> dropping = ConditionDropout(cf.objectives.VelocityMatching(), share=1.0)
    >>> _ = dropping(field, batch, generator=cf.generator(seed=0))
    >>> seen[0].sum()
    tensor(0.)
    """

    objective: Objective
    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"Expected a share of dropped conditions from 0 to 1; found {self.share}.")

    @property
    def heads(self) -> tuple[str, ...]:
        """What the field returns besides the velocity."""
        return self.objective.heads

    def __call__(self, field: Any, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the terms of the objective."""
        if batch.condition is not None:
            rows = torch.rand(len(batch.x0), 1, generator=generator, device=generator.device, dtype=torch.float32)
            batch = batch._replace(condition=batch.condition * (rows >= self.share).to(batch.condition))
        return self.objective(field, batch, generator=generator)

    def velocity(self, field: Any) -> Field:
        """Return the velocity that the field stands for."""
        return self.objective.velocity(field)


class Guided(nn.Module):
    """The guided velocity: the unconditional one plus ``guidance`` times the difference to the conditional one.

    Parameters
    ----------
    field
        A velocity field with conditions, where rows of zeros mean none.
    guidance
        Strength: 0 ignores the class, 1 is the field itself, larger values make samples more typical and less diverse.

    Source
    ------
    Ho and Salimans 2022, equation 6; Zheng et al. 2023 for flows.

    Examples
    --------
    >>> import torch
    >>> field = Guided(lambda t, x, condition: condition, guidance=3.0)
    >>> field(torch.zeros(1), torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))
    tensor([[0., 3.]])
    """

    def __init__(self, field: Field, guidance: float) -> None:
        super().__init__()
        self.field, self.guidance = field, guidance

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None) -> Tensor:
        """Return the velocity at times ``t`` ``(n,)``, states ``x`` ``(n, ...)`` and conditions ``(n, k)``."""
        if condition is None or self.guidance == 1:
            found: Tensor = self.field(t, x, condition)
            return found
        both = torch.cat([condition, torch.zeros_like(condition)])
        with_class, without = self.field(torch.cat([t, t]), torch.cat([x, x]), both).chunk(2)
        return torch.lerp(without, with_class, self.guidance)


def one_hot(label: Labels, n: int, classes: tuple[str, ...]) -> Tensor:
    """Return the given classes as a condition ``(n, k)``.

    Raises
    ------
    ValueError
        When a class is unknown, or there are neither one label nor ``n``.

    Examples
    --------
    >>> one_hot("b", 2, ("a", "b"))
    tensor([[0., 1.],
            [0., 1.]])
    """
    single = isinstance(label, Integral | str) or getattr(label, "ndim", 1) == 0
    if not single and not isinstance(label, Iterable):
        raise TypeError(f"Expected `label` as the name or number of a class, or one for each; found {label!r}.")
    each = [label] if single else list(label)  # type: ignore[arg-type]
    numbers = [_number(one, classes) for one in (each * n if len(each) == 1 else each)]
    if len(numbers) != n:
        raise ValueError(f"Expected one label, or one for each of {n} samples; found {len(numbers)}.")
    return nn.functional.one_hot(torch.tensor(numbers), len(classes)).float()


def _number(label: object, classes: tuple[str, ...]) -> int:
    """Return the number of a class, given by its name or its number."""
    if isinstance(label, str):
        if label not in classes:
            raise ValueError(unknown("class", label, classes))
        return classes.index(label)
    number = label.item() if isinstance(label, Tensor) and label.numel() == 1 else label
    if not isinstance(number, Integral) or isinstance(number, bool):
        raise TypeError(f"Expected `label` as the name or the number of a class; found {label!r}.")
    if not 0 <= int(number) < len(classes):
        raise ValueError(f"Expected the number of a class, from 0 to {len(classes) - 1}; found {label}.")
    return int(number)
