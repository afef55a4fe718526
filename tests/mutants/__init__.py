"""Planted faults: one wrong line each, of the kind that trains, plots and reports as if nothing were the matter.

``python -m tests.mutants`` (or ``make mutants``) plants one at a time in a copy of the tree and runs the tests that
must fail. Where they pass, the suite has a hole.
"""
