"""The core of the toy benchmark on tiny sizes: its matching against POT, its scores on known fields, its rows."""

import csv

import numpy as np
import ot
import pytest
import torch

from benchmarks.rows import Table
from benchmarks.toys import __main__ as toys
from benchmarks.toys import methods as pairs
from benchmarks.toys import scores
from benchmarks.toys.methods import METHODS
from benchmarks.toys.scores import assign


@pytest.mark.parametrize("pair", pairs.PAIRS)
@pytest.mark.parametrize("far", [True, False])
def test_the_matching_is_optimal(pair, far):
    data = pairs.clouds(pair, 0, points=400)
    x, y = (data.x0 if far else data.test1).double().numpy(), data.x1.double().numpy()
    found = assign(x, y)
    exact = ot.emd2([], [], ot.dist(x, y))
    assert sorted(found.partner) == list(range(400))
    assert found.cost == pytest.approx(((x - y[found.partner]) ** 2).sum(1).mean())
    assert found.bound <= exact * (1 + 1e-9)
    assert exact * (1 - 1e-9) <= found.cost <= exact * (1 + 5e-4)


def test_clouds_that_cannot_be_matched_are_refused():
    with pytest.raises(ValueError, match="one size"):
        assign(np.zeros((3, 2)), np.zeros((4, 2)))


def test_a_translation_costs_no_more_than_it_must(rng):
    x, shift = torch.randn(300, 2, generator=rng), torch.tensor([3.0, -1.0])
    found, energy = scores.travel(lambda t, x, condition: shift.expand_as(x), x)
    least = scores.squared_distance(x, x + shift)
    assert torch.allclose(found, x + shift, atol=1e-5)
    assert scores.squared_distance(found, x + shift) == pytest.approx(0, abs=1e-8)
    assert least == pytest.approx(10, rel=5e-4)
    assert energy / least - 1 == pytest.approx(0, abs=6e-4)


def test_a_rotation_spends_more_than_it_must(rng):
    """A quarter turn at speed pi/2 keeps a Gaussian: the energy is that of the speed, the least is sampling alone."""
    x = torch.randn(300, 2, generator=rng)
    turn = torch.pi / 2 * torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    found, energy = scores.travel(lambda t, x, condition: x @ turn, x)
    spent = (torch.pi / 2) ** 2 * float(x.square().sum(1).mean())
    assert energy == pytest.approx(spent, rel=0.03)  # Euler spirals out a little
    least = ot.emd2([], [], ot.dist(x.double().numpy(), found.double().numpy()))
    assert abs(energy / least - 1) == pytest.approx(spent / least - 1, rel=0.05)


@pytest.mark.parametrize("modes", [torch.zeros(1, 2), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])])
def test_the_energy_of_independent_pairs_is_known_for_gaussians(modes, rng):
    """N(0, I) to N(m, I): the field is (2t - 1) / (t^2 + (1-t)^2) (x - t m) + m, its energy m^2 + 2 times a number."""
    shift = torch.tensor([2.0, 1.0])
    x1 = torch.randn(4000, 2, generator=rng) + shift
    found = scores.independent_energy(x1, modes, 1.0, blur=0.0, rng=rng, points=400)
    t = torch.linspace(0, 1, 2001)
    bend = float(((2 * t - 1) ** 2 / (t**2 + (1 - t) ** 2)).mean())
    if len(modes) == 1:
        assert found == pytest.approx(5 + 2 * bend, rel=0.06)
    else:
        assert found > 5 + 2 * bend


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_a_row_and_is_not_run_twice(name, tmp_path):
    table, few = Table(tmp_path / "toys.csv", toys.KEY), {"steps": 4, "points": 64}
    rows = list(toys.run(table, "N->moons", [name], 42, **few))
    assert [row["method"] for row in rows] == [toys.FLOOR, *toys.BLURRED, name]
    assert all(np.isfinite(row["w2"]) or row["method"] in toys.BLURRED for row in rows)
    assert all(row["npe"] >= 0 for row in rows)
    assert [row["npe"] for row in table.read()] == pytest.approx([row["npe"] for row in rows], rel=1e-4)
    assert list(toys.run(table, "N->moons", [name], 42, **few)) == []
    again = list(toys.run(table, "N->moons", [name], 42, steps=5, points=64))
    assert [row["method"] for row in again] == [name]
    assert len(table.read()) == 4
    assert any(line.startswith(f"| {name} | 1 |") for line in toys.text(table.read(), "python"))


def test_a_method_for_a_gaussian_source_is_not_given_another(tmp_path):
    table = Table(tmp_path / "toys.csv", toys.KEY)
    found = toys.run(table, "8gaussians->moons", ["FM"], 42, steps=2, points=64)
    assert [row["method"] for row in found] == [toys.FLOOR, "published path, I-CFM"]


def test_what_is_above_the_published_value_gets_its_reason():
    floor = {"pair": "N->moons", "method": "floor", "seed": 42, "w2": 0.2, "npe": 0.05, "energy": 2.0, "least": 1.0}
    row = floor | {"method": "OT-CFM", "w2": 0.3, "npe": 0.01}
    text = "\n".join(toys.text([floor, row], "python"))
    assert "OT-CFM, W2: 0.300 against 0.130. The sampling floor" in text
    assert "OT-CFM, NPE" not in text


def test_a_blur_costs_energy_as_the_closed_form_says(rng):
    # From N(0, 1) to one point: the field pulls x - noise apart by the posterior mean, a Gaussian integral by hand.
    x1 = torch.zeros(1, 2)
    blur = 0.5
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)[:-1] + 1 / 8000
    expected = 2 * ((1 - t) ** 2 / ((1 - t) ** 2 + blur**2)).mean()
    found = scores.independent_energy(x1, torch.zeros(1, 2), 1.0, rng=rng, blur=blur, points=2000, times=100)
    assert found == pytest.approx(float(expected), rel=0.03)
    found = scores.gaussian_energy(x1, rng=rng, blur=blur, points=2000, times=100)
    assert found == pytest.approx(2 * (1 - blur) ** 2, rel=0.03)  # x = sd(t) e, v = -(1 - blur) e


def test_published_values_are_those_of_the_table():
    """Tong et al. 2024, table 2: a few of them by eye."""
    with toys.PUBLISHED.open() as file:
        rows = {(row["pair"], row["method"]): row for row in csv.DictReader(file)}
    assert len(rows) == 8 * 4 - 2
    assert rows["N->moons", "OT-CFM"] == {
        "pair": "N->moons", "method": "OT-CFM", "w2": "0.13", "w2_sd": "0.016", "npe": "0.083", "npe_sd": "0.009",
    }  # fmt: skip
    assert ("8gaussians->moons", "FM") not in rows
