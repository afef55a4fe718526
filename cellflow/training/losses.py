"""Why a loss is not finite, and what a field and its batches must be so that it is."""

import math

import torch
from torch import Tensor, nn

from cellflow.batch import Batch
from cellflow.integrate.failures import check_weights
from cellflow.shapes import check_dense
from cellflow.training.recipe import Recipe

LARGEST = "largest"
"""Name of the largest number of a batch among the terms of a step, until the loss is read."""


def check_field(field: nn.Module) -> None:
    """Raise for a field that cannot be trained.

    Raises
    ------
    ValueError
        When it has no weights, only frozen ones, or weights that are not finite or are on the meta device.

    Examples
    --------
    >>> check_field(nn.Identity())
    Traceback (most recent call last):
        ...
    ValueError: Expected a field with weights to train; Identity has none.
    """
    weights = list(field.parameters())
    if not weights:
        raise ValueError(f"Expected a field with weights to train; {type(field).__name__} has none.")
    if not any(weight.requires_grad for weight in weights):
        raise ValueError("No weight of the field can change: all are frozen. Call `field.requires_grad_(True)`.")
    if any(weight.is_meta for weight in weights):
        raise ValueError("The field is on the meta device: its weights hold no numbers. Build it on a real one.")
    if any(weight.is_inference() for weight in weights):
        raise ValueError("The field was made inside `torch.inference_mode()` and cannot be trained. Make it outside.")
    if not all(weight.is_floating_point() for weight in weights):
        kinds = sorted({str(weight.dtype) for weight in weights})
        raise ValueError(f"Expected weights that are real floating-point numbers; found {', '.join(kinds)}.")
    check_weights(field)


def check_function(given: object, *, name: str) -> None:
    """Raise for a class instead of a function or an instance.

    Raises
    ------
    TypeError
        Naming both.

    Examples
    --------
    >>> check_function(print, name="on_step")
    """
    if isinstance(given, type):
        raise TypeError(f"Expected `{name}` as a function; found the class {given.__name__}.")


def terms_of(found: object) -> dict[str, Tensor]:
    """Return what an objective returned, after checking that it maps names to terms and has a loss.

    Raises
    ------
    TypeError
        With what an objective must return.

    Examples
    --------
    >>> terms_of({"loss": torch.tensor(1.0)})
    {'loss': tensor(1.)}
    """
    if not isinstance(found, dict) or not isinstance(found.get("loss"), Tensor):
        shown = f"a dict of {list(found)}" if isinstance(found, dict) else type(found).__name__
        raise TypeError(f"Expected an objective that returns tensors by name, 'loss' among them; found {shown}.")
    return found


def check_batch(batch: Batch) -> Batch:
    """Return a batch that is valid for training; its values are checked only if the loss is not finite.

    Raises
    ------
    ValueError
        When a tensor is sparse, nested, complex or on the meta device, or ends of pairs differ in shape.

    Examples
    --------
    >>> len(check_batch(Batch(torch.zeros(2, 1), torch.ones(2, 1))).x0)
    2
    """
    for name, part in zip(batch._fields, batch, strict=True):
        if not isinstance(part, Tensor) and (part is not None or name in ("x0", "x1")):
            raise TypeError(f"Expected `{name}` of the batch as a torch tensor; found {type(part).__name__}.")
        if part is not None:
            check_dense(part, what=f"`{name}` of the batch")
    if batch.x0.shape != batch.x1.shape or not batch.x0.numel():
        raise ValueError(
            "Expected a batch with as many states of one shape at both ends of its pairs; found "
            f"{tuple(batch.x0.shape)} in `x0` and {tuple(batch.x1.shape)} in `x1`."
        )
    if not any(part is not None and part.is_inference() for part in batch):
        return batch
    return Batch._make(part if part is None else part.clone() for part in batch)


def largest(batch: Batch) -> Tensor:
    """Return the largest absolute value in a batch, not finite if one is not; still on its device.

    Examples
    --------
    >>> largest(Batch(torch.zeros(2, 1), torch.tensor([[-3.0], [1.0]])))
    tensor(3.)
    """
    parts = [part for part in batch if part is not None and part.is_floating_point()]
    return torch.stack([torch.linalg.vector_norm(part, ord=torch.inf) for part in parts]).max()


def not_finite(loss: float, step: int, size: float, field: nn.Module, recipe: Recipe) -> FloatingPointError:
    """Return the error for a loss that is not finite; it names the cause and the cure.

    Parameters
    ----------
    loss
        The loss.
    step
        The step, counted from 1.
    size
        The largest number of its batch.
    field, recipe
        What was trained, and how.

    Examples
    --------
    >>> not_finite(math.nan, 3, math.inf, nn.Linear(1, 1), Recipe())
    FloatingPointError('The loss is nan at step 3: its batch holds NaN or infinity. Remove or impute these samples.')
    """
    said, most = f"The loss is {loss} at step {step}", torch.finfo(next(field.parameters()).dtype).max
    if not math.isfinite(size):
        return FloatingPointError(f"{said}: its batch holds NaN or infinity. Remove or impute these samples.")
    if size > math.sqrt(most) / 100:
        return FloatingPointError(
            f"{said}: its batch holds numbers of up to {size:.2g}, whose squares are beyond {most:.2g}. Divide the "
            f"data by {size:.0g}, or train in double precision: `Recipe(precision=64)`."
        )
    if step == 1:
        return FloatingPointError(
            f"{said}, before anything was learned: the optimiser is not the cause. Check what the field returns for "
            "this batch, and the settings of the path and of the objective."
        )
    clip = "" if recipe.clip is not None else ", or set `Recipe.clip`"
    return FloatingPointError(
        f"{said}: the training has diverged. Lower `Recipe.learning_rate` (now {recipe.learning_rate:g}){clip}."
    )
