"""Many inputs, from a seed: how many there were, and how many ended badly, by the line where they did.

``python -m tests.fuzz [names...]`` draws inputs of Python and then of the command line; with names, of these alone.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import matplotlib as mpl
import torch
from hypothesis import given, seed

mpl.use("Agg")
torch.set_num_threads(1)

from fuzz.inputs import calls, ending, inputs  # noqa: E402
from fuzz.profile import MANY_API_EXAMPLES, MANY_LINE_EXAMPLES, counting  # noqa: E402


def main() -> int:
    """Draw, judge, count; return how many ended badly, at most 100."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", help="public names, such as paths.Linear, or rooms; by default all")
    parser.add_argument("--api", type=int, default=MANY_API_EXAMPLES, help="inputs of Python")
    parser.add_argument("--lines", type=int, default=MANY_LINE_EXAMPLES, help="command lines")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    names = [
        name
        for name in sorted(calls())
        if not asked.names or any(part in (name, name.split(".")[0]) for part in asked.names)
    ]
    bad = count("inputs of Python", inputs(names), ending, asked.api, asked.seed)
    if find_spec("fuzz.command_lines") and not asked.names:
        from fuzz import command_lines

        bad += count("command lines", command_lines.LINES, command_lines.ending, asked.lines, asked.seed)
    return min(bad, 100)


def count(kind: str, strategy: Any, judge: Callable[[Any], str | None], examples: int, number: int) -> int:
    """Judge as many examples as asked for, and print what ended badly, one line for each kind of ending."""
    found: dict[str, list[str]] = defaultdict(list)
    judged, start = 0, time.monotonic()

    @seed(number)
    @counting(examples)
    @given(strategy)
    def judged_one(one: Any) -> None:
        nonlocal judged
        judged += 1
        fault = judge(one)
        if fault is not None:
            found[fault].append(str(one))

    if examples:
        judged_one()
    for fault, which in sorted(found.items(), key=lambda item: -len(item[1])):
        print(
            f"{len(which):5}  {fault}\n       {which[0]}",
            *(f"       {one}" for one in which[1:3]),
            sep="\n",
            flush=True,
        )
    bad = sum(map(len, found.values()))
    print(f"{kind}: {bad} of {judged} end badly, seed {number}, {time.monotonic() - start:.0f} s", flush=True)
    return bad


if __name__ == "__main__":
    sys.exit(main())
