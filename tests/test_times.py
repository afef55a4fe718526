"""Times in every form that users write them, in every place that takes one; and those that come out again."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from parts import ALL_SOLVERS

import cellflow as cf
from cellflow.cells.clock import as_times, distinct_times, one_time
from cellflow.cells.snapshots import leave_out
from cellflow.cli import cells as commands
from cellflow.integrate import Adaptive, Fixed, Jumps, Noisy
from conftest import make_cells

QUICK = {"time_key": "day", "rep": "X_pca", "batch_size": 8, "steps": 2, "device": "cpu"}
UNBALANCED = cf.couplings.UnbalancedSinkhorn(0.5, 5.0)


@pytest.fixture(scope="module")
def fitted():
    """Cells on days 0, 1 and 5, flows that can do everything: with growth and noise, or with jumps."""
    adata = make_cells(sizes=(12, 14, 16))
    adata.obs["kind"] = ["a", "b"] * (adata.n_obs // 2)
    bridge = {"path": cf.paths.BrownianBridge(0.3), "stochastic": True}
    flow = cf.SnapshotFlow(**QUICK, **bridge, growth=True, coupling=UNBALANCED).fit(adata)
    return (
        adata,
        flow,
        cf.SnapshotFlow(**QUICK, coupling="exact")
        .fit(leave_out(adata, "day", 1))
        .distill(adata[adata.obs.day != 1], steps=2),
    )


ONE = {
    "number": 1.0,
    "whole number": 1,
    "string": "1",
    "float32": np.float32(1),
    "float16": np.float16(1),
    "int8": np.int8(1),
    "array without axes": np.array(1.0),
    "string without axes": np.array("1"),
    "tensor": torch.tensor(1.0),
    "whole tensor": torch.tensor(1),
    "tensor with a gradient": torch.tensor(1.0, requires_grad=True),
    "bfloat16 tensor": torch.tensor(1.0).bfloat16(),
    "Timedelta": pd.Timedelta(days=1),
    "timedelta64": np.timedelta64(24, "h"),
    "timedelta": dt.timedelta(hours=24),
}
SEVERAL = {
    "list": [1.0, 4.0],
    "tuple": (1, 4),
    "strings": ["1", "4"],
    "mixed": [np.float32(1), torch.tensor(4)],
    "array": np.array([1.0, 4.0]),
    "float32 array": np.array([1, 4], np.float32),
    "object array": np.array(["1", 4], object),
    "tensor": torch.tensor([1.0, 4.0]),
    "series": pd.Series([1, 4], index=["b", "a"]),
    "category": pd.Series(["1", "4"], dtype="category"),
    "index": pd.Index([1, 4]),
    "Timedeltas": [pd.Timedelta(days=1), pd.Timedelta(days=4)],
    "Timedelta column": pd.Series(pd.to_timedelta([1, 4], unit="D")),
    "range": range(1, 5, 3),
}


def cells_on(adata, day):
    return (adata.obs["day"] == day).to_numpy()


def states(adata):
    return adata.obsm["X_pca"][cells_on(adata, 0)][:4]


def written(adata, tool, *args, key, **given):
    found = tool(adata, *args, copy=True, **given)
    return found.obs[key] if key in found.obs else found.obsm[key] if key in found.obsm else found.uns[key]


PLACES = {
    "interpolate at": lambda a, flow, _, t: cf.tl.interpolate(a, flow, at=t).obsm["X_pca"],
    "validate times": lambda a, _, plain, t: written(
        a, cf.tl.validate, plain, times=t, keep_aside=False, key="validation"
    )["W1"],
    "push at": lambda a, flow, _, t: written(a, cf.tl.push, flow, cells=cells_on(a, 0), at=t, key="push"),
    "pull at": lambda a, flow, _, t: written(a, cf.tl.pull, flow, cells=cells_on(a, 5), at=t, key="pull"),
    "fate at": lambda a, flow, _, t: written(
        a, cf.tl.fate, flow, groupby="kind", at=t, cells=cells_on(a, 0), n_samples=2, key="fate"
    ),
    "trajectories stop": lambda a, flow, _, t: written(a, cf.tl.trajectories, flow, stop=t, n=3, key="trajectories")[
        "x"
    ],
    "transport start": lambda a, flow, _, t: flow.transport(states(a), start=t, stop=5).x,
    "transport stop": lambda a, flow, _, t: flow.transport(states(a), start=0, stop=t).x,
    "jump stop": lambda a, _, plain, t: plain.transport(states(a), start=0, stop=t, solver=Jumps(1)).x,
    "simulate start": lambda a, flow, _, t: flow.simulate(states(a), start=t, stop=5).x,
    "simulate stop": lambda a, flow, _, t: flow.simulate(states(a), start=0, stop=t).x,
    "grow start": lambda a, flow, _, t: flow.grow(states(a), start=t, stop=5).x,
    "grow stop": lambda a, flow, _, t: flow.grow(states(a), start=0, stop=t).x,
    "velocity time": lambda a, flow, _, t: flow.velocity(states(a), t),
    "growth_rate time": lambda a, flow, _, t: flow.growth_rate(states(a), t),
    "leave_out times": lambda a, flow, _, t: leave_out(a, "day", t).obsm["X_pca"],
}
ONE_ONLY = ["push at", "pull at", "fate at", "trajectories stop"]
DISTINCT = ["interpolate at", "validate times", "leave_out times"]
each_place = pytest.mark.parametrize("place", PLACES)


@each_place
def test_one_time_is_read_in_every_form(fitted, place):
    expected = np.asarray(PLACES[place](*fitted, 1.0))
    for form, time in ONE.items():
        np.testing.assert_array_equal(np.asarray(PLACES[place](*fitted, time)), expected, err_msg=form)


@each_place
@pytest.mark.parametrize(
    "time", [float("nan"), "nan", np.inf, "first", True, 1j, pd.Timestamp("2020"), [[1.0]]], ids=repr
)
def test_what_is_no_time_is_refused(fitted, place, time):
    with pytest.raises(ValueError, match=r"finite time|not numbers|not a length of time|one time or a list"):
        PLACES[place](*fitted, time)


@pytest.mark.parametrize("place", ONE_ONLY)
@pytest.mark.parametrize("times", [[0.0, 1.0], [], np.array([1.0, 5.0])], ids=repr)
def test_where_one_time_is_asked_for_several_are_refused(fitted, place, times):
    with pytest.raises(ValueError, match=r"Expected one time in `(at|stop)`; found [02]"):
        PLACES[place](*fitted, times)


@pytest.mark.parametrize("place", DISTINCT)
@pytest.mark.parametrize("times", [[1, 1.0], ["1", 1], np.array([1.0, 5.0, 1.0])], ids=repr)
def test_a_time_is_named_once(fitted, place, times):
    with pytest.raises(ValueError, match=r"Expected each time once in .*; 1 occurs twice"):
        PLACES[place](*fitted, times)


@pytest.mark.parametrize("place", ["interpolate at", "validate times"])
@pytest.mark.parametrize("times", [[], (), np.array([])], ids=repr)
def test_at_least_one_time_is_named(fitted, place, times):
    with pytest.raises(ValueError, match="at least one time"):
        PLACES[place](*fitted, times)


@pytest.mark.parametrize("form", [*SEVERAL, "generator"])
def test_several_times_are_read_in_every_form(fitted, form):
    adata, flow, _ = fitted
    times = SEVERAL[form] if form != "generator" else (time for time in ("1", "4"))
    assert cf.tl.interpolate(adata, flow, at=times).obs["day"].unique().tolist() == [1.0, 4.0]


@pytest.mark.parametrize("form", ["array", "float32 array", "list", "strings", "tensor", "series", "Timedeltas"])
@pytest.mark.parametrize("place", [name for name in PLACES if name.split()[1] in ("start", "stop", "time")][1:])
def test_one_time_for_each_state_is_read_in_every_form(fitted, place, form):
    """Four states, the first two and the last two at the same time."""
    times = {
        "array": np.array([1.0, 1.0, 4.0, 4.0]),
        "float32 array": np.array([1, 1, 4, 4], np.float32),
        "list": [1, 1, 4, 4],
        "strings": ["1", "1", "4", "4"],
        "tensor": torch.tensor([1, 1, 4, 4]),
        "series": pd.Series([1, 1, 4, 4], index=list("abcd")),
        "Timedeltas": pd.to_timedelta([1, 1, 4, 4], unit="D"),
    }
    found = PLACES[place](*fitted, times[form])
    np.testing.assert_array_equal(np.asarray(found), np.asarray(PLACES[place](*fitted, times["array"])))


def test_a_string_is_one_time_and_not_its_digits(fitted):
    adata, flow, _ = fitted
    with pytest.raises(ValueError, match="Time 12 is outside"):
        cf.tl.interpolate(adata, flow, at="12")
    assert as_times("12", what="`at`").shape == ()
    assert one_time(["12"], what="`at`") == 12.0
    assert distinct_times("12", what="`at`").tolist() == [12.0]
    assert distinct_times([], what="`at`", none=True).size == 0


@pytest.mark.parametrize(
    ("given", "expected"), [(12, [12.0]), ("12", [12.0]), ([1, 2], [1.0, 2.0]), (["12", 3], [12.0, 3.0])], ids=repr
)
def test_the_command_line_reads_times_alike(given, expected):
    assert commands._times(OmegaConf.create({"at": given}).at, "at") == expected
    with pytest.raises(ValueError, match="`at`; 3 occurs twice"):
        commands._times(OmegaConf.create([3, "3"]), "at")
    with pytest.raises(ValueError, match="at least one time"):
        commands._times(OmegaConf.create([]), "at")
    assert commands._times(OmegaConf.create([]), "data.holdout", none=True) == []


# ---- times that come out ----

UNEVEN = (0.1, 0.7, 3.3)
"""None of them is a number in single precision, nor are they in model time."""


@pytest.fixture(scope="module")
def uneven():
    adata = make_cells(times=UNEVEN, sizes=(12, 14, 16))
    bridge = {"path": cf.paths.BrownianBridge(0.3), "stochastic": True}
    return (
        adata,
        cf.SnapshotFlow(**QUICK, **bridge, growth=True, coupling=UNBALANCED).fit(adata),
        cf.SnapshotFlow(**QUICK).fit(adata).distill(adata, steps=2),
    )


def carriers(flow, plain, solver):
    """Everything that carries states with a solver."""
    if isinstance(solver, Noisy):
        return [flow.simulate]
    return [plain.transport] if isinstance(solver, Jumps) else [plain.transport, flow.transport, flow.grow]


@pytest.mark.parametrize("solver", [*ALL_SOLVERS, Adaptive(), Jumps(1)], ids=repr)
@pytest.mark.parametrize("save", [2, 5])
@pytest.mark.parametrize(("start", "stop"), [(0.1, 3.3), (3.3, 0.1), (0.7, 3.0), (3.0, 3.0), (1 / 3, 2.9)])
def test_trajectories_come_back_at_the_users_times_to_the_bit(uneven, solver, save, start, stop):
    adata, flow, plain = uneven
    x = adata.obsm["X_pca"][:3]
    for carry in carriers(flow, plain, solver):
        t = carry(x, start=start, stop=stop, save=save, solver=solver).t
        assert (t.dtype, t.shape) == (torch.float64, (save,))
        assert (t[0].item(), t[-1].item()) == (start, stop)
        np.testing.assert_allclose(t.numpy(), np.linspace(start, stop, save), rtol=1e-15)


@pytest.mark.parametrize("solver", ALL_SOLVERS, ids=repr)
def test_so_do_those_of_states_with_clocks_of_their_own(uneven, solver):
    adata, flow, plain = uneven
    starts, stops = np.array([0.1, 0.7, 3.3]), np.array([3.0, 0.7, 1 / 3])
    for carry in carriers(flow, plain, solver):
        for start, stop in ((starts, stops), (starts, 3.0), (0.7, stops)):
            t = carry(adata.obsm["X_pca"][:3], start=start, stop=stop, save=4, solver=solver).t
            first, last = np.broadcast_to(start, 3), np.broadcast_to(stop, 3)
            assert (t.dtype, t.shape) == (torch.float64, (4, 3))
            assert (t[0].tolist(), t[-1].tolist()) == (first.tolist(), last.tolist())
            np.testing.assert_allclose(t.numpy(), np.linspace(first, last, 4), rtol=1e-15)


@pytest.mark.parametrize("solver", [Fixed(), Adaptive(), Jumps(2), Noisy(4)], ids=repr)
def test_kept_trajectories_hold_the_times_of_their_cells(uneven, solver):
    adata, flow, plain = uneven
    chosen = flow if isinstance(solver, Noisy) else plain
    found = cf.tl.trajectories(
        adata, chosen, cells=np.ones(adata.n_obs, bool), stop=3.0, n_times=4, solver=solver, copy=True
    ).uns["trajectories"]["time"]
    assert found.dtype == np.float64
    assert (found[0] == adata.obs["day"].to_numpy()).all()
    assert (found[-1] == 3.0).all()


@pytest.fixture(scope="module")
def labelled():
    """Cells whose days are written as "day 1"."""
    adata = make_cells(sizes=(12, 14, 16))
    adata.obs["day"] = pd.Categorical([f"day {day:g}" for day in adata.obs["day"].astype(float)])
    adata.obs["kind"] = ["a", "b"] * (adata.n_obs // 2)
    return adata, cf.SnapshotFlow(**QUICK).fit(adata)


def test_times_may_be_written_as_the_column_writes_them(labelled):
    adata, flow = labelled
    first = adata.obs["day"] == "day 0"
    assert sorted(set(cf.tl.interpolate(adata, flow, at=["day 2", 3]).obs["day"])) == [2.0, 3.0]
    found = cf.tl.push(adata, flow, cells=first, at="day 5", copy=True)
    assert found.uns["push"]["at"] == 5.0
    assert cf.tl.fate(adata, flow, groupby="kind", at="day 5", copy=True).uns["fate"]["at"] == 5.0
    assert cf.tl.trajectories(adata, flow, n=2, stop="day 4", copy=True).uns["trajectories"]["time"].max() == 4.0
    assert leave_out(adata, "day", ["day 1"]).n_obs == adata.n_obs - 14
    grown = cf.SnapshotFlow(**QUICK, growth=True, coupling=UNBALANCED, masses={"day 0": 1, "day 1": 2, "day 5": 3})
    assert grown.fit(adata).masses_ == (1.0, 2.0, 3.0)
    plans = {("day 0", "day 1"): np.ones((12, 14)), ("day 1", "day 5"): np.ones((14, 16))}
    cf.SnapshotFlow(**QUICK, coupling=cf.couplings.Given(plans)).fit(adata)


def test_times_in_another_unit_than_the_column_are_refused(labelled, fitted):
    adata, flow = labelled
    with pytest.raises(ValueError, match="'24h': not numbers, nor written as the time column is, such as 'day "):
        cf.tl.interpolate(adata, flow, at="24h")
    with pytest.raises(ValueError, match="'day 1': not numbers"):
        cf.tl.interpolate(*fitted[:2], at="day 1")
