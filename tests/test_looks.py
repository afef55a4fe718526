"""How cells look in plots: the same arguments everywhere, small multiples, names on data, streams where cells are."""

import inspect
from dataclasses import fields
from itertools import combinations

import anndata
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from matplotlib.text import Text

import cellflow as cf
from cellflow.pl.canvas import GREY, PALETTE
from cellflow.pl.look import Look, look_of
from cellflow.pl.marks import wrapped
from cellflow.pl.streams import on_grid

LONG = "progenitors of the lateral plate mesoderm at the posterior end of the primitive streak"


def snapshots(n=30, days=(0.0, 1.0, 3.0)):
    """Make cells that walk, with what the tools write, but for any flow."""
    rng = np.random.default_rng(0)
    day = np.repeat(days, n)
    x = rng.normal(size=(len(day), 3)) * 0.3
    x[:, 0] += day
    obs = pd.DataFrame(
        {"day": day, "kind": np.where(x[:, 1] > 0, "$a_1", LONG)}, index=[f"c{k}" for k in range(len(day))]
    )
    obs["growth"] = x[:, 0]
    x = x.astype(np.float32)
    expression = np.stack([np.arange(len(day)), day], axis=1)
    adata = anndata.AnnData(expression, obs=obs, var=pd.DataFrame(index=["MYOG", "ID1"]), obsm={"X_rep": x})
    adata.layers["twice"] = 2 * expression
    adata.raw = anndata.AnnData(3 * expression, obs=obs, var=adata.var)
    about = {"rep": "X_rep", "time_key": "day", "unit": "days"}
    adata.obsm["velocity"] = np.tile([1.0, 0.2, 0.0], (len(day), 1))
    adata.uns |= {"velocity": about, "growth": about}
    early = x[day == days[0]]
    course = np.stack([early + np.array([s, 0, 0]) for s in np.linspace(0, days[-1], 7)])
    origin = adata.obs_names[day == days[0]].to_numpy(dtype=str)
    times = np.repeat(np.linspace(0, days[-1], 7)[:, None], len(early), axis=1)
    adata.uns["trajectories"] = {"x": course, "time": times, "origin": origin, **about}
    shares = rng.dirichlet(np.ones(3), size=len(day))
    shares[day == days[-1]] = np.nan
    adata.obsm["fate"] = pd.DataFrame(shares, index=adata.obs_names, columns=["A", "B", "C"])
    adata.uns["fate"] = {"at": days[-1], "groupby": "kind", "kind": "simulation", **about}
    return adata


@pytest.fixture
def adata():
    return snapshots()


def blank():
    return Figure(figsize=(9, 7), layout="constrained")


PANELLED = {
    "cells": lambda adata, **given: cf.pl.cells(adata, time_key="day", **given),
    "velocity": cf.pl.velocity,
    "trajectories": cf.pl.trajectories,
    "simplex": lambda adata, **given: cf.pl.fate(adata, kind="simplex", **given),
}
"""Plots of cells that take `color` and `by`."""
LOOKED = PANELLED | {
    "fate": cf.pl.fate,
    "bars": lambda adata, **given: cf.pl.fate(adata, kind="bars", **given),
    "growth": cf.pl.growth,
    "movie": lambda adata, **given: cf.pl.movie(adata, path="never.gif", n=0, **given),
}
"""Plots that take a `Look`."""


def dots(ax):
    return [c for c in ax.collections if isinstance(c, PathCollection) and len(c.get_offsets())]


def drawn(plot, adata, **given):
    figure = blank()
    PANELLED[plot](adata, figure=figure, **given)
    figure.draw_without_rendering()
    return figure


# --- the same arguments everywhere ---


def test_cells_name_every_argument_of_a_look():
    parameters = inspect.signature(cf.pl.cells).parameters
    assert {f.name: f.default for f in fields(Look)} == {f.name: parameters[f.name].default for f in fields(Look)}


WRONG = [
    ({"alpha": 2.0}, "alpha"), ({"size": 0.0}, "size"), ({"cmap": "virids"}, "viridis"), ({"vmax": "99"}, "p99"),
    ({"vmin": "p101"}, "percentile"), ({"palette": "tab21"}, "tab20"), ({"palette": ["#zz"]}, "palette"),
    ({"palette": []}, "palette"), ({"na_color": "gray70%"}, "na_color"), ({"ncols": 0}, "ncols"),
    ({"legend_loc": "on dat"}, "on data"), ({"layer": "twice", "use_raw": True}, "use_raw"),
    ({"vmax": float("nan")}, "finite"),
]  # fmt: skip


