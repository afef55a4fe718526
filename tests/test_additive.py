"""Additive effects of treatments: closed forms at unseen doses and pairs, limits, and what noise leaves of nothing."""

import itertools

import numpy as np
import pytest
import torch

import cellflow as cf
from cellflow.networks.additive import AdditiveShift
from cellflow.training import additive
from cellflow.training.additive import fit_additive

CELLS = 400
CURVATURE = torch.full((3,), np.log1p(100.0))
DRUGS = {"A": torch.tensor([3.0, 0.0, -1.0]), "B": torch.tensor([0.0, 2.0, 1.0]), "C": torch.tensor([0.5, 0.5, 0.0])}


def gaussians(response, table, *, cells=CELLS, seed=0):
    """Displacements of the means of Gaussian clouds, each shifted by what `response` says of its drugs and doses."""
    rng = cf.generator(seed=seed)
    truth = torch.stack([response(drug, dose) for drug, dose in table])
    control = torch.randn(cells, 3, generator=rng).mean(dim=0)
    treated = torch.stack([torch.randn(cells, 3, generator=rng).mean(dim=0) for _ in table])
    return truth + treated - control


def fitted(response, table, **keywords):
    """The effects that the displacements of a table of drugs and doses show."""
    return fit_additive(
        gaussians(response, table, **keywords),
        noise=torch.full((len(table),), 2 / keywords.get("cells", CELLS)),
        spread=torch.ones(3),
        effects=vectors(table),
        curvature=CURVATURE,
    ).shift


def vectors(table):
    """The amount of each drug: the logarithm of doses from 1 to 10, from a tenth of the smallest one."""
    rows = [[np.log1p(10 * dose) if name in drug.split("+") else 0.0 for name in DRUGS] for drug, dose in table]
    return torch.tensor(rows, dtype=torch.float32) / np.log1p(100)


def additive_in(curve):
    return lambda drug, dose: sum(curve(dose) * DRUGS[name] for name in drug.split("+"))


SEEN = [*itertools.product("ABC", (1.0, 3.0, 10.0)), ("A+B", 1.0), ("A+B", 10.0)]
UNSEEN = [("A", 2.0), ("B", 6.0), ("C", 5.0), ("A+C", 10.0), ("B+C", 3.0), ("A+B", 4.0), ("A+B+C", 2.0)]


@pytest.mark.parametrize(
    "curve",
    [lambda dose: dose / 10, lambda dose: np.log1p(10 * dose) / np.log1p(100), lambda dose: 0.5 * np.sqrt(dose)],
    ids=["dose", "logarithm", "root"],
)
def test_unseen_doses_and_pairs_are_predicted_to_sampling_error(curve):
    response = additive_in(curve)
    error = np.sqrt(2 / CELLS)
    shift = fitted(response, SEEN)
    found = shift(vectors(UNSEEN))
    expected = torch.stack([response(drug, dose) for drug, dose in UNSEEN])
    names = torch.tensor([len(drug.split("+")) for drug, _ in UNSEEN])[:, None]
    assert ((found - expected).abs() < 3 * error * names.sqrt()).all()
    assert (found - expected).square().mean().sqrt() < 1.5 * error


def test_where_doses_are_single_it_is_least_squares_on_names_when_means_are_exact():
    rng = np.random.default_rng(0)
    effects = (rng.random((20, 6)) < 0.4).astype(float)
    noise = rng.uniform(1, 2, 20)
    changes = effects @ rng.normal(size=(6, 4)) + 1e-3 * np.sqrt(noise)[:, None] * rng.normal(size=(20, 4))
    weights = 1 / np.sqrt(noise)[:, None]
    expected = np.linalg.lstsq(weights * effects, weights * changes, rcond=None)[0]
    given = (torch.from_numpy(x) for x in (changes, noise * 1e-6, effects))
    found = fit_additive(next(given), noise=next(given), spread=torch.ones(4).double(), effects=next(given)).shift
    torch.testing.assert_close(found.line, torch.from_numpy(expected), atol=1e-3, rtol=0)
    assert (found.line - torch.from_numpy(expected)).abs().max() > 0  # the prior is there


def test_a_curve_of_its_own_form_goes_through_exact_means_and_is_straight_between_them():
    amounts = torch.linspace(0.1, 1, 10).double()[:, None]
    changes = torch.cat([torch.sin(6 * amounts), torch.cos(6 * amounts) - 1], dim=1)
    given = {"noise": torch.full((10,), 1e-7), "spread": torch.ones(2), "curvature": torch.tensor([2.0])}
    shift = fit_additive(changes, effects=amounts, **given).shift
    assert shift.slope.any()
    torch.testing.assert_close(shift(amounts), changes, atol=1e-3, rtol=0)
    middle = (amounts[1:] + amounts[:-1]) / 2
    torch.testing.assert_close(shift(middle), (changes[1:] + changes[:-1]) / 2, atol=0.02, rtol=0)


