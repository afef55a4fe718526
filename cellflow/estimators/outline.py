"""What a field would be, before it is: its tensors without memory, and no more of them than a file holds."""

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cellflow.errors import CheckpointError
from cellflow.training.reading import Entry


def outline(build: Callable[[], nn.Module], found: Mapping[str, Entry], *, source: object) -> dict[str, Tensor]:
    """Return the tensors of a module that is built without memory, unless it needs more than a file holds.

    Parameters
    ----------
    build
        Builds the module.
    found
        What the header of the file says of its tensors.
    source
        What messages call the file.

    Raises
    ------
    CheckpointError
        As soon as the module has more tensors than the file, or a larger one than its largest.

    Examples
    --------
    >>> import cellflow as cf
    >>> endless = lambda: cf.networks.MLP(2, width=4, depth=10**9)
    >>> found = {"first.weight": Entry("F32", (16, 16))}
    >>> outline(endless, found, source="model.safetensors")
    Traceback (most recent call last):
    cellflow.errors.CheckpointError: The weights in model.safetensors do not fit this model: it has more than 1
    tensor, and the file holds 1. Use the file that was saved with it.
    """
    with torch.device("meta"), _Within(found.values(), source):
        return build().state_dict()


class _Within(TorchFunctionMode):
    """Counts the tensors that layers ask torch for, and refuses those for which a file has nothing."""

    def __init__(self, entries: Iterable[Entry], source: object) -> None:
        super().__init__()
        sizes = [entry.numbers for entry in entries]
        self.most, self.largest, self.source, self.made = len(sizes), max(sizes, default=0), source, 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, unless it makes a tensor too many or too large."""
        if function is torch.empty:
            self.made += 1
            size = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
            if self.made > self.most:
                self._refuse(
                    f"it has more than {self.most} tensor{'s'[: self.most != 1]}, and the file holds {self.most}"
                )
            if prod(size) > self.largest:
                self._refuse(
                    f"it has a tensor of size {'x'.join(map(str, size))}, and the largest of the file holds "
                    f"{self.largest:,} numbers"
                )
        return function(*args, **(kwargs or {}))

    def _refuse(self, why: str) -> None:
        raise CheckpointError(
            f"The weights in {self.source} do not fit this model: {why}. Use the file that was saved with it."
        )