@pytest.mark.parametrize("plot", sorted(set(LOOKED) - {"movie"}))
def test_what_is_not_possible_is_refused_alike(adata, plot):
    for given, said in WRONG:
        with pytest.raises(ValueError, match=said):
            LOOKED[plot](adata, figure=blank(), **given)
    with pytest.raises(TypeError, match="a number"):
        LOOKED[plot](adata, figure=blank(), alpha="much")


@pytest.mark.parametrize("plot", sorted(set(LOOKED) - {"cells", "movie"}))
def test_unknown_arguments_name_close_ones(adata, plot):
    with pytest.raises(TypeError, match=r"no argument 'pallete'. Did you mean palette\?"):
        LOOKED[plot](adata, pallete="tab20")


@pytest.mark.parametrize("plot", PANELLED)
def test_genes_come_from_x_a_layer_or_raw(adata, plot):
    seen = ~adata.obsm["fate"].isna().any(axis=1).to_numpy() if plot == "simplex" else np.ones(adata.n_obs, bool)
    for given, factor in (({}, 1), ({"layer": "twice"}, 2), ({"use_raw": True}, 3)):
        ax = drawn(plot, adata, color="MYOG", **given).axes[0]
        values = next(np.asarray(c.get_array()) for c in dots(ax) if c.get_array() is not None)
        np.testing.assert_allclose(values, factor * np.flatnonzero(seen))  # in order: the highest on top
    with pytest.raises(KeyError, match="twice"):
        drawn(plot, adata, color="MYOG", layer="thrice")
    with pytest.raises(KeyError, match="MYOG"):
        drawn(plot, adata, color="MYOD")


@pytest.mark.parametrize("plot", PANELLED)
def test_a_list_of_colours_is_a_panel_each(adata, plot):
    figure = drawn(plot, adata, color=["kind", "MYOG", "day"], vmax="p50")
    titles = [ax.get_title() for ax in figure.axes if ax.get_title().strip()]
    assert titles[0] == "kind"
    assert titles[1] == "MYOG"
    if plot != "simplex":
        with pytest.raises(ValueError, match="One `ax` holds one panel; there are 2"):
            PANELLED[plot](adata, color=["kind", "MYOG"], ax=blank().subplots())


@pytest.mark.parametrize("plot", PANELLED)
def test_small_multiples_show_the_cells_of_each_snapshot_over_all(adata, plot):
    figure = drawn(plot, adata, by="time", color="kind")
    titled = [ax for ax in figure.axes if ax.get_title().strip()]
    assert [ax.get_title() for ax in titled] == (
        ["day 0", "day 1", "day 3"] if plot == "cells" else ["0 days", "1 day", "3 days"][: len(titled)]
    )
    assert len(titled) >= 2
    limits = np.array([[ax.get_xlim(), ax.get_ylim()] for ax in titled])
    np.testing.assert_allclose(limits - limits[0], 0, atol=1e-6)
    if plot == "cells":
        for ax in titled:
            behind, *front = dots(ax)
            assert len(behind.get_offsets()) == 60
            assert sum(len(c.get_offsets()) for c in front) == 30


def test_small_multiples_by_group_refuse_what_is_none(adata):
    assert len(cf.pl.velocity(adata, by="kind", figure=blank()).axes) == 3  # two and a bar
    adata.obs["pseudotime"] = np.random.default_rng(0).normal(size=adata.n_obs)
    with pytest.raises(ValueError, match="no groups"):
        cf.pl.velocity(adata, by="pseudotime", figure=blank())
    adata.obs["each"] = [f"g{k % 40}" for k in range(adata.n_obs)]
    with pytest.raises(ValueError, match="40 panels"):
        cf.pl.velocity(adata, by="each", figure=blank())
    with pytest.raises(KeyError, match="nowhere"):
        cf.pl.velocity(adata, by="nowhere", figure=blank())


# --- colours ---


