"""For every test, those in docstrings included: one thread, no window, and no more minutes than asked for.

What libraries do anew in every process or every fit, and which no test is about, is done once or not at all.
"""

import time
import warnings
from functools import cache
from importlib import metadata
from importlib.util import find_spec

import matplotlib as mpl
import pytest
import torch

mpl.use("Agg")
torch.set_num_threads(1)
metadata.entry_points = cache(metadata.entry_points)  # Lightning looks for its plugins at the start of every fit


STARTED = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--minutes``."""
    parser.addoption("--minutes", type=float, help="start no test after so many minutes; those left are skipped")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what there is no time for, and say so."""
    minutes = item.config.getoption("minutes")
    if minutes is not None and time.monotonic() - STARTED > 60 * minutes:
        pytest.skip(f"not run: {minutes:g} minutes are over")


@pytest.fixture(autouse=True, scope="session")
def interpreted_umap():
    """Do not compile UMAP for scanpy's neighbours of some cells, which takes ten seconds; scVelo's tests draw it."""
    if find_spec("scvelo"):
        yield
        return
    from cellflow.doors import handed_over

    connect = handed_over._connect

    def quick(adata: object, n_neighbors: int) -> None:
        from numba import config

        with pytest.MonkeyPatch.context() as numba, warnings.catch_warnings(action="ignore"):
            numba.setattr(config, "DISABLE_JIT", True)
            import umap  # noqa: F401
        connect(adata, n_neighbors)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handed_over, "_connect", quick)
        yield
