"""What may be wrong with an argument, by its kind: each oddity has a name, and makes a value of the right one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from hypothesis import strategies as st
from scipy import sparse

Oddity = Callable[[Any], Any]
"""From the right value to one that is wrong, or only unusual."""


@dataclass(frozen=True)
class Argument:
    """How an argument is made, and of which kind it is: which oddities it is given."""

    kind: str
    make: Callable[[], Any]


def constant(value: object) -> Oddity:
    return lambda right: value


NUMBERS = [
    -1,
    0,
    1,
    2,
    3,
    0.5,
    2.5,
    -0.5,
    1e-300,
    1e300,
    float("inf"),
    float("-inf"),
    float("nan"),
    True,
    "3",
    "nan",
    1j,
]
HUGE = [10**30, -(10**30)]

ANYTHING: dict[str, Oddity] = {
    "None": constant(None),
    "True": constant(True),
    "zero": constant(0),
    "minus one": constant(-1),
    "a fraction": constant(2.5),
    "nan": constant(float("nan")),
    "text": constant("text"),
    "no text": constant(""),
    "bytes": constant(b"text"),
    "a list": lambda right: [],
    "a mapping": lambda right: {},
    "a tuple": constant(()),
    "a set": lambda right: {1, 2},
    "an object": lambda right: object(),
    "a class": constant(int),
    "a function": constant(lambda *given, **named: None),
    "a slice": constant(slice(2)),
    "a complex number": constant(1j),
    "an array": lambda right: np.zeros((2, 2)),
    "a tensor": lambda right: torch.zeros(2, 3),
    "a frame": lambda right: pd.DataFrame({"a": [1, 2]}),
    "a column": lambda right: pd.Series(["a", None]),
    "the type of it": lambda right: type(right),
    "in a list": lambda right: [right],
    "in a tuple": lambda right: (right,),
    "its words": str,
    "no class": lambda right: type("Nothing", (), {})(),
}


def with_value(value: float, *, every: bool = False) -> Oddity:
    def change(right: torch.Tensor) -> torch.Tensor:
        changed = right.clone() if right.is_floating_point() else right.float()
        changed.reshape(-1)[: None if every else 1] = value
        return changed

    return change


def strided(right: torch.Tensor) -> torch.Tensor:
    return right.repeat_interleave(2, dim=-1)[..., ::2] if right.ndim else right


TENSORS: dict[str, Oddity] = {
    "double": lambda x: x.double(),
    "half": lambda x: x.half(),
    "whole": lambda x: x.long(),
    "bytes of it": lambda x: x.byte(),
    "truth values": lambda x: x.bool(),
    "complex": lambda x: x.to(torch.complex64),
    "one nan": with_value(float("nan")),
    "one inf": with_value(float("inf")),
    "all nan": with_value(float("nan"), every=True),
    "one minus": with_value(-1.0),
    "all zero": lambda x: torch.zeros_like(x),
    "no rows": lambda x: x[:0],
    "one row": lambda x: x[:1],
    "two rows": lambda x: x[:2],
    "a row more": lambda x: torch.cat([x, x[:1]]),
    "a row less": lambda x: x[:-1],
    "all rows alike": lambda x: x[:1].expand_as(x),
    "rows twice": lambda x: x.repeat_interleave(2, dim=0),
    "huge": lambda x: x * 1e30,
    "large": lambda x: x * 1e10,
    "tiny": lambda x: x * 1e-30,
    "far away": lambda x: x + 1e8,
    "strided": strided,
    "an axis more": lambda x: x[..., None],
    "an axis before": lambda x: x[None],
    "flat": lambda x: x.flatten(),
    "one of it": lambda x: x[0],
    "no axes": lambda x: x.flatten()[0],
    "no columns": lambda x: x[..., :0],
    "one column": lambda x: x[..., :1],
    "a column more": lambda x: torch.cat([x, x[..., :1]], dim=-1),
    "turned": lambda x: x.transpose(0, -1),
    "with gradient": lambda x: x.detach().clone().float().requires_grad_(),
    "sparse": lambda x: x.to_sparse(),
    "a numpy array": lambda x: x.numpy(),
    "nested lists": lambda x: x.tolist(),
    "a data frame": lambda x: pd.DataFrame(x.flatten(1).numpy()),
    "a sparse matrix": lambda x: sparse.csr_matrix(x.flatten(1).numpy()),
    "an array of text": lambda x: x.numpy().astype(str),
    "an array of objects": lambda x: x.numpy().astype(object),
    "reversed array": lambda x: x.numpy()[::-1],
    "big-endian array": lambda x: x.numpy().astype(">f8"),
    "extended precision": lambda x: x.numpy().astype(np.longdouble),
    "masked array": lambda x: np.ma.masked_less(x.numpy(), 0),
    "small whole array": lambda x: x.numpy().astype(np.uint16),
    "a parameter": lambda x: torch.nn.Parameter(x.float()),
}

TEXTS: dict[str, Oddity] = {
    f"{text!r}": constant(text)
    for text in ("x", "a/b", "Schrödinger", "None", "\n", "../..", "0", " ", "X", "<b>", "a" * 300, "auto")
}

ODDITIES: dict[str, dict[str, Oddity]] = {
    "number": {f"{value!r}": constant(value) for value in [*NUMBERS, *HUGE]}
    | {"numpy": np.float32, "in a tensor": torch.tensor, "in an array": np.array},
    "count": {f"{value!r}": constant(value) for value in NUMBERS} | {"numpy": np.int64, "in a tensor": torch.tensor},
    "flag": {f"{value!r}": constant(value) for value in (0, 1, "no", "off", "True", None, np.bool_(True), 2.0, [])},
    "text": TEXTS,
    "tensor": TENSORS,
    "any": {},
    "function": {},
}
"""Oddities of each kind, beside those that any argument is given."""
NEVER = {"function": {"a class", "the type of it"}}
"""What is no oddity: a class may be called, and what it raises is the user's own error."""


def oddities(kind: str) -> dict[str, Oddity]:
    """Return the oddities of a kind, and those of any argument."""
    from fuzz.annotated import ANNDATAS

    own = ANNDATAS if kind == "adata" else ODDITIES[kind]
    return ANYTHING | own


def chosen(kind: str) -> st.SearchStrategy[str]:
    """Return a strategy for the name of an oddity: mostly of its kind, or a number that hypothesis finds."""
    from fuzz.annotated import ANNDATAS

    own = ANNDATAS if kind == "adata" else ODDITIES[kind]
    drawn = {
        "number": st.floats().map(lambda value: f"={value!r}"),
        "count": st.integers(-3, 6).map(lambda value: f"={value!r}"),
        "text": st.text(max_size=8).map(lambda value: f"={value!r}"),
    }
    parts = [st.sampled_from(sorted(ANYTHING.keys() - NEVER.get(kind, set())))] + (
        [st.sampled_from(sorted(own))] * 3 if own else []
    )
    return st.one_of([*parts, *([drawn[kind]] if kind in drawn else [])])


def value_of(argument: Argument, oddity: str | None) -> Any:
    """Return the value of an argument: the right one, or that of an oddity, by its name."""
    right = argument.make()
    if oddity is None:
        return right
    if oddity.startswith("="):
        return {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}.get(oddity[1:]) or eval(
            oddity[1:], {"nan": float("nan"), "inf": float("inf")}
        )
    return oddities(argument.kind)[oddity](right)