def test_percentiles_end_the_scale_and_missing_numbers_are_grey(adata):
    adata.obs["score"] = np.arange(adata.n_obs, dtype=float)
    adata.obs.iloc[:5, adata.obs.columns.get_loc("score")] = np.nan
    figure = drawn("cells", adata, color="score", vmin="p10", vmax="p90", sort_order=False)
    missing, known = dots(figure.axes[0])
    low, high = np.nanpercentile(adata.obs["score"], [10, 90])
    assert (known.norm.vmin, known.norm.vmax) == pytest.approx((low, high))
    np.testing.assert_allclose(missing.get_facecolor()[0][:3], to_rgba(GREY)[:3])
    assert len(missing.get_offsets()) == 5
    assert (np.diff(np.asarray(known.get_array())) < 0).any()  # not sorted


def test_palettes_come_from_the_call_then_the_file_then_us(adata):
    def colours(**given):
        return [to_hex(c.get_facecolor()[0]) for c in dots(drawn("cells", adata, color="kind", **given).axes[0])]

    assert colours() == [PALETTE[0].lower(), PALETTE[1].lower()]
    adata.uns["kind_colors"] = ["#112233", "#445566"]
    assert colours() == ["#112233", "#445566"]
    assert colours(palette=["#000001", "#000002"]) == ["#000001", "#000002"]
    assert colours(palette={LONG: "#000009"}) == [to_hex(GREY), "#000009"]
    assert colours(palette="tab20")[0] == "#1f77b4"


def overlapping(texts):
    small = [Text.get_window_extent(text).shrunk(0.98, 0.9) for text in texts]
    return [(a, b) for (a, one), (b, other) in combinations(enumerate(small), 2) if one.overlaps(other)]


@pytest.mark.parametrize("plot", PANELLED)
def test_sixty_names_stand_on_the_data_or_in_the_legend_and_none_over_another(adata, plot):
    adata.obs["many"] = pd.Categorical([f"group_{k % 60}" for k in range(adata.n_obs)])
    figure = drawn(plot, adata, color="many", legend_loc="on data")
    ax = figure.axes[0]
    on = [text for text in ax.texts if text.get_text().startswith("group")]
    legends = [child for child in ax.get_children() if child.__class__.__name__ == "Legend"]
    listed = [text.get_text() for legend in legends for text in legend.get_texts() if "group" in text.get_text()]
    assert len(listed) in (0, 60)
    if not listed:
        assert len(on) == 60
    assert not overlapping(on)
    assert len(on) > 5


def test_long_names_and_dollars_are_shown_within_the_figure(adata):
    figure = cf.pl.cells(adata, color="kind").figure
    figure.draw_without_rendering()
    legend = next(a for a in figure.axes[0].get_children() if a.__class__.__name__ == "Legend")
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    assert legend.get_texts()[0].get_text() == r"\$a_1"
    assert legend.get_texts()[1].get_text() == wrapped(LONG)


# --- streams ---


def test_streams_leave_the_hole_between_clusters_empty():
    rng = np.random.default_rng(0)
    turn = rng.uniform(0, 2 * np.pi, 3000)
    ring = np.column_stack([np.cos(turn), np.sin(turn)]) * rng.uniform(0.8, 1.0, 3000)[:, None]
    for some in (ring, ring[:200]):
        gx, gy, mean = on_grid(some.astype(np.float32), np.column_stack([-some[:, 1], some[:, 0]]))
        radius = np.hypot(*np.meshgrid(gx, gy))
        assert np.isnan(mean[radius < 0.55]).all()
        assert np.isfinite(mean[(radius > 0.84) & (radius < 0.96)]).mean() > 0.9
        assert np.ptp(np.diff(gx)) < 1e-9  # streamplot asks for equal steps


def test_velocities_are_pale_where_confidence_is_low(adata):
    adata.obs["velocity_confidence"] = np.where(adata.obs["day"] == 0, 1.0, -0.5)
    for kind in ("stream", "grid", "cell"):
        ax = cf.pl.velocity(adata, kind=kind, ax=blank().subplots())
        (strokes,) = [c for c in ax.collections if isinstance(c, LineCollection | Quiver)]
        assert np.min(strokes.get_array()) == pytest.approx(0.0, abs=1e-3)
        assert np.max(strokes.get_array()) > 0.9
        assert "confidence" in ax.get_xlabel()
    ax = cf.pl.velocity(adata, confidence=False, ax=blank().subplots())
    assert "confidence" not in ax.get_xlabel()


def test_snapshots_of_three_cells_are_drawn():
    adata = snapshots(n=3)
    for plot in PANELLED:
        drawn(plot, adata, by="time", color="kind", legend_loc="on data")
    cf.pl.growth(adata, groupby="kind", figure=blank())


