"""The report: one page that needs nothing else, says what was found both ways, and cannot be broken by names."""

import base64
import re
import shlex
import subprocess
import sys
from functools import partial
from html import unescape
from html.parser import HTMLParser

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import cellflow as cf
from cellflow.errors import NotFittedError
from cellflow.report import lineage
from cellflow.report.estimator import chosen
from cellflow.report.html import save_vector
from cellflow.report.validation import Score, compare, headline, read_scores, sentence

METHODS = ("flow", "linear transport", "previous and next", "previous snapshot", "next snapshot", "half against half")
VOID = {"meta", "img", "br", "hr", "link"}


class Page(HTMLParser):
    """Reads a page: its tags are balanced, its text and its references are kept."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.references, self.said, self.images = [], [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.references += [value for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}]
        self.images += [dict(attrs)] if tag == "img" else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.said.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.said))


def snapshots(n_times=3, dim=3, key="X_rep", n=12):
    rng = np.random.default_rng(0)
    time = np.repeat(np.arange(n_times) * 1.5, n)
    x = (rng.normal(size=(len(time), dim)) + time[:, None]).astype(np.float32)
    obs = pd.DataFrame({"day": time}, index=[f"c{i}" for i in range(len(time))])
    if key == "X":
        return anndata.AnnData(x, obs=obs)
    return anndata.AnnData(obs=obs, obsm={key: x})


def fit(adata, rep="X_rep", coupling="exact", **settings):
    settings |= {"steps": 5, "batch_size": 8, "device": "cpu"}
    return cf.SnapshotFlow(time_key="day", rep=rep, coupling=coupling, **settings).fit(adata)


def table(*times, **distances):
    """Return a validation table in which every method but those given is at 2."""
    named = {name.replace("_", " "): value for name, value in distances.items()}
    return pd.DataFrame(
        [{"time": t, "method": m, "W1": named.get(m, 2.0), "n_cells": 12} for t in times for m in METHODS]
    )


def report(folder, adata, flow, title="a run", details=None, **settings):
    path = cf.report.write(folder, adata, flow, title=title, details=details or {}, **settings)
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def fitted():
    """Cells and a flow as it is by default."""
    adata = snapshots()
    return adata, fit(adata, coupling="auto")


@pytest.fixture(scope="module")
def written(tmp_path_factory, fitted):
    """The folder and the page of this flow, which tests read."""
    folder = tmp_path_factory.mktemp("written") / "it's a run; rm"
    return folder, report(folder, *fitted)


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without the figures of the flow: for tests that look at the text of a flow whose figures others draw."""

    def set_up():
        monkeypatch.setattr("cellflow.report.cells.drawings", lambda *given, **more: iter(()))

    return set_up


def test_the_page_needs_nothing_else(written):
    folder, page = written
    assert page.references
    kinds = ("#", "data:image/png;base64,", "data:image/svg+xml;base64,")
    assert all(ref.startswith(kinds) for ref in page.references)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "http" not in page.text
    assert not re.search(r"url\(|@import", (folder / "report.html").read_text())


def test_every_link_leads_somewhere(written):
    folder, page = written
    html = (folder / "report.html").read_text()
    assert all(f'id="{ref[1:]}"' in html for ref in page.references if ref.startswith("#"))


def test_figures_are_the_files_beside_the_page(written):
    folder, page = written
    shown = [base64.b64decode(image["src"].split(",")[1]) for image in page.images]
    files = {path.read_bytes() for path in (folder / "figures").glob("*.png")}
    assert set(shown) == files
    assert len(files) == len(shown) == 5
    assert all(data.startswith(b"\x89PNG") for data in files)
    assert all(len(image["alt"]) > 20 for image in page.images)


def test_figures_can_be_saved_as_they_are_beside_the_page(written):
    folder, page = written
    kept = [base64.b64decode(ref.split(",")[1]) for ref in page.references if ref.startswith("data:image/svg")]
    assert set(kept) == {path.read_bytes() for path in (folder / "figures").glob("*.svg")}
    assert len(kept) == len(page.images)
    assert all(b"<text" in data for data in kept)  # letters, not their outlines


