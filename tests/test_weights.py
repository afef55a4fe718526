"""Weights of cells and expected growth: one mechanism for what the points of an interval weigh at both ends."""

import math
from dataclasses import dataclass

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scanpy as sc
import torch
from parts import ALL_COUPLINGS

import cellflow as cf
from cellflow.couplings import Exact, Independent, Sinkhorn, UnbalancedSinkhorn
from cellflow.errors import CheckpointError
from cellflow.pairing import snapshot_batches
from cellflow.pairing.masses import Ends, match
from conftest import make_cells

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")
QUICK = {"time_key": "day", "steps": 15, "batch_size": 16, "device": "cpu"}
KEEPING = {name: coupling for name, coupling in ALL_COUPLINGS.items() if coupling.keeps_mass}
N, M = 12, 7
COUNTS0, COUNTS1 = torch.arange(N) % 3 + 1, torch.arange(M) % 2 + 1


@pytest.fixture
def clouds(rng):
    return torch.randn(N, 2, generator=rng), torch.randn(M, 2, generator=rng) + 1


def merged(plan):
    """The mass between cells, where each cell stands as often as its weight says."""
    first, second = (torch.arange(len(c)).repeat_interleave(c) for c in (COUNTS0, COUNTS1))
    found = torch.zeros(N, M, dtype=torch.float64)
    return found.index_put_((first[:, None], second), plan.dense(), accumulate=True)


@pytest.mark.parametrize("masses", [None, (1.0, 1.0)])
@pytest.mark.parametrize("name", [name for name in ALL_COUPLINGS if name != "auto"])  # it counts neighbours
def test_a_cell_of_weight_two_is_two_cells(name, masses, clouds):
    """The plan of weighted cells is that of the repeated ones, and so is the growth of each."""
    x0, x1 = clouds
    repeated = x0.repeat_interleave(COUNTS0, 0), x1.repeat_interleave(COUNTS1, 0)
    plan, drawn = match(ALL_COUPLINGS[name], x0, x1, Ends(masses, COUNTS0, COUNTS1))
    twin, other = match(ALL_COUPLINGS[name], *repeated, Ends(masses))
    assert torch.allclose(plan.dense(), merged(twin), atol=1e-8)
    if masses is not None:
        first = COUNTS0.cumsum(0) - 1
        assert torch.allclose(drawn.source, other.source[first], atol=1e-6)
        drawn, other = drawn.drawn, other.drawn
    assert torch.allclose(drawn.dense(), merged(other), atol=1e-6)


@pytest.mark.parametrize("name", ALL_COUPLINGS)
def test_equal_weights_change_nothing(name, clouds):
    plain = match(ALL_COUPLINGS[name], *clouds)[0].dense()
    weighted = match(ALL_COUPLINGS[name], *clouds, Ends(None, torch.full((N,), 3.0), torch.full((M,), 0.1)))[0].dense()
    assert torch.allclose(plain, weighted, atol=1e-10)