def test_the_basis_is_a_umap_if_there_is_one(adata):
    assert cf.pl.velocity(adata, ax=blank().subplots()).get_xlabel() == "rep 1"
    adata.obsm["X_umap"] = adata.obsm["X_rep"][:, 1:].copy()
    assert cf.pl.velocity(adata, ax=blank().subplots()).get_xlabel() == "UMAP 1"
    adata.obsm["X_umap"][3] = np.nan
    for plot in ("cells", "velocity", "trajectories"):
        with pytest.raises(ValueError, match="1 of 90 cells have NaN or infinite values in 'X_umap'"):
            drawn(plot, adata)


def tables(adata):
    """Cells with what was predicted of them, and the scores of a validation."""
    predicted = adata[adata.obs["day"] == 1].copy()
    predicted.obs["weight"] = 1.0
    predicted.uns["interpolation"] = {"rep": "X_rep", "time_key": "day", "unit": "days", "weight": "weight"}
    rows = {"time": 1.0, "method": ["flow", "previous snapshot"], "W1": [1.0, 2.0], "n_cells": 9}
    adata.uns["validation"] = pd.DataFrame(rows)
    return predicted


def panels_of(plot):
    """A plot of tables: its figure for further arguments."""

    def draw(adata, **given):
        if plot == "validation":
            return cf.pl.validation(adata, time_key="day", ax=blank().subplots(), **given).figure
        more = {"genes": ["MYOG", "ID1"]} if plot == "genes" else {"basis": "rep"}
        return getattr(cf.pl, plot)(adata, tables(adata), figure=blank(), **more, **given)

    return draw


TABLED = {name: panels_of(name) for name in ("interpolation", "genes", "validation")}
"""Plots that take those arguments of a look which change something in them."""
OF_CELLS = {"size", "alpha", "na_color", "frameon"}
TAKEN = {
    "interpolation": {"palette", "legend_loc", "title", *OF_CELLS},
    "genes": {"palette", "legend_loc", "title", "layer", "use_raw", "ncols"},
    "validation": {"palette", "legend_loc", "title"},
}


@pytest.mark.parametrize("plot", TABLED)
def test_plots_of_tables_take_what_changes_something_and_refuse_the_rest(adata, plot):
    tables(adata)
    for given, said in WRONG:
        expected = (ValueError, said) if given.keys() <= TAKEN[plot] else (TypeError, "has no argument")
        with pytest.raises(expected[0], match=expected[1]):
            TABLED[plot](adata, **given)
    for name in {field.name for field in fields(Look)} - TAKEN[plot]:
        with pytest.raises(TypeError, match=f"no argument '{name}'"):
            TABLED[plot](adata, **{name: getattr(Look(), name)})
    with pytest.raises(TypeError, match=r"no argument 'pallete'. Did you mean palette\?"):
        TABLED[plot](adata, pallete="tab20")
    with pytest.raises(ValueError, match="for each of"):
        TABLED[plot](adata, palette=["red"])
    with pytest.raises(ValueError, match="Unknown name in `palette`"):
        TABLED[plot](adata, palette={"nothing": "red"})


def colours_in(figure):
    marks = [mark for ax in figure.axes for mark in dots(ax)]
    found = {to_hex(c) for mark in marks for c in (*mark.get_facecolor(), *mark.get_edgecolor())}
    return found | {to_hex(line.get_color()) for ax in figure.axes for line in ax.lines}


@pytest.mark.parametrize("plot", TABLED)
def test_plots_of_tables_have_the_colours_titles_and_keys_asked_for(adata, plot):
    tables(adata)
    asked = ["#123456", "#654321"]
    assert not colours_in(TABLED[plot](adata)) & {*asked}
    assert colours_in(TABLED[plot](adata, palette=asked)) >= {*asked}
    first, *others = TABLED[plot](adata, title=["$ one", "two"]).axes
    assert first.get_title() == r"\$ one"
    assert [ax.get_title() for ax in others[:1]] == ["two"][: len(others)]
    for given, n in (({}, 1), ({"legend_loc": "none"}, 0), ({"legend_loc": None}, 0)):
        figure = TABLED[plot](adata, **given)
        assert len([one for one in (*figure.legends, figure.axes[0].get_legend()) if one is not None]) == n


