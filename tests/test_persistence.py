"""Scores of where cells go: on one's own label, near one's own clone."""

import numpy as np
import pandas as pd
import pytest
import torch

from cellflow.couplings import DensePlan, Exact, Independent, SparsePlan, UnbalancedSinkhorn
from cellflow.metrics import clone_agreement, label_persistence, label_shares


def two_types(n, later, *, apart=100.0, seed=0):
    """Cells of two types far apart that do not move: counts ``n`` before, ``later`` after."""
    rng = np.random.default_rng(seed)

    def snapshot(counts):
        labels = np.repeat(["a", "b"], counts)
        x = rng.normal(size=(len(labels), 3)) + apart * (labels == "b")[:, None]
        return torch.from_numpy(x), labels

    return *snapshot(n), *snapshot(later)


@pytest.mark.parametrize("later", [(100, 300), (400, 1200), (1500, 500), (20, 2)])
def test_balanced_plans_carry_what_does_not_fit_across(later):
    """Nothing moves and nobody changes type, but shares do: a balanced plan carries their difference across."""
    x0, labels0, x1, labels1 = two_types((60, 60), later)
    moved = abs(0.5 - later[0] / sum(later))
    given = (labels0, x1, labels1)
    assert label_persistence(x0, *given, n_neighbors=2) == 1
    assert label_persistence(Exact()(x0, x1), *given, n_neighbors=2) == pytest.approx(1 - moved, abs=1e-6)
    free = UnbalancedSinkhorn(epsilon=5.0, relaxation=10.0)(x0, x1)
    assert label_persistence(free, *given, n_neighbors=2) > 0.999


def test_at_random_each_label_is_met_as_often_as_it_is_there():
    x0, labels0, x1, labels1 = two_types((30, 10), (100, 300))
    expected = 0.75 * 0.25 + 0.25 * 0.75
    assert label_persistence(Independent()(x0, x1), labels0, x1, labels1) == pytest.approx(expected, abs=1e-9)


def test_a_plan_and_its_pairs_score_the_same():
    """Whatever holds the plan; and pairs, one by one, weighted by their mass."""
    rng = torch.Generator().manual_seed(0)
    x1, masses = torch.randn(7, 2, generator=rng), torch.rand(5, 7, generator=rng).double()
    labels0, labels1 = list("ababa"), list("aabbaba")
    i, j = masses.nonzero().T
    pairs = label_persistence(x1[j], np.array(labels0)[i], x1, labels1, weights=masses[i, j], n_neighbors=3)
    for plan in (DensePlan(masses), SparsePlan(i, j, masses[i, j], shape=(5, 7))):
        assert label_persistence(plan, labels0, x1, labels1, n_neighbors=3) == pytest.approx(pairs)
        few = clone_agreement(plan, labels0, x1, labels1)
        each = clone_agreement(x1[j], np.array(labels0)[i], x1, labels1, weights=masses[i, j])
        assert torch.allclose(few, each)


def test_mass_weighs_and_cells_without_a_label_are_left_out():
    x1 = torch.tensor([[0.0], [0.1], [9.0]])
    x0, labels = torch.tensor([[0.0], [9.0], [0.0]]), pd.Series(["a", "a", None], dtype="category")
    assert label_persistence(x0, labels, x1, ["a", "a", "b"], weights=[3, 1, 50], n_neighbors=1) == 0.75
    assert label_persistence(x0, labels, x1, ["a", None, "b"], n_neighbors=2) == 0.5
    share, mass = label_shares(x0, labels, x1, ["a", "a", "b"], n_neighbors=1)
    assert share[:2].tolist() == [1, 0]
    assert mass.tolist() == [1, 1, 0]


def test_many_neighbours_see_the_whole_snapshot():
    x0, labels0, x1, labels1 = two_types((5, 5), (30, 10))
    assert label_persistence(x0, labels0, x1, labels1, n_neighbors=500) == pytest.approx(0.5)


def test_clones_that_stay_apart_are_told_apart_and_mixed_ones_are_not():
    rng = np.random.default_rng(0)
    clones = np.repeat(np.arange(40), 5)
    home = 50 * rng.normal(size=(40, 3))
    x0, x1 = (home[clones] + rng.normal(size=(200, 3)) for _ in range(2))
    assert clone_agreement(x0, clones, x1, clones).shape == (40,)
    assert clone_agreement(x0, clones, x1, clones).mean() > 0.99
    mixed = clone_agreement(x0[rng.permutation(200)], clones, x1, clones)
    assert float(mixed.mean()) == pytest.approx(0.5, abs=0.05)
    assert torch.allclose(clone_agreement(1e3 * x0, clones, 1e3 * x1, clones), clone_agreement(x0, clones, x1, clones))


def test_the_agreement_is_the_share_of_ordered_pairs():
    """Counted pair by pair, ties as halves; clones without sisters and cells without a clone do not count."""
    rng = np.random.default_rng(1)
    x0, x1 = rng.integers(0, 4, (9, 2)).astype(float), rng.integers(0, 4, (12, 2)).astype(float)
    before = np.array([*"aabbbcdd", None], dtype=object)
    after = np.array([*"aabbceeeef", None, None], dtype=object)
    weights = rng.random(9)
    distance = np.linalg.norm(x0[:, None] - x1[None], axis=2)
    expected = []
    for clone in "abc":
        own, others = distance[:, after == clone], distance[:, (after != clone) & (after != None)]  # noqa: E711
        pairs = own[:, :, None], others[:, None]
        nearer = ((pairs[0] < pairs[1]) + 0.5 * (pairs[0] == pairs[1])).mean(axis=(1, 2))
        expected.append(np.average(nearer[before == clone], weights=weights[before == clone]))
    found = clone_agreement(x0, before, x1, after, weights=weights)
    assert found.numpy() == pytest.approx(expected)


def test_large_sets_are_scored_in_parts(monkeypatch):
    x0, labels0, x1, labels1 = two_types((30, 20), (60, 40), apart=1.0)
    plan = Exact()(x0, x1)

    def all_scores():
        points, through = (label_shares(m, labels0, x1, labels1)[0] for m in (x0, plan))
        return [points, through, *(clone_agreement(m, labels0, x1, labels1) for m in (x0, plan))]

    whole = all_scores()
    monkeypatch.setattr("cellflow.metrics.persistence._PAIRS_AT_ONCE", 150)
    monkeypatch.setattr("cellflow.metrics.persistence.MOST_BYTES", 8)  # groups one after the other
    assert all(torch.allclose(a, b) for a, b in zip(whole, all_scores(), strict=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": ["a"]}, "label for each of 2 cells"),
        ({"labels_next": ["a"]}, "label for each of 2 cells in `x_next`"),
        ({"labels": [None, None]}, "without any"),
        ({"labels": ["a", None], "weights": [0.0, 1.0]}, "have mass"),
        ({"n_neighbors": 0}, "n_neighbors >= 1"),
    ],
)
def test_what_has_no_persistence_is_said(change, words):
    x = torch.tensor([[0.0], [1.0]])
    given = {"labels": ["a", "b"], "x_next": x, "labels_next": ["a", "b"]} | change
    with pytest.raises(ValueError, match=words):
        label_persistence(x, **given)


@pytest.mark.parametrize("after", [["c", "d"], ["a", "a"]])
def test_clones_need_sisters_and_others(after):
    x = torch.tensor([[0.0], [1.0]])
    with pytest.raises(ValueError, match="clone with cells in both snapshots"):
        clone_agreement(x, ["a", "b"], x, after)
