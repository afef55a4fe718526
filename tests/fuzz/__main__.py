"""Many inputs, from a seed: how many there were, and how many ended badly, by the line where they did.

``python -m tests.fuzz [names...]`` draws inputs of Python and then of the command line; with names, of these alone.
Every core draws a part of them from a seed of its own: the same inputs again take the same seed and as many ``--jobs``.
"""

import argparse
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cellflow.machine import usable_cores
from fuzz.inputs import calls
from fuzz.profile import MANY_API_EXAMPLES, MANY_LINE_EXAMPLES
from fuzz.shares import judge


def main() -> int:
    """Draw, judge, count; return how many ended badly, at most 100."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", help="public names, such as paths.Linear, or rooms; by default all")
    parser.add_argument("--api", type=int, default=MANY_API_EXAMPLES, help="inputs of Python")
    parser.add_argument("--lines", type=int, default=MANY_LINE_EXAMPLES, help="command lines")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="processes, by default one for each core")
    asked = parser.parse_args()
    names = [
        name
        for name in sorted(calls())
        if not asked.names or any(part in (name, name.split(".")[0]) for part in asked.names)
    ]
    bad = count("inputs of Python", names, asked.api, asked.seed, asked.jobs)
    if not asked.names:
        bad += count("command lines", None, asked.lines, asked.seed, asked.jobs)
    return min(bad, 100)


def count(kind: str, names: list[str] | None, examples: int, number: int, jobs: int) -> int:
    """Judge as many examples as asked for, and print what ended badly, one line for each kind of ending."""
    found: dict[str, list[str]] = defaultdict(list)
    judged, start = 0, time.monotonic()
    parts = [(names, part, f"{number}.{k}" if k else number) for k in range(jobs) if (part := (examples + k) // jobs)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for many, endings in pool.map(judge, *zip(*parts, strict=True)) if parts else ():
            judged += many
            for fault, which in endings.items():
                found[fault] += which
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
