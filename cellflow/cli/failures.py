"""Which errors are said in a sentence: those that were meant to be read, and what the machine refuses."""

import sys
from pathlib import Path
from types import TracebackType

from cellflow.errors import CheckpointError, ConvergenceError, MissingDependencyError, NotFittedError

EXPECTED = (
    ValueError, TypeError, KeyError, OSError, ImportError, RuntimeError, FloatingPointError, MemoryError,
)  # fmt: skip
"""Kinds of errors that a user can cause, with data, settings or a machine."""
PACKAGE = Path(__file__).parents[1]
OURS = (CheckpointError, ConvergenceError, MissingDependencyError, NotFittedError)
RAISE = "RAISE_VARARGS"
"""The instruction of Python that is a ``raise``."""


def sentence(error: BaseException) -> str | None:
    """Return the message for an error, or ``None`` for a bug of the program, whose traceback is needed.

    Errors raised by a line of cellflow are meant to be read; errors of other packages were not foreseen.

    Examples
    --------
    >>> sentence(FileNotFoundError(2, "No such file or directory", "cells.h5ad"))
    'cells.h5ad: no such file or directory.'
    >>> sentence(IndexError("list index out of range")) is None
    True
    """
    if _is_memory(error):
        return "there is not enough memory for this. Use a smaller `batch_size`, a smaller network, or fewer data."
    if isinstance(error, OURS) or (isinstance(error, EXPECTED) and raised_here(error)):
        return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, OSError) and error.strerror:
        reason = f"{error.strerror[0].lower()}{error.strerror[1:]}."
        return reason if error.filename is None else f"{error.filename}: {reason}"
    return None


def raised_here(error: BaseException) -> bool:
    """Whether a line of cellflow raised an error, rather than an operation or another package."""
    import dis

    last = _innermost(error.__traceback__)
    if last is None or not Path(last.tb_frame.f_code.co_filename).is_relative_to(PACKAGE):
        return False
    raising = (step.offset for step in dis.get_instructions(last.tb_frame.f_code) if step.opname == RAISE)
    return last.tb_lasti in set(raising)


def _innermost(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def _is_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")
    of_torch = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return isinstance(error, MemoryError) or of_torch or "can't allocate memory" in str(error)
