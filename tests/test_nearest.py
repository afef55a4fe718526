"""The neighbour search: exact where it says so, nearly so by a graph, and the only one of the package."""

import ast
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import cellflow as cf
from cellflow import nearest
from cellflow.nearest import Nearest


def true(points, x, k):
    return torch.cdist(torch.from_numpy(x), torch.from_numpy(points)).topk(k, largest=False)


def test_few_points_and_few_dimensions_are_searched_exactly(monkeypatch):
    monkeypatch.setattr(nearest, "EXACT", 100)
    draw = np.random.default_rng(0)
    for n, dim in ((100, 8), (500, 3)):
        points, x = draw.normal(size=(n, dim)), draw.normal(size=(40, dim))
        distance, rows = Nearest(points, 5).search(x)
        known = true(points, x, 5)
        np.testing.assert_array_equal(rows, known.indices)
        np.testing.assert_allclose(distance, known.values)
        np.testing.assert_array_equal(Nearest(points, 5).rows(x), rows)


@pytest.mark.slow  # pynndescent compiles itself, for about a minute
def test_many_points_are_searched_nearly_exactly(monkeypatch):
    monkeypatch.setattr(nearest, "EXACT", 100)
    draw = np.random.default_rng(0)
    points, x = draw.normal(size=(3000, 10)), draw.normal(size=(300, 10))
    distance, rows = Nearest(points, 10).search(x)
    known = true(points, x, 10)
    recall = np.mean([len(np.intersect1d(*both)) / 10 for both in zip(rows, known.indices.numpy(), strict=True)])
    assert recall > 0.98
    assert np.all(np.diff(distance, axis=1) >= 0)
    np.testing.assert_allclose(distance, np.linalg.norm(points[rows] - x[:, None], axis=2), rtol=1e-4)
    np.testing.assert_allclose(distance.mean(), known.values.mean(), rtol=1e-3)
    np.testing.assert_array_equal(Nearest(points, 10).rows(x), rows)  # with a seed of its own


def test_beyond_the_limit_the_graph_is_asked(monkeypatch):
    """With a graph that knows the truth, all that use the search see what they saw."""

    class Graph:
        def __init__(self, data, random_state):
            self.data = data

        def query(self, x, k, epsilon):
            found = true(self.data, x, k)
            return found.indices.numpy().astype(np.int32), found.values.numpy()

    draw = np.random.default_rng(0)
    x, moved = draw.normal(size=(60, 5)).astype(np.float32), draw.normal(size=(20, 5)).astype(np.float32)
    labels, names = ["a", "b"] * 10, ["a", "b", "c"] * 20
    exact = cf.metrics.label_shares(moved, labels, x, names, n_neighbors=3)[0]
    monkeypatch.setitem(sys.modules, "pynndescent", SimpleNamespace(NNDescent=Graph))  # whose import takes seconds
    monkeypatch.setattr(nearest, "EXACT", 10)
    assert isinstance(Nearest(x, 2)._graph, Graph)
    assert torch.equal(cf.metrics.label_shares(moved, labels, x, names, n_neighbors=3)[0], exact)


def test_no_other_file_searches_for_neighbors():
    def searches(path):
        names = [
            node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)
        ]
        return {"sklearn.neighbors", "pynndescent"} & set(names)

    folder = Path(cf.__file__).parent
    assert [path.name for path in folder.rglob("*.py") if searches(path)] == ["nearest.py"]