def test_observed_and_predicted_cells_have_the_size_asked_for_and_genes_their_layer(adata):
    figure = TABLED["interpolation"](adata, size=7.0, alpha=0.25, na_color="#0000ff", frameon=False)
    behind, *front = [mark for ax in figure.axes for mark in dots(ax)]
    np.testing.assert_allclose(front[0].get_sizes(), 7.0)
    np.testing.assert_allclose(behind.get_facecolor(), [(0.0, 0.0, 1.0, 0.25)])
    assert not figure.axes[0].axison
    places = ({}, {"layer": "twice"}, {"use_raw": True})
    means = [[line.get_ydata()[0] for line in TABLED["genes"](adata, **given).axes[0].lines[1:]] for given in places]
    np.testing.assert_allclose(means[1:], np.outer([2, 3], means[0]))
    one, two = TABLED["genes"](adata, ncols=1).axes
    assert one.get_position().x0 == pytest.approx(two.get_position().x0)


def test_looks_are_read_by_name():
    assert look_of("pl.velocity", {"cmap": "magma"}) == Look(cmap="magma")


# --- keys of figures, and names that say nothing ---


def words(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def test_marks_are_explained_in_the_figure(adata):
    assert {"median", "middle half", "all cells"} <= set(words(cf.pl.growth(adata, figure=blank())))
    assert "cells at 3 days, without a fate" in words(cf.pl.fate(adata, figure=blank()))
    assert "cells at 3 days, without a fate" not in words(cf.pl.fate(adata, figure=blank(), legend_loc=None))


@pytest.mark.parametrize("kind", ["cells", "bars", "simplex"])
def test_a_group_without_a_name_is_quoted(adata, kind):
    adata.obsm["fate"].columns = ["", "B", "C"]
    adata.uns["fate"]["groups"] = np.array(["", "B", "C"], dtype=object)
    assert '""' in words(cf.pl.fate(adata, kind=kind, figure=blank()))
    assert '""' not in words(cf.pl.velocity(adata, title="", ax=blank().subplots()).figure)


@pytest.mark.parametrize("k", [2, 3])
def test_cells_of_one_fate_do_not_hide_one_another(adata, k):
    shares = np.zeros((adata.n_obs, k))
    shares[:, 0] = np.repeat([0.9, 0.8], adata.n_obs // 2)
    shares[:, 1] = 1 - shares[:, 0]
    adata.obsm["fate"] = pd.DataFrame(shares, index=adata.obs_names, columns=list("ABC")[:k])
    one, two = (cf.pl.fate(adata, kind="simplex", figure=blank()).axes[0] for _ in range(2))
    cells = [next(c for c in dots(ax) if len(c.get_offsets()) == adata.n_obs) for ax in (one, two)]
    at = np.asarray(cells[0].get_offsets())
    np.testing.assert_array_equal(at, cells[1].get_offsets())
    assert len(np.unique(at.round(4), axis=0)) == adata.n_obs
    assert all(mark.get_zorder() < cells[0].get_zorder() for mark in dots(one) if len(mark.get_offsets()) == 1)


def test_the_label_of_a_map_of_few_genes_fits_its_figure():
    time, shape = np.array([0.0, 1.0]), (1, 3, 2)
    found = {name: np.arange(6.0).reshape(shape) for name in ("mean", "low", "high", "measured")}
    about = {"fates": ["a"], "genes": ["G1", "G2", "G3"], "time": time, "measured_time": time, "by": "fate"}
    cells = anndata.AnnData(np.zeros((2, 3)), uns={"trends": found | about})
    figure = cf.pl.trends_heatmap(cells)
    figure.draw_without_rendering()
    box = figure.axes[0].yaxis.label.get_window_extent()
    assert box.y0 >= 0
    assert box.y1 <= figure.bbox.y1


def test_long_names_of_few_bars_are_within_the_figure(adata):
    names = [f"{k} {LONG}" for k in range(6)]
    shares = np.full((adata.n_obs, 6), 1 / 6)
    adata.obsm["fate"] = pd.DataFrame(shares, index=adata.obs_names, columns=names)
    adata.uns["fate"]["groups"] = np.array(names, dtype=object)
    figure = cf.pl.fate(adata[adata.obs["day"] != 1], kind="bars")
    figure.draw_without_rendering()
    assert figure.axes[0].get_legend().get_window_extent().y0 >= 0
