"""Which errors are ours: raised by a line of cellflow that checked, and said in a sentence. And results without NaN."""

import dataclasses
import dis
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd
import torch
from scipy import sparse

import cellflow as cf
from cellflow.errors import CheckpointError, ConvergenceError, MissingDependencyError

PACKAGE = Path(cf.__file__).parent
OURS = (
    ConvergenceError,
    CheckpointError,
    MissingDependencyError,
    FloatingPointError,
)  # `NotFittedError` is a `ValueError`
OF_INPUT = (ValueError, TypeError, KeyError, FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)
SHORTEST = 20
"""Letters of the shortest message that can say what was expected and what was found."""


def acceptable(error: BaseException) -> bool:
    """Whether an error tells its reader what to change: see `fault_of`."""
    return fault_of(error) is None


def fault_of(error: BaseException) -> str | None:
    """Say what is wrong with an error, or ``None`` where nothing is.

    It must be of a kind that is meant for input, come from a `raise` of cellflow itself, not out of torch, numpy or
    pandas nor out of an operator that failed, and say a sentence.
    """
    if not isinstance(error, OURS + OF_INPUT):
        return f"{type(error).__name__} is no error for input: {short(error)} at {place(error)}"
    if not raised_by_cellflow(error):
        return f"{type(error).__name__} from outside: {short(error)} at {place(error)}"
    if len(said(error)) < SHORTEST or " " not in said(error):
        return f"{type(error).__name__} says no sentence: {short(error)} at {place(error)}"
    return None


def raised_by_cellflow(error: BaseException) -> bool:
    """Whether the innermost line is a `raise` of cellflow: an operator or a call that failed there is no check."""
    last = innermost(error)
    if last is None or not Path(last.tb_frame.f_code.co_filename).is_relative_to(PACKAGE):
        return False
    raising = {i.offset for i in dis.get_instructions(last.tb_frame.f_code) if i.opname == "RAISE_VARARGS"}
    return last.tb_lasti in raising


def innermost(error: BaseException) -> TracebackType | None:
    """Return the last frame of an error's traceback."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last


def said(error: BaseException) -> str:
    """Return the words of an error: `KeyError` shows its own in quotes."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def short(error: BaseException) -> str:
    """Return the first line of what an error says, cut to what fits one line of a table."""
    return (said(error).strip().splitlines() or [""])[0][:110]


def place(error: BaseException) -> str:
    """Return the last line of cellflow that an error went through: where it should have been refused, or deeper."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(PACKAGE)]
    return f"{Path(frames[-1].filename).relative_to(PACKAGE)}:{frames[-1].lineno}" if frames else "no line of cellflow"


def holds_nan(result: object, depth: int = 0) -> bool:
    """Whether any number in a result, however deep, is not a number."""
    if depth > 6:
        return False
    if isinstance(result, torch.Tensor):
        return result.is_floating_point() and bool(torch.isnan(result).any())
    if sparse.issparse(result):
        return holds_nan(result.data, depth + 1)
    if isinstance(result, (float, np.floating)):
        return bool(np.isnan(result))
    if isinstance(result, np.ndarray):
        return result.dtype.kind == "f" and bool(np.isnan(result).any())
    if isinstance(result, pd.Series):
        return holds_nan(result.to_numpy(), depth + 1)
    if isinstance(result, pd.DataFrame):
        return any(holds_nan(result[name], depth + 1) for name in result)
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return any(holds_nan(getattr(result, field.name), depth + 1) for field in dataclasses.fields(result))
    if isinstance(result, Mapping):
        return any(holds_nan(value, depth + 1) for value in result.values())
    if isinstance(result, (tuple, list)):
        return any(holds_nan(value, depth + 1) for value in result)
    return False
