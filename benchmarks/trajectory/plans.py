"""Plans over whole snapshots are the same for every seed: solved once in a process, their seconds counted each time."""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256

from torch import Tensor

from cellflow import couplings
from cellflow.couplings import Coupling, CouplingLike, Plan

AT_MOST = 6
"""Plans that are remembered: those of a fold with some to spare. A dense one of 4000 x 4000 cells holds 128 MB."""
PLANS: "OrderedDict[str, tuple[Plan, float]]" = OrderedDict()
"""The latest plans of this process, each with the seconds that it took."""
LOCK = threading.Lock()


@dataclass
class Remembered:
    """A coupling that remembers its plans and counts its time."""

    coupling: Coupling
    calls: list[tuple[float, float, float]] = field(default_factory=list, repr=False)
    """Of each call: when it began, when it ended, and the seconds that solving took when it was really done."""

    @classmethod
    def of(cls, coupling: CouplingLike) -> "Remembered":
        """Return the coupling, or the one of that name, with a memory."""
        return cls(couplings.resolve(coupling))

    def __call__(self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Plan:
        """Couple two clouds, or return what was found for the very same clouds before."""
        start = time.perf_counter()
        key = sha256(repr(self.coupling).encode())
        for tensor in (x0, x1, a, b):
            key.update(
                b"none" if tensor is None else str(tuple(tensor.shape)).encode() + tensor.cpu().numpy().tobytes()
            )
        with LOCK:
            known = PLANS.get(key.hexdigest())
        if known is None:
            plan = self.coupling(x0, x1, a, b)
            known = plan, time.perf_counter() - start
            with LOCK:
                PLANS[key.hexdigest()] = known
                while len(PLANS) > AT_MOST:
                    PLANS.popitem(last=False)
        self.calls.append((start, time.perf_counter(), known[1]))
        return known[0]

    def facts(self, seconds: float) -> dict[str, float]:
        """Divide the seconds of a fit into those of solving plans, each on one core, and all others."""
        covered, end = 0.0, -float("inf")  # the seconds in which at least one call was under way
        for start, stop, _ in sorted(self.calls):
            covered += max(0.0, stop - max(start, end))
            end = max(end, stop)
        return {"plan_s": sum(call[2] for call in self.calls), "train_s": seconds - covered}
