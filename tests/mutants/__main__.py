"""Plant the faults one at a time in a copy of the tree, and say which of them the default tests catch."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.faults import FAULTS, Fault

ROOT = Path(__file__).parents[2]
PARTS = ("cellflow", "configs", "tests", "benchmarks", "conftest.py", "pyproject.toml", "README.md")
CAUGHT, PASSED = 1, 0
"""What pytest returns where a test fails, and where none does; anything else is no answer."""


def main() -> int:
    """Run the faults that are named, or all; return how many were not caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="faults to plant; by default all")
    parser.add_argument("--list", action="store_true", help="say what there is, and stop")
    asked = parser.parse_args()
    unknown = set(asked.names) - {fault.name for fault in FAULTS}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; see --list")
    faults = [fault for fault in FAULTS if not asked.names or fault.name in asked.names]
    if asked.list:
        print(*(f"{fault.name:30} {fault.file:35} {fault.line}" for fault in faults), sep="\n")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        tree = copied(Path(folder))
        sound = tests_in(tree, sorted({test for fault in faults for test in fault.tests}))
        if sound != PASSED:
            print("the tests fail without a fault: mend them first", file=sys.stderr)
            return 1
        missed = [fault for fault in faults if not caught(tree, fault)]
    print(f"{len(faults) - len(missed)} of {len(faults)} faults are caught")
    return len(missed)


def copied(folder: Path) -> Path:
    """Copy what the tests need."""
    ignored = shutil.ignore_patterns("__pycache__", "results", "*.png")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=ignored)
        else:
            shutil.copy(source, folder / part)
    return folder


def caught(tree: Path, fault: Fault) -> bool:
    """Plant a fault, see whether a test of those that it names fails, and take it out again."""
    path, start = tree / "cellflow" / fault.file, time.monotonic()
    sound = path.read_text()
    if sound.count(fault.line) != 1:
        print(f"{fault.name:30} not planted: its line stands {sound.count(fault.line)} times in {fault.file}")
        return False
    path.write_text(sound.replace(fault.line, fault.fault))
    found = tests_in(tree, fault.tests)
    path.write_text(sound)
    said = {CAUGHT: "caught", PASSED: "ESCAPED"}.get(found, f"no answer: pytest returned {found}")
    print(f"{fault.name:30} {said} ({time.monotonic() - start:.0f} s)", flush=True)
    return found == CAUGHT


def tests_in(tree: Path, tests: tuple[str, ...] | list[str]) -> int:
    """Run tests of the default run, with the copy in place of the package, and return what pytest returns."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    named = [f"tests/{test}" for test in tests]
    return subprocess.run([*command, *named], cwd=tree, env=environment, capture_output=True, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