@pytest.mark.parametrize(("rows", "most"), [(1, 0.2), (8, 0.05), (40, 0.01)])
def test_of_noise_alone_hardly_anything_is_left(rows, most):
    rng = cf.generator(seed=rows)
    effects = torch.eye(max(1, rows // 4)).repeat(rows // max(1, rows // 4), 1)[:rows]
    left = []
    for _ in range(10):
        changes = torch.randn(rows, 50, generator=rng) * 0.1
        shift = fit_additive(changes, noise=torch.full((rows,), 0.01), spread=torch.ones(50), effects=effects).shift
        left.append(shift(effects).square().mean() / changes.square().mean())
    assert torch.stack(left).mean() < most


def test_large_effects_are_not_shrunk():
    changes = torch.tensor([[3.0, -2.0, 5.0]])
    shift = fit_additive(changes, noise=torch.tensor([0.01]), spread=torch.ones(3), effects=torch.ones(1, 1)).shift
    torch.testing.assert_close(shift(torch.ones(1, 1)), changes, rtol=0.01, atol=0)


def test_the_control_stays_and_the_order_of_rows_does_not_matter():
    shift = fitted(additive_in(lambda dose: dose / 10), SEEN)
    assert not shift(torch.zeros(2, 3)).any()
    rng = np.random.default_rng(0)
    effects = vectors(SEEN)
    given = {"spread": torch.ones(3), "curvature": CURVATURE}
    changes, noise = torch.randn(len(SEEN), 3, generator=cf.generator(seed=1)), torch.rand(len(SEEN)) + 0.1
    order = torch.from_numpy(rng.permutation(len(SEEN)))
    first = fit_additive(changes, noise=noise, effects=effects, **given)
    second = fit_additive(changes[order], noise=noise[order], effects=effects[order], **given)
    torch.testing.assert_close(first.shift(effects), second.shift(effects), atol=1e-4, rtol=1e-4)


def test_a_row_keeps_what_no_sum_explains_where_it_is_more_than_noise():
    effects = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).repeat(4, 1)
    synergy = torch.tensor([0.0, 0.0, 5.0])[:, None].repeat(4, 3)
    changes = effects @ torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 1.0]]) + synergy
    given = {"spread": torch.ones(3), "effects": effects}
    exact = fit_additive(changes, noise=torch.full((12,), 1e-6), **given)
    torch.testing.assert_close(exact.changes, changes, atol=1e-3, rtol=0)
    assert (exact.shift(effects) - changes).abs().max() > 1
    noise = torch.randn(12, 3, generator=cf.generator(seed=3))
    assert fit_additive(noise, noise=torch.ones(12), **given).changes.square().mean() < noise.square().mean() / 5


def test_many_rows_of_one_condition_count_as_their_mean(monkeypatch):
    rng = cf.generator(seed=2)
    effects = torch.eye(3).repeat(40, 1)
    changes = effects @ torch.stack(list(DRUGS.values())) + 0.3 * torch.randn(120, 3, generator=rng)
    given = {"noise": torch.full((120,), 0.09), "spread": torch.ones(3), "effects": effects}
    each = fit_additive(changes, **given).shift
    monkeypatch.setattr(additive, "MOST_ROWS", 100)
    torch.testing.assert_close(fit_additive(changes, **given).shift.line, each.line, atol=0.02, rtol=0)


def test_it_is_saved_and_loaded_with_its_buffers():
    shift = fitted(additive_in(np.sqrt), SEEN)
    other = AdditiveShift(3, 3, segments=len(shift.axis))
    other.load_state_dict(shift.state_dict())
    effects = vectors(UNSEEN)
    torch.testing.assert_close(other(effects), shift(effects), atol=0, rtol=0)
    assert not list(other.parameters())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"noise": torch.ones(3)}, r"Expected `noise` \(2,\)"),
        ({"effects": torch.ones(3, 1)}, r"`effects` \(2, p\)"),
        ({"noise": torch.tensor([1.0, 0.0])}, "above 0"),
        ({"spread": torch.tensor([-1.0, 1.0, 1.0])}, "0 or more"),
        ({"changes": torch.full((2, 3), torch.nan)}, "changes"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message):
    given = {"changes": torch.ones(2, 3), "noise": torch.ones(2), "spread": torch.ones(3), "effects": torch.ones(2, 1)}
    given |= changed
    with pytest.raises(ValueError, match=message):
        fit_additive(given.pop("changes"), **given)


def test_treatments_of_another_width_are_refused():
    with pytest.raises(ValueError, match="width 2; found 3"):
        AdditiveShift(2, 1)(torch.ones(1, 3))