def test_many_marks_are_a_picture_in_a_drawing(tmp_path):
    figure = Figure()
    marks = figure.subplots().scatter(*np.random.default_rng(0).normal(size=(2, 2000)))
    save_vector(figure, tmp_path / "many.svg")
    text = (tmp_path / "many.svg").read_text()
    assert "data:image/png" in text
    assert len(text) < 200_000
    assert not marks.get_rasterized()


def test_contents_lead_to_every_section(written):
    folder, page = written
    html = (folder / "report.html").read_text()
    assert [ref for ref in page.references if ref.startswith("#")] == [
        f"#{name}" for name in re.findall(r'<section id="(\w+)">', html)
    ]


def test_cells_are_coloured_and_counted_by_group(tmp_path, fitted):
    adata = snapshots(n=40)
    adata.obs["kind"] = ["rare"] * 3 + ["a"] * 57 + ["b"] * 60
    adata.obsm["X_umap"] = adata.obsm["X_rep"][:, :2].copy()
    page = report(tmp_path, adata, fit(adata), groupby="kind")
    assert "37 (92%)" in page.text
    assert "Fewer than 20 cells: rare." in page.text
    assert "a UMAP" not in page.text.partition("What is not on this page")[2].partition("The run")[0]


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"groupby": "depth"}, ValueError, "no groups"),
        ({"groupby": "kind"}, KeyError, r"No `adata.obs\['kind'\]`"),
        ({"basis": "umap"}, KeyError, "X_umap"),
        ({"genes": ["GATA2"]}, KeyError, "Is it 'GATA1'"),
        ({"genes": ["TWICE"]}, ValueError, "called 'TWICE'"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_is_written(tmp_path, asked, error, words):
    adata = snapshots()
    adata = anndata.AnnData(np.ones((36, 3), "float32"), obs=adata.obs, obsm=dict(adata.obsm))
    adata.var_names = ["GATA1", "TWICE", "TWICE"]
    adata.obs["depth"] = np.arange(36) * 1.5
    with pytest.raises(error, match=words):
        report(tmp_path / "page", adata, fit(adata), **asked)
    assert not (tmp_path / "page").exists()


def test_what_is_left_out_is_named_with_its_reason(written):
    said = written[1].text.partition("What is not on this page")[2]
    said = said[said.index("Cell types") :]
    for words in ("Columns of obs: day", "Genes over time", "sc.tl.umap"):
        assert words in said


def test_genes_that_go_with_fates_are_drawn_where_there_is_expression(tmp_path):
    cells, rng = snapshots(n=40), np.random.default_rng(1)
    side = np.tile([0.0, 1.0], 60)
    x = (cells.obsm["X_rep"] + np.outer(side, [0, 9, 0])).astype("float32")
    counts = rng.normal(size=(120, 12)).astype("float32") + np.outer(side, np.arange(12) == 3).astype("float32") * 4
    adata = anndata.AnnData(counts, obs=cells.obs, obsm={"X_rep": x})
    adata.var_names = [f"<b>$gene {k}" for k in range(12)]
    adata.obs["kind"] = np.where(side, "up $", "down")
    page = report(tmp_path, adata, fit(adata), groupby="kind")
    assert "Genes that go with a fate" in page.text
    assert "goes with the fate up $, in cells before day 3" in page.text
    assert {path.name for path in (tmp_path / "figures").glob("drivers*.png")} == {"drivers_1.png", "drivers_2.png"}
    assert "drivers" not in adata.uns


def test_fates_that_were_written_are_those_of_the_page(tmp_path):
    adata = snapshots(n=40)
    adata.obs["kind"] = np.tile(["left", "right"], 60)
    flow = fit(adata)
    cf.tl.fate(adata, flow, groupby="kind", n_neighbors=5)
    page = report(tmp_path, adata, flow)
    assert "Where cells end" in page.text
    assert (tmp_path / "figures" / "fates.png").exists()


def test_nobody_else_writes_into_the_folder_meanwhile(tmp_path, fitted):
    code = (
        "import sys; from cellflow.lock import locked\n"
        f"with locked({str(tmp_path)!r}):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    with (
        subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as other,
        pytest.MonkeyPatch.context() as patch,
    ):
        other.stdout.readline()
        patch.setattr("cellflow.report.cells.A_SAVE", 0.1)
        with pytest.raises(cf.errors.CheckpointError, match="process"):
            report(tmp_path, *fitted)
        other.stdin.close()


@pytest.fixture
def clones():
    """Two branches from one place in three snapshots, the last of other sizes: each clone goes to one of them."""
    rng = np.random.default_rng(0)
    adata = snapshots(n_times=3, dim=2, n=80)[: 3 * 80 - 20].copy()
    step, side = np.repeat([0, 1, 2], [80, 80, 60]), np.repeat([-1.0, 1.0] * 3, [40] * 4 + [30] * 2)
    adata.obsm["X_rep"] = np.stack([3.0 * step, side * (1 + 3 * step)], axis=1) + 0.2 * rng.normal(size=(220, 2))
    adata.obs["kind"] = np.where(step == 2, np.where(side > 0, "up", "down"), "stem")
    adata.obs["clone"] = [f"{'$' if up else ''}<i>clone {k % 20}" for k, up in enumerate(side > 0)]
    adata.obs.loc[adata.obs_names[::7], "clone"] = None
    return adata


def trained(adata):
    return cf.SnapshotFlow(time_key="day", rep="X_rep", steps=200, batch_size=64, device="cpu").fit(adata)


def test_fates_stand_beside_those_of_real_clones(tmp_path, clones, undrawn):
    before, flow = clones.copy(), trained(clones)
    page = report(tmp_path, clones, flow, groupby="kind", lineage_key="clone")
    assert re.search(r"Beside \d\d real clones that had changed", page.text)
    assert "better than all cells alike" in page.text
    assert "the flow never saw clones" in page.text
    assert "Beside real clones" in page.text
    assert (tmp_path / "figures" / "clones.png").exists()
    assert clones.obs.equals(before.obs)
    assert "saved without its plans" not in page.text
    flow.save(tmp_path / "model")
    undrawn()
    again = cf.SnapshotFlow.load(tmp_path / "model", device="cpu")
    page = report(tmp_path / "again", clones, again, groupby="kind", lineage_key="clone")
    assert "A flow is saved without its plans, so the plans it was fitted on are not compared here" in page.text
    with pytest.raises(KeyError, match=r"No `adata.obs\['family'\]`. Available"):
        report(tmp_path, clones, fit(clones), groupby="kind", lineage_key="family")


def test_fates_of_a_flow_in_closed_form_are_those_of_its_clones(clones):
    """Both branches are far apart: each cell has one fate, that of its clone; all alike have half of it."""
    found = lineage.compare(clones, trained(clones), groupby="kind", lineage_key="clone")
    assert list(found.overlap) == [lineage.FLOW, lineage.OWN, lineage.PLAN, lineage.STILL, lineage.ALIKE]
    assert found.overlap[lineage.FLOW].mean() > 0.95
    assert found.overlap[lineage.PLAN] == pytest.approx(1)
    assert found.overlap[lineage.ALIKE] == pytest.approx(0.5)
    np.testing.assert_allclose(found.real.to_numpy().max(axis=1), 1)
    early, late = clones.obs["clone"].iloc[:160], clones.obs["clone"].iloc[160:].dropna()
    assert found.n_cells == early.isin(late).sum()


def test_growth_is_shown_by_group_where_it_was_learned(tmp_path, clones, undrawn):
    settings = {"coupling": cf.couplings.UnbalancedSinkhorn(0.5, 20.0), "growth": True}
    flow = fit(clones, **settings)
    page = report(tmp_path, clones, flow, groupby="kind")
    assert "Growth rates that the flow has learned, by kind" in page.images[-2]["alt"]
    assert (tmp_path / "figures" / "growth.png").exists()
    assert "only differences between cells of one snapshot are meaningful" in page.text
    assert "growth is much the same" in page.text
    assert "confirm" not in page.text
    assert "Ranks at double" in page.text
    clones.obs["rate"] = np.linspace(-1, 1, clones.n_obs)
    told = fit(clones, coupling="exact", prior_key="rate", growth=True, masses="counts")
    page = report(tmp_path, clones, told)
    assert "The expected growth of each cell, obs['rate'], is included." in page.text
    assert "Population sizes were given" in page.text
    assert "Ranks at double" not in page.text
    undrawn()
    flow.search_history_ = cf.training.History({"confirmed growth": [0.9, 0.35, float("nan")]})
    assert "Held-out cells confirm 35% of it" in report(tmp_path / "few", clones, flow, groupby="kind").text


def many_kinds():
    adata = snapshots(n=40)
    adata.obs["kind"] = [f"<b>$kind {k % 40}" if k % 3 else None for k in range(adata.n_obs)]
    return adata


@pytest.mark.parametrize("noisy", [False, True])
def test_fates_are_shown_where_there_are_groups(tmp_path, noisy):
    adata = many_kinds()
    settings = {"stochastic": True, "path": cf.paths.BrownianBridge(0.5)} if noisy else {}
    before = adata.copy()
    page = report(tmp_path, adata, fit(adata, **settings), groupby="kind")
    assert "Where cells end" in page.text
    assert ("simulated 100 times" in page.text) == noisy
    assert ("This flow has no noise" in page.text) != noisy
    assert (tmp_path / "figures" / "fates.png").exists()
    assert adata.obs.equals(before.obs)
    assert set(adata.obsm) == set(before.obsm)


def test_fates_are_those_of_groups_that_are_there(tmp_path, fitted):
    adata = many_kinds()
    with pytest.raises(KeyError, match=r"No `adata.obs\['sort'\]`. Available"):
        report(tmp_path, adata, fitted[1], groupby="sort")
    assert "Where cells end" not in report(tmp_path, adata, fitted[1]).text


def test_names_from_outside_are_escaped(tmp_path):
    evil = "<script>alert('1')</script>&\"$title"
    adata = snapshots()
    adata.obs[evil] = adata.obs["day"]
    flow = cf.SnapshotFlow(time_key=evil, rep="X_rep", steps=3, device="cpu").fit(adata)
    page = report(tmp_path, adata, flow, title=evil, details={evil: evil, "lines": f"a\n{evil}"})
    assert "script" not in page.tags
    assert page.text.count("alert('1')") >= 5
    assert "$title" in page.text


def test_a_long_name_is_kept_whole(tmp_path, fitted):
    assert "x" * 400 in report(tmp_path, *fitted, title="x" * 400).text


def test_what_was_fitted_is_said(tmp_path):
    adata = snapshots(n_times=4)
    flow = fit(adata[adata.obs["day"] != 1.5], path=cf.paths.BrownianBridge(0.1), coupling="independent", seed=7)
    page = report(tmp_path, adata, flow, details={"wall time": "12 s"})
    assert "A flow from day 0 to day 4.5, fitted on 36 cells of 3 snapshots, in X_rep (3 columns)." in page.text
    assert "day 1.5 12 held out: the flow never saw it" in page.text
    assert "day 3 12 fitted" in page.text
    assert "at random" in page.text
    assert "BrownianBridge" in page.text
    assert "Seed 7" in page.text
    assert "wall time 12 s" in page.text


@pytest.mark.parametrize("kind", [cf.SnapshotFlow, cf.DomainTranslator, cf.ImageGenerator, cf.PerturbationFlow])
def test_every_setting_that_was_chosen_is_listed(kind):
    assert chosen(kind()) == []
    for name in kind().get_params(deep=False):
        assert chosen(kind(**{name: 0.123})) == [(name, "0.123")]
        assert chosen(kind(**{name: 0.123}), besides=[name]) == []


def test_what_was_done_against_learning_cells_by_heart_is_said(tmp_path, undrawn):
    adata = snapshots()
    flow = fit(adata, regularize=False)
    page = report(tmp_path / "whole", adata, flow)
    assert "blurred by" not in page.text
    assert "stopped improving" not in page.text
    undrawn()
    flow.set_params(steps=5000).blur_ = 0.25
    page = report(tmp_path / "early", adata, flow)
    assert f"{len(flow.history_)} steps of 5,000, as held-out cells stopped improving" in page.text
    assert "blurred by 0.25" in page.text


def test_the_page_lists_every_setting_that_was_chosen(tmp_path):
    adata = snapshots()
    settings = {
        "coupling": cf.couplings.UnbalancedSinkhorn(epsilon=1.0, relaxation=2.0),
        "growth": True,
        "masses": {0.0: 1.0, 1.5: 2.0, 3.0: 4.0},
        "standardize": False,
        "recipe": cf.training.Recipe(learning_rate=0.002),
        "network": partial(cf.networks.MLP, width=16),
    }
    page = report(tmp_path, adata, fit(adata, **settings))
    assert "growth True" in page.text
    assert "masses {0.0: 1.0, 1.5: 2.0, 3.0: 4.0}" in page.text
    assert "standardize False" in page.text
    assert "UnbalancedSinkhorn(epsilon=1.0, relaxation=2.0" in page.text
    assert "recipe Recipe(learning_rate=0.002" in page.text
    assert "network MLP(width=16)" in page.text
    curved = report(tmp_path / "curved", adata, fit(adata, curve=cf.pairing.Spline(0.5)))
    assert "curve Spline(bend=0.5)" in curved.text


def test_predictions_and_fits_are_kept_apart(tmp_path):
    adata = snapshots(n_times=4)
    page = report(tmp_path, adata, fit(adata[adata.obs["day"] != 1.5]))
    assert {path.stem for path in (tmp_path / "figures").iterdir()} >= {"predicted", "carried"}
    assert "The flow never saw these cells" in page.text
    assert "how well it fits, not how well it predicts" in page.text


def test_carried_cells_are_those_of_the_fitted_snapshot_before():
    from cellflow.report.figures import drawings

    adata = snapshots(n_times=4)
    flow = fit(adata[adata.obs["day"] != 1.5])
    found = {drawing.name: drawing for drawing in drawings(adata, flow, basis="rep")}
    observed, carried = found["carried"].figure.axes
    assert carried.get_title() == "day 3, carried from day 0\n12 cells"
    assert observed.get_title() == "day 3, observed\n12 cells"
    expected = flow.transport(adata.obsm["X_rep"][:12], start=0.0, stop=3.0).x[-1][:, :2].numpy()
    marks = next(c for c in carried.collections if c.get_label() == "predicted")
    np.testing.assert_allclose(marks.get_offsets(), expected, rtol=1e-5)


def test_numbers_stand_beside_their_baselines(tmp_path, fitted):
    adata, flow = fitted[0].copy(), fitted[1]
    adata.uns["validation"] = table(1.5, flow=1.234, linear_transport=1.567, half_against_half=0.891)
    page = report(tmp_path, adata, flow)
    assert "day 1.5 12 1.23 1.57 2.00 2.00 2.00 0.891" in page.text
    assert "At day 1.5, held out: the flow's prediction is at W1 = 1.23 from the true cells." in page.text
    assert (tmp_path / "figures" / "validation.png").is_file()
    adata.uns["validation"] = adata.uns["validation"].assign(W1_low=1.0, W1_high=1.5)
    page = report(tmp_path, adata, flow)
    assert "day 1.5 12 1.23 (1.00 to 1.50) 1.57" in page.text
    assert "the flow's prediction is at W1 = 1.23 (1.00 to 1.50) from the true cells." in page.text


@pytest.mark.parametrize(
    ("flow", "still", "lines", "said"),
    [
        (1.0, 2.0, 2.0, "better than doing nothing, and better than straight lines"),
        (1.0, 2.0, 0.5, "better than doing nothing, but worse than straight lines"),
        (1.0, 1.01, 0.99, "level with doing nothing, and level with straight lines"),
        (1.0, 0.5, 0.5, "worse than doing nothing, and worse than straight lines"),
    ],
)
def test_the_verdict_is_honest_both_ways(flow, still, lines, said):
    score = Score(24.0, {"flow": flow, "previous snapshot": still, "linear transport": lines}, 9)
    assert said in headline([score])
    assert f"the flow is {'level with that' if compare(flow, lines) == 'level' else compare(flow, lines)}" in sentence(
        score, "hours"
    )


def test_doing_nothing_means_the_best_way_of_it():
    score = read_scores(anndata.AnnData(uns={"validation": table(3.0, next_snapshot=0.5)}))[0]
    assert score.still == ("the next snapshot as it is", 0.5)


def test_the_headline_counts():
    wins = Score(1.0, {"flow": 1.0, "previous snapshot": 2.0, "linear transport": 2.0}, 9)
    loses = Score(2.0, {"flow": 3.0, "previous snapshot": 2.0, "linear transport": 3.0}, 9)
    assert headline([wins, wins, loses]) == (
        "Tested on 3 held-out snapshots: against doing nothing the flow is better on 2 and worse on 1; against "
        "straight lines it is better on 2 and level on 1."
    )
    assert "better on both" in headline([wins, wins])
    assert "worse on all 3" in headline([loses] * 3)


def test_without_validation_nothing_is_claimed(written):
    page = written[1]
    assert "Not tested against held-out cells yet." in page.text
    assert "validate=true" in page.text
    assert "better" not in page.text


def test_two_time_points_cannot_be_tested(tmp_path):
    adata = snapshots(n_times=2)
    page = report(tmp_path, adata, fit(adata))
    assert "none can be held out" in page.text
    assert "This tests whether it carries new cells as well as fitted ones" in page.text
    assert "validate=true" in page.text
    assert len(page.images) == 4


def new_cells(flow, fitted=1.0, idle=9.0, p=0.005):
    """A table of new cells over one interval, from 0 to 3."""
    rows = [("flow", "new", flow, p), ("flow", "fitted", fitted, np.nan), ("not moving", "new", idle, np.nan)]
    rows += [("common shift", "new", idle + 1, np.nan), ("floor", "fitted", 0.9, np.nan)]
    columns = ["method", "cells", "ED", "p"]
    return pd.DataFrame(rows, columns=columns).assign(start=0.0, time=3.0, n_cells=12, W1=1.0)


@pytest.mark.parametrize(
    ("scores", "said", "unsaid"),
    [
        ((1.1,), "to day 3 worse than fitted ones.", "memorised"),
        ((1.04,), "to day 3 as well as fitted ones.", "Warning"),
        ((2.0, 1.0, 9.0, 0.4), "to day 3 less well than fitted ones, but not beyond chance", "Warning"),
        (
            (9.5,),
            "Warning: there the flow has memorised its cells, not learned the population.",
            "as well as fitted ones",
        ),
        ((9.5, 9.4, 9.0), "in 0 of 1 intervals.", "Warning"),
    ],
)
def test_the_report_warns_where_new_cells_part_from_fitted_ones(tmp_path, scores, said, unsaid):
    adata = snapshots(n_times=2)
    adata.uns["validation_new_cells"] = new_cells(*scores)
    page = report(tmp_path, adata, fit(adata))
    summary = page.text.split("Whether new cells are carried as well")[1]  # before the section of that title
    assert said in summary
    assert unsaid not in summary
    assert "day 0 to day 3 12" in page.text
    assert (tmp_path / "figures" / "new_cells.png").is_file()
    assert "No score above shows which cell goes where" in page.text


def landings(flow, still, score="label persistence"):
    """A table of where cells go over one interval, each as value, low and high."""
    rows = [("flow", *flow), ("not moving", *still), ("exact plan", 0.5, 0.4, 0.6)]
    table = pd.DataFrame(rows, columns=["method", "value", "low", "high"])
    return table.assign(start=0.0, time=3.0, score=score, cells="fitted", n=12)


def test_the_report_speaks_of_labels_and_clones(tmp_path, undrawn):
    adata = snapshots(n_times=2)
    clones = landings((0.8, 0.7, 0.9), (0.6, 0.5, 0.7), "clone agreement")
    adata.uns["validation_couplings"] = pd.concat([landings((0.7, 0.6, 0.79), (0.8, 0.75, 0.85)), clones])
    page = report(tmp_path, adata, fit(adata))
    assert "its own label: 0.70 by the flow, 0.80 by not moving, 0.50 by the exact transport plan." in page.text
    assert "In 1 of 1 intervals this is less than by not moving." in page.text
    assert "a warning, not proof" in page.text
    assert "it is better than not moving in 1 of 1 intervals, and worse in 0" in page.text
    assert "Label persistence day 0 to day 3 fitted 12 0.70 (0.60 to 0.79) 0.80 0.50" in page.text.replace(
        "\u00a0", " "
    )
    assert (tmp_path / "figures" / "couplings.png").is_file()
    undrawn()
    level = snapshots(n_times=2)
    level.uns["validation_couplings"] = landings((0.7, 0.6, 0.81), (0.8, 0.75, 0.85))
    assert "less than by not moving" not in report(tmp_path, level, fit(level)).text


@pytest.mark.parametrize(("dim", "key"), [(1, "X_rep"), (2, "X_rep"), (4, "X"), (2, "X_pca")])
def test_any_representation_gives_a_page(tmp_path, dim, key):
    adata = snapshots(dim=dim, key=key)
    page = report(tmp_path, adata, fit(adata, rep=key))
    assert f"in {key} ({dim} column" in page.text
    assert len(page.images) == 5


def test_many_snapshots_give_a_page_of_reasonable_length(tmp_path):
    adata = snapshots(n_times=20, dim=2, n=6)
    adata.uns["validation"] = table(*(np.arange(1, 19) * 1.5))
    page = report(tmp_path, adata, fit(adata))
    assert "There are 18 inner snapshots; 6 of them are drawn." in page.text
    assert "The other 12 held-out snapshots are in the table below." in page.text
    assert page.text.count("held out: the flow's prediction") == 6


def test_the_python_lines_run(tmp_path, fitted, monkeypatch):
    adata, flow = fitted
    folder = tmp_path / "it's a run"
    flow.save(folder)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    report(folder, adata, flow)
    code = re.search(r'<pre class="python">(.*?)</pre>', (folder / "report.html").read_text(), re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(unescape(code), names)
    assert (names["between"].obs["day"] == 0.75).all()
    assert "velocity" in names["adata"].obsm


def test_the_shell_lines_survive_odd_folders(written):
    folder = written[0]
    code = re.search(r'<pre class="shell">(.*?)</pre>', (folder / "report.html").read_text(), re.DOTALL).group(1)
    first, *_ = (shlex.split(line) for line in unescape(code).splitlines())
    assert first == ["cellflow", "interpolate", f"model={folder}", "at=[0.75]"]


def test_genes_are_drawn_where_they_can_be_decoded(tmp_path):
    adata = snapshots(dim=6, key="X")
    adata.var_names = list("abcdef")
    centred = adata.X - adata.X.mean(axis=0)
    loadings = np.linalg.svd(centred, full_matrices=False)[2][:3].T
    adata.obsm["X_pca"], adata.varm["PCs"] = centred @ loadings, loadings
    flow = fit(adata, rep="X_pca")
    report(tmp_path, adata, flow, genes=["b", "e"])
    assert (tmp_path / "figures" / "genes.png").is_file()
    with pytest.raises(KeyError, match="'z'"):
        report(tmp_path, adata, flow, genes=["z"])


def test_genes_that_cannot_be_decoded_are_left_out_with_the_reason(tmp_path, caplog):
    adata = snapshots(dim=6, key="X")
    adata.obsm["X_latent"] = adata.X[:, :3].copy()
    page = report(tmp_path, adata, fit(adata, rep="X_latent"), genes=[adata.var_names[0]])
    assert not (tmp_path / "figures" / "genes.png").exists()
    assert "does not show genes over time" in caplog.text
    assert "Genes over time:" in page.text


def test_nothing_else_is_changed(tmp_path, fitted):
    adata, flow = fitted
    before = list(adata.uns), list(adata.obsm), list(adata.obs), torch.get_rng_state(), plt.get_fignums()
    report(tmp_path, adata, flow)
    assert (list(adata.uns), list(adata.obsm), list(adata.obs)) == before[:3]
    assert torch.equal(torch.get_rng_state(), before[3])
    assert plt.get_fignums() == before[4]


def test_a_report_is_written_again_in_place(tmp_path, fitted):
    first = cf.report.write(tmp_path, *fitted, title="same", details={}).read_bytes()
    assert cf.report.write(tmp_path, *fitted, title="same", details={}).read_bytes() == first


def test_an_unfitted_flow_has_no_report(tmp_path, fitted):
    with pytest.raises(NotFittedError):
        report(tmp_path / "new", fitted[0], cf.SnapshotFlow())
    assert not (tmp_path / "new").exists()
