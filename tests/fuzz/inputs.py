"""Inputs as hypothesis draws them: a public name, one of its calls, and an oddity for some of its arguments."""

import re
import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import torch
from hypothesis import strategies as st

from fuzz.calls import Call, gathered
from fuzz.judge import fault_of, holds_nan, place, said, short
from fuzz.oddities import chosen, value_of

SECONDS = 60
"""Longest that an input may take."""

UNKNOWN = {"one nan", "one inf", "all nan", "nan in states", "inf in states"}
"""Oddities of numbers that are not known: whoever takes them says so, rather than that a model went wrong."""

calls = cache(gathered)


class TooLongError(BaseException):
    """An input took too long; not an `Exception`, so that nothing catches it on the way."""


@dataclass(frozen=True)
class Input:
    """A call, by its public name and its number there, and the oddities of its arguments, by their names."""

    name: str
    which: int = 0
    odd: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = ", ".join(f"{argument}: {oddity}" for argument, oddity in self.odd.items())
        return f"{self.name}[{self.which}]({shown})"

    @property
    def call(self) -> Call:
        """The call itself."""
        return calls()[self.name][self.which]


@st.composite
def inputs(draw: Any, names: list[str] | None = None) -> Input:
    """Draw an input: mostly with one or two odd arguments, sometimes with none."""
    name = draw(st.sampled_from(sorted(calls()) if names is None else names))
    which = draw(st.integers(0, len(calls()[name]) - 1))
    arguments = calls()[name][which].arguments
    most = min(2, len(arguments))
    odd = (
        draw(st.lists(st.sampled_from(sorted(arguments)), min_size=min(1, most), max_size=most, unique=True))
        if arguments
        else []
    )
    return Input(name, which, {argument: draw(chosen(arguments[argument].kind)) for argument in odd})


def ending(one: Input) -> str | None:
    """Return how an input ends badly, in a line; ``None`` where it has an answer, or is refused in words."""
    call = one.call
    try:
        given = {name: value_of(argument, one.odd.get(name)) for name, argument in call.arguments.items()}
    except Exception:  # noqa: BLE001 - some oddities cannot be made of some values, such as a half of an integer
        return None
    try:
        with quiet(), at_most(SECONDS):
            found = call.run(**given)
    except TooLongError:
        return f"took more than {SECONDS} seconds"
    except Exception as error:  # noqa: BLE001 - this is the judge
        return fault_of(error) or blamed_on_others(error, one.odd)
    finally:
        plt.close("all")
    return f"NaN in silence: {one.name}[{one.which}]" if not call.nan and holds_nan(found) else None


def blamed_on_others(error: Exception, odd: Mapping[str, str]) -> str | None:
    """Say where numbers that are not known came in unseen: the error speaks of something else, found only later."""
    alone = len(odd) == 1 and set(odd.values()) <= UNKNOWN
    if alone and not re.search("NaN|infinit|finite|missing|whole numbers|bytes|pixels|Run `", said(error)):
        return f"NaN or infinity was given, and is not what is said: {short(error)} at {place(error)}"
    return None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings to oneself, and torch's global state as it was."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Stop what takes longer, in time of the processor, or ten times as long by the clock: machines are shared."""

    def stop(*given: Any) -> None:
        raise TooLongError

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, seconds), signal.SIGALRM: (signal.ITIMER_REAL, 10 * seconds)}
    before = {number: signal.signal(number, stop) for number in timers}
    for timer, most in timers.values():
        signal.setitimer(timer, most)
    try:
        yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