@pytest.mark.parametrize("masses", [None, (1.0, 1.0)])
@pytest.mark.parametrize("name", ALL_COUPLINGS)
def test_a_cell_of_weight_zero_is_not_there(name, masses, clouds):
    x0, x1 = clouds
    w0, w1 = torch.ones(N), torch.ones(M)
    w0[:4], w1[-2:] = 0, 0
    plan, drawn = match(ALL_COUPLINGS[name], x0, x1, Ends(masses, w0, w1))
    rest = match(ALL_COUPLINGS[name], x0[4:], x1[:-2], Ends(masses))[0]
    assert torch.allclose(plan.dense()[4:, :-2], rest.dense(), atol=1e-8)
    assert plan.mass == pytest.approx(rest.mass)
    i, j, *logs = drawn.sample(200, generator=cf.generator(0))
    assert i.min() >= 4
    assert j.max() < M - 2
    assert all(torch.isfinite(log).all() for log in logs)


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("sizes", [(1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("name", KEEPING)
def test_a_plan_that_keeps_mass_grows_as_expected(name, sizes, weighed, clouds, rng):
    """Relative growth is the expected one to the digit, and the population has the sizes that it was said to have."""
    gain = torch.randn(N, generator=rng, dtype=torch.float64)
    shares = COUNTS0.double() / COUNTS0.sum() if weighed else torch.full((N,), 1 / N, dtype=torch.float64)
    ends = Ends(sizes, shares if weighed else None, None, gain)
    _, drawn = match(KEEPING[name], *clouds, ends)
    i, j, before, after = drawn.sample(20_000, generator=rng, replace=False)
    grown = shares @ gain.exp()
    expected = gain[i] - grown.log() + math.log(sizes[1] / sizes[0])
    assert torch.allclose(after - before, expected, atol=1e-6)
    assert before.exp().mean().item() == pytest.approx(sizes[0], rel=0.01)
    assert after.exp().mean().item() == pytest.approx(sizes[1], rel=0.01)
    start = torch.zeros(N, dtype=torch.float64).index_add_(0, i, before.exp()) / len(i)
    stop = torch.zeros(M, dtype=torch.float64).index_add_(0, j, after.exp()) / len(i)
    assert torch.allclose(start, shares * sizes[0], rtol=0.03)
    assert torch.allclose(stop, torch.full((M,), sizes[1] / M, dtype=torch.float64), rtol=0.03)


def test_what_was_expected_needs_no_crossing_and_what_was_not_does(rng):
    """Two groups, far apart, of which the second triples: 1 + 1 parts become 1 + 3."""
    x0 = torch.cat([torch.randn(40, 2, generator=rng), torch.randn(40, 2, generator=rng) + 20])
    x1 = torch.cat([torch.randn(30, 2, generator=rng), torch.randn(90, 2, generator=rng) + 20])
    gain = torch.log(torch.tensor([1.0, 3.0])).repeat_interleave(40)
    for coupling in (Exact(), Sinkhorn(1.0), UnbalancedSinkhorn(1.0, 50.0)):
        plain, expected = (
            match(coupling, x0, x1, Ends((1.0, 2.0) if coupling.keeps_mass else (1.0, 1.0), gain=prior))
            for prior in (None, gain)
        )
        crossed, stayed = (float(plan.dense()[:40, 30:].sum() / plan.mass) for plan, _ in (plain, expected))
        assert stayed < 1e-6
        if coupling.keeps_mass:
            assert crossed == pytest.approx(0.25, abs=1e-3)
        weighed = expected[1]
        grown = [float(weighed.target[to].mean() - weighed.source[here].mean()) for here, to in
                 ((slice(40), slice(30)), (slice(40, 80), slice(30, 120)))]  # fmt: skip
        assert grown[1] - grown[0] == pytest.approx(math.log(3), abs=0.01)


def test_an_unbalanced_plan_corrects_what_was_expected_wrongly(rng):
    """Told that nobody divides, told the truth, told too much: what the plan says of growth lies in between."""
    x0 = torch.cat([torch.randn(40, 2, generator=rng), torch.randn(40, 2, generator=rng) + 20])
    x1 = torch.cat([torch.randn(30, 2, generator=rng), torch.randn(90, 2, generator=rng) + 20])
    for told in (1.0, 3.0, 9.0):
        gain = torch.log(torch.tensor([1.0, told])).repeat_interleave(40)
        _, weighed = match(UnbalancedSinkhorn(1.0, 20.0), x0, x1, Ends((1.0, 1.0), gain=gain))
        grown = weighed.target[30:].mean() - weighed.source[40:].mean() - weighed.target[:30].mean()
        assert float(grown + weighed.source[:40].mean()) == pytest.approx(math.log(3), abs=0.1)


@pytest.mark.parametrize("coupling", [Exact(), Independent(), UnbalancedSinkhorn(1.0, 5.0)], ids=repr)
def test_parts_are_drawn_by_weight(coupling, rng):
    """Super-batches of few points: every point is used as often as its weight says, and grows as expected."""
    x0, x1 = torch.arange(60.0)[:, None], torch.arange(90.0)[:, None]
    w0, w1 = 1 + torch.arange(60.0) % 4, torch.ones(90)
    w0[7] = 0
    rates = [torch.linspace(-1, 1, 60).double(), torch.zeros(90)]
    settings = {"coupling": coupling, "ot_batch_size": 20, "batch_size": 480, "weights": [w0, w1]}
    for more in ({}, {"masses": (1.0, 1.0)}, {"masses": (1.0, 1.0), "rates": rates}):
        stream = snapshot_batches([x0, x1], [0, 1], generator=cf.generator(1), **settings, **more).iterate(0)
        taken = [next(stream) for _ in range(80)]
        stream.close()
        first = torch.cat([batch.x0[:, 0] for batch in taken]).long()
        mass = torch.ones(len(first)) if not more else torch.cat([batch.log_mass0.exp() for batch in taken])
        found = torch.zeros(5).index_add_(0, w0[first].long(), mass)
        if more or coupling.keeps_mass:
            expected = torch.zeros(5).index_add_(0, w0.long(), w0)
            assert torch.allclose(found / found.sum(), expected / expected.sum(), atol=0.02)
        assert (first != 7).all()
        if "rates" in more and coupling.keeps_mass:
            gain = torch.cat([batch.log_mass1 - batch.log_mass0 for batch in taken])
            assert np.corrcoef(gain, rates[0][first])[0, 1] > 0.97


def test_rates_are_per_model_time_and_each_interval_has_its_own():
    x, pace = torch.arange(6.0)[:, None], torch.linspace(-1, 1, 6)
    batches = snapshot_batches(
        [x] * 3, [0.0, 0.25, 1.0], masses=[1.0] * 3, rates=[pace] * 3, batch_size=500, generator=cf.generator(0)
    )
    batch, centre = next(iter(batches)), 0.0
    for interval, duration in ((slice(500), 0.25), (slice(500, 1000), 0.75)):
        gain = (batch.log_mass1 - batch.log_mass0)[interval]
        centre = torch.log((pace * duration).exp().mean())
        assert torch.allclose(gain, duration * pace[batch.x0[interval, 0].long()] - centre, atol=1e-4)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"weights": [torch.ones(3), torch.ones(4)]},
            r"a number in `weights` for each point, \[3, 3\]; found \[3, 4\]",
        ),
        ({"weights": [torch.ones(3), torch.zeros(3)]}, "not all 0 in a snapshot"),
        ({"weights": [torch.ones(3), -torch.ones(3)]}, "not negative"),
        ({"weights": [torch.ones(3), torch.full((3,), torch.nan)]}, "finite `weights`"),
        ({"rates": [torch.ones(3)] * 2}, "Pass `masses` as well"),
        ({"rates": [torch.ones(3), torch.full((3,), torch.inf)], "masses": (1, 1)}, "finite `rates`"),
    ],
)
def test_unusable_numbers_are_named(changed, words, rng):
    with pytest.raises(ValueError, match=words):
        snapshot_batches([torch.zeros(3, 1)] * 2, [0, 1], generator=rng, **changed)


