"""The planted faults stay plantable: their lines are there, and the tests that must catch them run by default."""

import ast
from pathlib import Path

import pytest
from mutants.faults import FAULTS

import cellflow as cf

PACKAGE, TESTS = Path(cf.__file__).parent, Path(__file__).parent


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_can_be_planted(fault):
    """Whoever changes the line changes the fault with it: `python -m tests.mutants NAME` says whether it is caught."""
    code = (PACKAGE / fault.file).read_text()
    assert code.count(fault.line) == 1, f"{fault.line!r} stands {code.count(fault.line)} times in {fault.file}"
    assert fault.fault != fault.line
    ast.parse(code.replace(fault.line, fault.fault))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_tests_of_the_default_run(fault):
    assert fault.tests
    for test in fault.tests:
        file, name = test.split("::")
        tree = ast.parse((TESTS / file).read_text())
        found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
        assert len(found) == 1, f"no {test}"
        marks = " ".join(ast.unparse(mark) for mark in found[0].decorator_list)
        assert "mark.slow" not in marks.replace("marks=pytest.mark.slow", ""), f"{test} is slow"


def test_there_are_enough_and_each_has_a_name():
    assert len(FAULTS) >= 16
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
