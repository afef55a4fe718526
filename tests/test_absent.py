"""Groups that a neighbouring snapshot lacks: a flow carries them into others, which tools that are given labels say."""

import logging

import numpy as np
import pandas as pd
import pytest

import cellflow as cf
from cellflow.cells.absent import absent_groups
from conftest import make_cells

QUICK = {"time_key": "day", "steps": 2, "batch_size": 8, "device": "cpu", "coupling": "exact", "growth": False}


def two_types(lost=None, at=()):
    """Cells of two types, one of which may be missing at some times."""
    adata = make_cells(sizes=(40, 60, 50))
    adata.obs["type"] = pd.Categorical(np.where(np.arange(150) % 3 == 0, "blood", "skin"))
    return adata[~((adata.obs["type"] == lost) & adata.obs["day"].isin(at))].copy()


def sentences(adata, **given):
    return absent_groups(adata.obs["type"], adata.obs["day"].to_numpy(), (0.0, 1.0, 5.0), **given)


def test_what_is_everywhere_is_not_spoken_of():
    assert sentences(two_types()) == []


@pytest.mark.parametrize("lost", ["blood", "skin"])
def test_what_vanishes_and_what_appears_is_named_with_its_share(lost):
    adata = two_types(lost, at=[1])
    share = {t: 100 * (adata.obs["type"][adata.obs["day"] == t] == lost).mean() for t in (0, 5)}
    said = sorted(sentences(adata), key=lambda text: "carries" not in text)
    assert len(said) == 2
    assert said[0].startswith(f"Group '{lost}' ({share[0]:.2g} % at time 0) has no cells at time 1: the flow carries")
    assert said[1].startswith(f"Group '{lost}' ({share[5]:.2g} % at time 5) has no cells at time 1: the flow makes it")


def test_what_may_be_absent_by_chance_is_not_spoken_of():
    labels = pd.Series(["rare"] * 4 + ["common"] * 96 + ["common"] * 1000)
    assert absent_groups(labels, np.repeat([0.0, 1.0], [100, 1000]), (0.0, 1.0)) == []  # 4 %
    labels = pd.Series(["some"] * 30 + ["common"] * 70 + ["common"] * 10)
    assert absent_groups(labels, np.repeat([0.0, 1.0], [100, 10]), (0.0, 1.0)) == []  # 3 of 10 cells are expected
    labels = pd.Series(["some"] * 30 + ["common"] * 70 + ["common"] * 17)
    assert len(absent_groups(labels, np.repeat([0.0, 1.0], [100, 17]), (0.0, 1.0))) == 1


def test_shares_are_weighted():
    labels, time = pd.Series(["some"] * 30 + ["common"] * 170), np.repeat([0.0, 1.0], 100)
    weight = np.where(labels == "some", 0.1, 1.0)
    assert len(absent_groups(labels, time, (0.0, 1.0))) == 1
    assert absent_groups(labels, time, (0.0, 1.0), weight=weight) == []


def test_snapshots_that_are_not_here_or_have_no_labels_say_nothing():
    adata = two_types()
    assert sentences(adata[adata.obs["day"] == 0]) == []
    adata.obs["type"] = adata.obs["type"].where(adata.obs["day"] != 1)
    assert sentences(adata) == []


ALL_TOOLS = {
    "fate": lambda adata, flow, folder: cf.tl.fate(adata, flow, groupby="type"),
    "validate": lambda adata, flow, folder: cf.tl.validate(adata, flow, groupby="type", keep_aside=False),
    "validate unfitted": lambda adata, flow, folder: cf.tl.validate(
        adata, cf.SnapshotFlow(**QUICK), groupby="type", keep_aside=False
    ),
    "report": lambda adata, flow, folder: cf.report.write(
        folder, adata, flow, title="t", details={}, groupby="type", basis="pca"
    ),
}


@pytest.mark.parametrize("tool", ALL_TOOLS)
@pytest.mark.parametrize("lost", ["blood", None])
def test_every_tool_that_is_given_labels_says_it(tool, lost, caplog, tmp_path):
    adata = two_types(lost, at=[5])
    flow = cf.SnapshotFlow(**QUICK).fit(adata)
    with caplog.at_level(logging.WARNING, logger="cellflow"):
        ALL_TOOLS[tool](adata, flow, tmp_path)
    assert ("has no cells at time 5: the flow carries it" in caplog.text) == (lost is not None)
    if tool == "report":
        assert ("has no cells at time 5" in (tmp_path / "report.html").read_text()) == (lost is not None)
