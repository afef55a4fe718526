"""The README to the letter: its Python runs as printed, its files and commands exist."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from cellflow.cli import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=["scanpy", "torch"])
def test_every_python_block_runs_as_printed(code, capsys):
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    plt.close("all")
    if "samples" in names:
        assert float(capsys.readouterr().out) < 0.25  # the clouds are 5.7 apart


def test_the_example_of_one_step_runs_as_printed(capsys):
    text = (ROOT / "docs" / "one_step.md").read_text()
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, "one_step.md", "exec"), names)
    euler, jump = (float(number) for number in re.findall(r"\d\.\d+", capsys.readouterr().out))
    assert jump < 0.75 * euler
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / "docs" / target).exists(), target


def test_commands_in_the_readme_exist():
    used = set(re.findall(r"^cellflow (\w+)", README, flags=re.MULTILINE))
    assert used == set(COMMANDS)


def test_files_that_the_readme_shows_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_make_targets_in_the_readme_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) - {"and"} <= targets
