"""The judge itself: what it lets pass, and what it does not."""

import numpy as np
import pandas as pd
import pytest
import torch

import cellflow as cf
from cellflow.shapes import per_sample, time_of
from fuzz.judge import acceptable, fault_of, holds_nan


def caught(call):
    with pytest.raises(Exception) as found:  # noqa: PT011
        call()
    return found.value


def test_a_check_of_ours_is_acceptable():
    assert acceptable(caught(lambda: cf.paths.Linear(-1.0)))
    assert acceptable(caught(lambda: cf.couplings.resolve("exakt")))
    assert acceptable(caught(lambda: cf.couplings.Exact()(torch.zeros(0, 2), torch.zeros(1, 2))))


def test_what_comes_from_elsewhere_is_not():
    assert "from outside" in fault_of(caught(lambda: np.zeros((2, 2)).reshape(3)))
    assert "no error for input" in fault_of(caught(lambda: torch.zeros(2) @ torch.zeros(3)))
    assert "no error for input" in fault_of(caught(lambda: torch.zeros(2)[3]))


def test_an_operator_of_ours_that_fails_is_no_check():
    """The line is in cellflow and the error a `TypeError`; yet it is Python's, about an operator."""
    found = caught(lambda: cf.fields.Outputs(1.0).velocity + per_sample(None, torch.zeros(1)))
    assert isinstance(found, AttributeError)
    assert "no error for input" in fault_of(found)
    assert "from outside" in fault_of(caught(lambda: time_of(None, torch.zeros(1))))


@pytest.mark.parametrize(
    "result",
    [
        torch.tensor([0.0, torch.nan]),
        np.array([np.nan]),
        float("nan"),
        np.float32("nan"),
        (1, {"a": [float("nan")]}),
        pd.DataFrame({"a": [1.0, None]}),
        pd.Series([1.0, None]),
        cf.Batch(torch.tensor([[torch.nan]]), torch.ones(1, 1)),
    ],
)
def test_nan_is_found_wherever_it_is(result):
    assert holds_nan(result)


@pytest.mark.parametrize("result", [torch.zeros(2), torch.zeros(2).long(), None, "nan", np.array(["nan"]), (1, 2.0)])
def test_what_holds_none_has_none(result):
    assert not holds_nan(result)
