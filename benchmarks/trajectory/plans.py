"""Plans over whole snapshots are the same for every seed: solved once in a process, their seconds counted each time."""

import hashlib
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from torch import Tensor

from cellflow import couplings
from cellflow.couplings import Coupling, Plan

AT_MOST = 6
"""Plans that are remembered: those of a fold with some to spare. A dense one of 4000 x 4000 cells holds 128 MB."""


@dataclass
class Memory:
    """The latest plans of this process, each with the seconds that it took."""

    plans: "OrderedDict[str, tuple[Plan, float]]" = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: str) -> tuple[Plan, float] | None:
        """Return a plan that was solved before, with its seconds."""
        with self.lock:
            return self.plans.get(key)

    def put(self, key: str, plan: Plan, seconds: float) -> None:
        """Keep a plan, and forget the oldest."""
        with self.lock:
            self.plans[key] = plan, seconds
            while len(self.plans) > AT_MOST:
                self.plans.popitem(last=False)


MEMORY = Memory()


@dataclass
class Remembered:
    """A coupling that remembers its plans and counts its time.

    Examples
    --------
    >>> import torch
    >>> coupling = Remembered.of("exact")
    >>> coupling(torch.zeros(3, 2), torch.ones(3, 2))
    SparsePlan(3 x 3, mass 1, one to one, cost 2)
    >>> sorted(coupling.facts(1.0))
    ['plan_s', 'train_s']
    """

    coupling: Coupling
    calls: list[tuple[float, float, float]] = field(default_factory=list, repr=False)
    """Of each call: when it began, when it ended, and the seconds that solving took when it was really done."""

    @classmethod
    def of(cls, coupling: Coupling | str) -> "Remembered":
        """Return the coupling, or the one of that name, with a memory."""
        return cls(couplings.resolve(coupling))

    def __call__(self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Plan:
        """Couple two clouds, or return what was found for the very same clouds before."""
        start = time.perf_counter()
        key = _key(self.coupling, x0, x1, a, b)
        known = MEMORY.get(key)
        if known is None:
            plan = self.coupling(x0, x1, a, b)
            known = plan, time.perf_counter() - start
            MEMORY.put(key, *known)
        self.calls.append((start, time.perf_counter(), known[1]))
        return known[0]

    def facts(self, seconds: float) -> dict[str, float]:
        """Divide the seconds of a fit into those of solving plans, each on one core, and all others."""
        return {"plan_s": sum(call[2] for call in self.calls), "train_s": seconds - _covered(self.calls)}


def _covered(calls: list[tuple[float, float, float]]) -> float:
    """Return the seconds in which at least one call was under way."""
    total, end = 0.0, -float("inf")
    for start, stop, _ in sorted(calls):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def _key(coupling: Coupling, *tensors: Tensor | None) -> str:
    digest = hashlib.sha256(repr(coupling).encode())
    for tensor in tensors:
        digest.update(b"none" if tensor is None else str(tuple(tensor.shape)).encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
