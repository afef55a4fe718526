"""A share of the inputs, drawn and judged in a process of its own."""

from collections import defaultdict

import matplotlib as mpl
import torch
from hypothesis import given, seed

from fuzz import command_lines
from fuzz.inputs import ending, inputs
from fuzz.profile import counting


def judge(names: list[str] | None, examples: int, number: int | str) -> tuple[int, dict[str, list[str]]]:
    """Draw inputs of names, or command lines without any; return how many, and those that ended badly by how."""
    mpl.use("Agg")
    torch.set_num_threads(1)
    found: dict[str, list[str]] = defaultdict(list)
    judged = 0

    @seed(number)
    @counting(examples)
    @given(command_lines.LINES if names is None else inputs(names))
    def judged_one(one: object) -> None:
        nonlocal judged
        judged += 1
        fault = (command_lines.ending if names is None else ending)(one)  # type: ignore[arg-type]
        if fault is not None:
            found[fault].append(str(one))

    judged_one()
    return judged, dict(found)
