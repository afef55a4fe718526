"""For every test, those in docstrings included: one thread, no window, and no more minutes than asked for."""

import time

import matplotlib as mpl
import pytest
import torch

mpl.use("Agg")
torch.set_num_threads(1)


STARTED = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--minutes``."""
    parser.addoption("--minutes", type=float, help="start no test after so many minutes; those left are skipped")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what there is no time for, and say so."""
    minutes = item.config.getoption("minutes")
    if minutes is not None and time.monotonic() - STARTED > 60 * minutes:
        pytest.skip(f"not run: {minutes:g} minutes are over")
