"""What processes that train together do only once, and what they say when one of them is gone."""

import io
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric

T = TypeVar("T")

OF_FIRST = "The first process raised this; see its message."
"""A note on what all processes raise since the first one did."""
_LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|\bpeer\b", re.IGNORECASE)
_GROUP: ContextVar["Fabric | None"] = ContextVar("group", default=None)


class LostProcessError(RuntimeError):
    """Another process of a training has ended; this one cannot continue."""


@contextmanager
def together(fabric: "Fabric | None") -> Iterator[None]:
    """Inside it, `once` holds for all processes of a group, and the end of another process raises a clear error.

    Without a group, `once` holds for this process alone, as when the first process validates while others wait.

    Raises
    ------
    LostProcessError
        When another process ended while this one waited for it.

    Examples
    --------
    >>> with together(None):
    ...     once(lambda: 3)
    3
    """
    token = _GROUP.set(None if fabric is None or fabric.world_size == 1 else fabric)
    try:
        yield
    except RuntimeError as error:
        if fabric is None or isinstance(error, LostProcessError) or not _is_lost(error):
            raise
        raise LostProcessError(
            f"Another of the {fabric.world_size} processes has ended, and this one cannot continue without it; the "
            "message of that process says why. What was saved before is unchanged."
        ) from error
    finally:
        _GROUP.reset(token)


def once(find: Callable[[], T]) -> T:
    """Return the result of the first process of the group in all of them; without a group, that of this process.

    Tensors on a GPU come to the GPU of each process. What the first process raises, all raise.

    Examples
    --------
    >>> once(lambda: [1, 2])
    [1, 2]
    """
    fabric = _GROUP.get()
    if fabric is None:
        return find()
    found: tuple[Any, BaseException | None] = (None, None)
    if fabric.is_global_zero:
        try:
            found = find(), None
        except Exception as error:  # noqa: BLE001  # raised below, in all processes
            found = None, error
    sent = fabric.broadcast(_packed(found) if fabric.is_global_zero else None)
    value, fault = found if fabric.is_global_zero else _unpacked(cast("bytes", sent), fabric.device)
    if fault is not None:
        if not fabric.is_global_zero:
            fault.add_note(OF_FIRST)
        raise fault
    return cast("T", value)


def are_joined() -> bool:
    """Return whether this process has joined others.

    Examples
    --------
    >>> are_joined()
    False
    """
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()


def _is_lost(error: RuntimeError) -> bool:
    import torch

    kind: Any = getattr(torch.distributed, "DistError", ())  # some builds of torch have no processes
    return isinstance(error, kind) or _LOST.search(str(error)) is not None


def _packed(value: object) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _unpacked(sent: bytes, device: "torch.device") -> Any:
    import torch
    from torch.serialization import default_restore_location

    def place(storage: Any, where: str) -> Any:
        return default_restore_location(storage, str(device)) if where.startswith("cuda") else storage

    return torch.load(io.BytesIO(sent), map_location=place, weights_only=False)  # from our own process
