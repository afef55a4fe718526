"""How each public name is called: with which arguments, of which kinds, and what is asked of what comes out."""

import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

import cellflow as cf
from fuzz.oddities import Argument


@dataclass(frozen=True)
class Call:
    """A way to use a public name.

    Parameters
    ----------
    run
        What is called with the arguments by name.
    arguments
        How each is made, and of which kind it is.
    nan
        Whether its documentation says that numbers may be missing.
    """

    run: Callable[..., Any]
    arguments: Mapping[str, Argument]
    nan: bool = False


def tensor(*shape: int, seed: int = 0) -> Argument:
    return Argument("tensor", lambda: torch.randn(shape, generator=cf.generator(seed)))


def positive(*shape: int) -> Argument:
    return Argument("tensor", lambda: torch.rand(shape, generator=cf.generator(3)) * 0.9 + 0.05)


def of(kind: str) -> Callable[[Any], Argument]:
    """Return a maker of arguments of a kind, from the right value or a function that makes it."""

    def argument(value: Any) -> Argument:
        made = callable(value) and getattr(value, "__name__", "") == "<lambda>"
        return Argument(kind, value if made else lambda: value)

    return argument


number, count, flag, text, other, function = (
    of(kind) for kind in ("number", "count", "flag", "text", "any", "function")
)
"""Makers of arguments. What is a function itself is wrapped in one: ``other(lambda: function)``."""

CLOUD, CLOUD_OF_OTHERS = tensor(8, 2), tensor(7, 2, seed=1)
IMAGES = Argument("tensor", lambda: torch.rand(4, 1, 12, 12, generator=cf.generator(2)) * 2 - 1)
GENERATOR = other(lambda: cf.generator(seed=0))
SAMPLES = Argument("tensor", lambda: torch.zeros(8, 2))
TIMES = positive(8)


def field(t: torch.Tensor, x: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
    """A field that shrinks what it moves."""
    return -x


FIELD = function(lambda: field)


def batch(**given: Any) -> cf.Batch:
    """Return pairs of eight points."""
    return cf.Batch(**({"x0": CLOUD.make(), "x1": tensor(8, 2, seed=1).make()} | given))


BATCH_PARTS = {
    "x0": CLOUD,
    "x1": tensor(8, 2, seed=1),
    "start": Argument("tensor", lambda: torch.zeros(8)),
    "stop": Argument("tensor", lambda: torch.ones(8) / 2),
}


def using(make: Callable[..., Any], use: Callable[[Any], Any], /, **arguments: Argument) -> Call:
    """Return a call that makes a part from its settings, and uses it."""
    return Call(lambda **given: use(make(**given)), arguments)


def plain(function: Callable[..., Any], /, **arguments: Argument) -> Call:
    """Return a call of a function with its arguments."""
    return Call(function, arguments)


LEFT_OUT = {"training.Recipe": {"compile"}}
"""What takes minutes."""


def forward(network: Callable[..., Any], /, **arguments: Argument) -> Call:
    """Return a call of a network, which as any other passes on what is not a number; its callers look."""
    return Call(network, arguments, nan=True)


KINDS = {int: count, float: number, bool: flag, str: text}
OPTIONAL = {int | None: count, float | None: number, bool | None: flag, str | None: text}


def gathered() -> dict[str, list[Call]]:
    """Return the calls of all rooms, by public name; arguments that none gives join the first with their default."""
    from fuzz import calls_of_cells, calls_of_images, calls_of_scores, calls_of_vectors

    every: dict[str, list[Call]] = {}
    for room in (calls_of_vectors.CALLS, calls_of_scores.CALLS, calls_of_images.CALLS, calls_of_cells.CALLS):
        every |= {name: calls if isinstance(calls, list) else [calls] for name, calls in room.items()}
    return {name: [with_defaults(name, calls), *calls[1:]] for name, calls in every.items()}


def with_defaults(name: str, calls: list[Call]) -> Call:
    """Return the first call of a name, with the arguments that no call gives, as they are by default."""
    given = {argument for call in calls for argument in call.arguments}
    added = {}
    for parameter in inspect.signature(operator.attrgetter(name)(cf)).parameters.values():
        left = parameter.name in LEFT_OUT.get(name, ())
        if parameter.name not in given and not left and parameter.default is not parameter.empty:
            kind = (KINDS | OPTIONAL).get(parameter.annotation, other)
            added[parameter.name] = kind(lambda default=parameter.default: default)
    return replace(calls[0], arguments={**calls[0].arguments, **added})
