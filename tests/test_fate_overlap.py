"""What cells change into, beside what their clones became."""

import numpy as np
import pandas as pd
import pytest
import torch

import cellflow as cf

LATER = ["b", "b", "c", "a", "a"], ["one", "one", "one", "one", "two"]


def overlap(shares, labels=("a", "a", "a"), clones=("one", "two", "three"), later=LATER):
    table = pd.DataFrame(np.asarray(shares, dtype=float), columns=["a", "b", "c"][: len(shares[0])])
    return cf.metrics.fate_overlap(table, labels, clones, *later)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [((0, 2 / 3, 1 / 3), 1), ((0.97, 0.02, 0.01), 1), ((0.5, 0, 0.5), 1 / 3), ((0, 1, 0), 2 / 3),
     ((1, 0, 0), 1)],
)  # fmt: skip
def test_only_what_a_cell_changes_into_counts(shares, expected):
    """Of the clone of the first cell three became something else: b, b and c; the others stayed, or are unknown.

    A cell that does not change at all gets the shares of all cells, 2/5 and 1/5, which here are those of its clone.
    """
    found = overlap([shares, (0, 1, 0), (0, 0, 1)])
    assert found.isnan().tolist() == [False, True, True]
    assert float(found[0]) == pytest.approx(expected)


def test_missing_labels_and_clones_are_left_out():
    later = ([*LATER[0], None, "c"], [*LATER[1], "one", None])
    full = overlap([(0, 0.5, 0.5)] * 3)
    torch.testing.assert_close(overlap([(0, 0.5, 0.5)] * 3, later=later), full, equal_nan=True)
    assert int(overlap([(0, 0.5, 0.5)] * 3, clones=("one", "one", None)).isnan().sum()) == 1


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="a label and a clone for each of 3"):
        overlap([(0, 1, 0)] * 3, labels=["a"])
    with pytest.raises(ValueError, match=r"a column for each later group; none for \['c'\]"):
        overlap([(0, 1)] * 3)
    with pytest.raises(ValueError, match="of another group in the later snapshot"):
        overlap([(0, 1, 0)] * 3, clones=["two"] * 3)
