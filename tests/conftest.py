"""What several tests share: the real data where it is, a small simulated AnnData, a fitted flow."""

import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import cellflow as cf
from cellflow.cells.snapshots import read_snapshots

if int(pd.__version__.partition(".")[0]) > 2:
    anndata.settings.allow_write_nullable_strings = True  # else it refuses the names of cells that pandas 3 makes


@pytest.fixture(autouse=True)
def closed_figures():
    """Close what a test has drawn; matplotlib keeps it otherwise, and warns of many."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def rng():
    return cf.generator(seed=0)


@pytest.fixture(scope="session")
def data_folder():
    """The folder with the real data sets; tests that need it skip by name without it."""
    folder = os.environ.get("CELLFLOW_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set CELLFLOW_DATA to the folder with the real data")
    return Path(folder)


def make_cells(times=(0.0, 1.0, 5.0), sizes=(40, 60, 50), dim=3, seed=0):
    """Cells that move at (1, 0, ..., 0) per unit of time, in shuffled order, with sparse-looking names."""
    draw = np.random.default_rng(seed)
    time = np.repeat(times, sizes)
    x = draw.normal(size=(len(time), dim)).astype(np.float32) * 0.3
    x[:, 0] += time
    order = draw.permutation(len(time))
    obs = pd.DataFrame({"day": time[order]}, index=[f"cell{k}" for k in range(len(time))])
    return anndata.AnnData(X=np.zeros((len(time), 0), np.float32), obs=obs, obsm={"X_pca": x[order]})


def make_treated(sizes=(40, 30, 30), dim=3, seed=0):
    """Controls, cells that drug A moves by 3 along the first axis, and cells that B moves by 2 along the second."""
    draw = np.random.default_rng(seed)
    drug = np.repeat(["control", "A", "B"], sizes)
    x = draw.normal(size=(len(drug), dim)).astype(np.float32) * 0.5
    x[drug == "A", 0] += 3
    x[drug == "B", 1] += 2
    order = draw.permutation(len(drug))
    obs = pd.DataFrame({"drug": drug[order], "donor": draw.choice(["x", "y"], len(drug))})
    obs.index = [f"cell{k}" for k in range(len(drug))]
    return anndata.AnnData(obs=obs, obsm={"X_pca": x[order]})


@pytest.fixture
def cells():
    return make_cells()


@pytest.fixture(scope="session")
def moving():
    """The cells, and a flow fitted on them well enough to know their velocity."""
    adata = make_cells(sizes=(150, 250, 200))
    return adata, cf.SnapshotFlow(time_key="day", steps=400, batch_size=128, device="cpu").fit(adata)


class Known(nn.Module):
    """A field that moves cells at a known velocity, and grows them at a known rate."""

    def __init__(self, velocity, growth=None):
        super().__init__()
        self.velocity, self.growth, self.weight = velocity, growth, nn.Parameter(torch.zeros(1))

    def forward(self, t, x, condition=None):
        velocity = self.velocity(x) if callable(self.velocity) else torch.tensor(self.velocity).to(x).expand_as(x)
        return velocity if self.growth is None else cf.fields.Outputs(velocity, growth=self.growth(x))


@pytest.fixture
def knowing(monkeypatch):
    """Every fit learns a field that is known, in place of training."""

    def set_up(make, growth=False):
        def fit(self, adata, *_, **__):
            states = read_snapshots(adata, time_key=self.time_key, rep=self.rep)
            self.clock_, self.n_features_in_, self.growth_ = states.clock, states.x.shape[1], growth
            self.n_cells_ = tuple(map(len, states.clouds()))
            self.field_ = make(states)
            return self

        monkeypatch.setattr(cf.SnapshotFlow, "fit", fit)
        return cf.SnapshotFlow(time_key="day", device="cpu")

    return set_up


@pytest.fixture(autouse=True, scope="session")
def small_figures():
    """Few pixels and streamlines are drawn: nobody looks at them, and most of a report's time goes into fine ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellflow.report.html.DPI", 40)
        patch.setattr("cellflow.pl.streams.DENSITY", 0.4)
        yield


@pytest.fixture(autouse=True, scope="session")
def few_parts():
    """Errors of distances follow from six parts of the cells: dozens of them are most of what validations take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellflow.tl.held_out.standard_error", partial(cf.metrics.standard_error, repeats=6))
        yield


@pytest.fixture
def all_parts(monkeypatch):
    """Errors are as precise as users get them: for tests that look at how large they are."""
    monkeypatch.setattr("cellflow.tl.held_out.standard_error", cf.metrics.standard_error)


@pytest.fixture
def unreported(monkeypatch):
    """Commands write no report: for tests that look at other things, as it is most of what a short run takes."""
    for command in ("cells", "translation", "generation", "perturbation"):
        monkeypatch.setattr(f"cellflow.cli.{command}.write_report", lambda *given, **more: None)


@pytest.fixture(autouse=True)
def same_first_weights():
    """Networks that a test builds itself start from the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def global_state_is_untouched(same_first_weights):
    """No call changes the random state of torch or NumPy."""
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    yield
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.fixture
def shared():
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