def weighted_cells(**settings):
    """Cells of which those above the middle are sampled four times as often as they are in the population."""
    adata = make_cells(**settings)
    high = adata.obsm["X_pca"][:, 1] > 0
    adata.obs["w"] = np.where(high, 1, 4)
    adata.obs["rate"] = np.where(high, 0.5, -0.5)
    return adata


@dataclass(frozen=True)
class Case:
    column: np.ndarray | list | None
    error: type
    words: str


CASES = [
    Case(None, KeyError, "No `adata.obs.'w'.`. Available: .'day', 'rate'.. Set `weight_key`"),
    Case([-1.0, *[1.0] * 149], ValueError, "1 of 150 weights in `adata.obs.'w'.` are negative"),
    Case([np.nan, *[1.0] * 149], ValueError, "1 of 150 cells have no finite number in `adata.obs.'w'.`"),
    Case(["many"] * 150, ValueError, "Expected numbers in `adata.obs.'w'.`.*found 'many' at 150 cells"),
    Case([0.0] * 150, ValueError, "All cells at time 0, 1, 5 have weight 0 in `adata.obs.'w'.`"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.words[:30])
def test_unusable_columns_are_named(case):
    adata = weighted_cells()
    del adata.obs["w"]
    if case.column is not None:
        adata.obs["w"] = case.column
    with pytest.raises(case.error, match=case.words):
        cf.SnapshotFlow(**QUICK, weight_key="w").fit(adata)


@pytest.mark.parametrize("column", ["rates", "w"])
def test_an_expectation_needs_growth_and_a_column(column):
    adata = weighted_cells()
    with pytest.raises(ValueError, match="`prior_key` is used with growth only. Set `growth=True`"):
        cf.SnapshotFlow(**QUICK, coupling="exact", prior_key=column).fit(adata)
    if column == "rates":
        with pytest.raises(KeyError, match="Set `prior_key`"):
            cf.SnapshotFlow(**QUICK, prior_key=column).fit(adata)


@pytest.mark.parametrize("coupling", ["exact", "independent", UnbalancedSinkhorn(1.0, 100.0)], ids=repr)
def test_a_flow_with_expectations_is_saved_and_resumed(coupling, tmp_path):
    """Sizes of the snapshots differ by a hundred."""
    adata = weighted_cells(sizes=(300, 3, 40))
    settings = QUICK | {
        "coupling": coupling,
        "weight_key": "w",
        "prior_key": "rate",
        "growth": True,
        "masses": "counts",
    }
    flow = cf.SnapshotFlow(**settings).fit(adata, run=cf.Run(tmp_path / "state"))
    again = cf.SnapshotFlow(**settings).fit(adata, run=cf.Run(tmp_path / "state", resume=True))
    for other in (adata, adata.copy()):
        assert flow.score(other) == again.score(other)
    flow.save(tmp_path / "model")
    back = cf.SnapshotFlow.load(tmp_path / "model", device="cpu")
    assert (back.weight_key, back.prior_key) == ("w", "rate")
    assert back.score(adata) == flow.score(adata)
    for key in ("weight_key", "prior_key"):
        with pytest.raises(CheckpointError, match=f"{key}|cells"):
            cf.SnapshotFlow(**settings | {key: None}).fit(adata, run=cf.Run(tmp_path / "state", resume=True))
    adata.obs["w"] += 1
    with pytest.raises(CheckpointError, match="cells"):
        cf.SnapshotFlow(**settings).fit(adata, run=cf.Run(tmp_path / "state", resume=True))


@pytest.mark.parametrize("teacher", [True, False])
def test_a_map_of_a_flow_with_expectations_is_distilled(teacher):
    adata = weighted_cells()
    flow = cf.SnapshotFlow(**QUICK, weight_key="w", prior_key="rate").fit(adata)
    objective = "trajectories" if teacher else "semigroup"
    flow.distill(adata, steps=5, teacher=teacher, objective=objective)
    found = flow.transport(adata.obsm["X_pca"][:5], start=0, stop=1, solver=cf.integrate.Jumps(1))
    assert torch.isfinite(found.x).all()
    assert torch.isfinite(found.log_weight).all()


def test_counts_are_sums_of_weights():
    adata = weighted_cells()
    flow = cf.SnapshotFlow(**QUICK, growth=True, masses="counts", weight_key="w").fit(adata)
    total = adata.obs.groupby("day")["w"].sum()
    assert flow.masses_ == pytest.approx(tuple(total / total.iloc[0]))


def test_snapshots_stand_for_the_weighted_population_in_every_tool():
    adata = weighted_cells()
    flow = cf.SnapshotFlow(**QUICK, weight_key="w").fit(adata)
    states = flow.read(adata, adata.obs["day"] == 1)
    share = states.weight / states.weight.sum()
    middle = cf.tl.interpolate(adata, flow, at=1.0)
    assert middle.obs["weight"].to_numpy() == pytest.approx(share)
    adata.obs["high"] = adata.obsm["X_pca"][:, 1] > 0
    cf.tl.push(adata, flow, cells=adata.obs["day"] == 1, at=1, groupby="high", n_neighbors=1)
    groups = adata.uns["push"]["groups"]
    expected = [share[adata.obs["high"][adata.obs["day"] == 1] == high].sum() for high in (False, True)]
    assert groups["share"].tolist() == pytest.approx(expected)
    assert groups["mass"].tolist() == pytest.approx(expected)


def test_observed_cells_are_drawn_by_weight():
    adata = weighted_cells()
    draw = np.random.default_rng(0)
    adata = anndata.AnnData(draw.normal(size=(150, 4)).astype(np.float32), obs=adata.obs, obsm=dict(adata.obsm))
    sc.pp.pca(adata, n_comps=3)
    flow = cf.SnapshotFlow(**QUICK, weight_key="w").fit(adata)
    predicted = cf.tl.interpolate(adata, flow, at=1.0, genes=True)
    observed = cf.pl.interpolation(adata, predicted).axes[0].collections[-1]
    here = (adata.obs["day"] == 1).to_numpy()
    area, weight = observed.get_sizes(), adata.obs["w"][here].to_numpy()
    assert area / area.mean() == pytest.approx(weight / weight.mean())
    panel = cf.pl.genes(adata, predicted, genes="1").axes[0]
    means = [line.get_ydata()[0] for line in panel.lines if line.get_marker() == "o"]
    assert means[1] == pytest.approx(np.average(adata.X[here, 1], weights=weight))
    plt.close("all")


def test_trajectories_are_drawn_by_weight():
    adata = weighted_cells(sizes=(400, 30, 30))
    flow = cf.SnapshotFlow(**QUICK, weight_key="w").fit(adata)
    cf.tl.trajectories(adata, flow, n=100)
    followed = adata.obs.loc[adata.uns["trajectories"]["origin"], "w"]
    assert len(followed) == 100
    first = adata.obs.loc[adata.obs["day"] == 0, "w"]
    assert (followed == 4).mean() == pytest.approx(first[first == 4].sum() / first.sum(), abs=0.1)


def test_a_score_is_that_of_repeated_cells():
    adata = weighted_cells()
    flow = cf.SnapshotFlow(**QUICK, weight_key="w").fit(adata)
    rows = np.repeat(np.arange(adata.n_obs), adata.obs["w"])
    obs = adata.obs.iloc[rows].set_axis([f"copy{k}" for k in range(len(rows))])
    repeated = anndata.AnnData(obs=obs, obsm={"X_pca": adata.obsm["X_pca"][rows]})
    assert flow.score(repeated) != pytest.approx(flow.score(adata), rel=1e-4)
    repeated.obs["w"] = 1
    assert flow.score(repeated) == pytest.approx(flow.score(adata), rel=1e-5)


OF_SINGLE_CELLS = {
    "velocity": lambda a, flow: cf.tl.velocity(a, flow, copy=True).obsm["velocity"],
    "growth": lambda a, flow: cf.tl.growth(a, flow, sensitivity=False, copy=True).obs["growth"],
    "fate": lambda a, flow: cf.tl.fate(a, flow, groupby="high", copy=True).obsm["fate"],
    "trajectories": lambda a, flow: cf.tl.trajectories(a, flow, cells=["cell0", "cell7"], copy=True).uns[
        "trajectories"
    ]["x"],
    "read": lambda a, flow: flow.read(a, weights=False).x,
}
OF_THE_POPULATION = {
    "interpolate": lambda a, flow: cf.tl.interpolate(a, flow, at=0.5),
    "push": lambda a, flow: cf.tl.push(a, flow, cells=a.obs["day"] == 0, at=5),
    "pull": lambda a, flow: cf.tl.pull(a, flow, cells=a.obs["day"] == 5, at=0),
    "trajectories of some": lambda a, flow: cf.tl.trajectories(a, flow, n=3),
    "validate": lambda a, flow: cf.tl.validate(a, flow, keep_aside=False),
    "score": lambda a, flow: flow.score(a),
    "read": lambda a, flow: flow.read(a),
}


@pytest.fixture(scope="module")
def weighing():
    adata = weighted_cells()
    adata.obs["high"] = adata.obsm["X_pca"][:, 1] > 0
    coupling = UnbalancedSinkhorn(1.0, 100.0)
    return adata, cf.SnapshotFlow(**QUICK, weight_key="w", growth=True, coupling=coupling).fit(adata)


@pytest.mark.parametrize("tool", OF_SINGLE_CELLS)
def test_what_depends_on_single_cells_needs_no_weights(weighing, tool):
    adata, flow = weighing
    without = adata.copy()
    del without.obs["w"]
    expected, found = (np.asarray(OF_SINGLE_CELLS[tool](cells, flow)) for cells in (adata, without))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("tool", OF_THE_POPULATION)
def test_what_stands_for_the_population_needs_weights(weighing, tool):
    adata, flow = weighing
    without = adata.copy()
    del without.obs["w"]
    with pytest.raises(KeyError, match=r"No `adata.obs\['w'\]`.*Set `weight_key`"):
        OF_THE_POPULATION[tool](without, flow)
