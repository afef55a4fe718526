"""What the door of a signature lets in, and what it refuses, in which words."""

import doctest
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import cellflow as cf
from cellflow.fields import Field
from cellflow.signature import check_type, checked, checked_but

if TYPE_CHECKING:
    from anndata import AnnData

FUNCTION, TENSOR = (lambda x: x), torch.zeros(2)
LET_IN = [
    (int, [1, np.int32(1), 10**30]),
    (float, [1, 0.5, math.inf, np.float32(2), np.int64(2)]),
    (bool, [True, np.bool_(False)]),
    (str, ["text", ""]),
    (torch.Tensor, [TENSOR, torch.nn.Parameter(TENSOR)]),
    (float | torch.Tensor, [0.5, TENSOR]),
    (int | None, [None, 3]),
    (Callable[..., Any], [FUNCTION, print]),
    (Field, [FUNCTION, cf.networks.MLP(2, width=8)]),
    (Sequence[float], [[1, 2.0], (1.0,), np.ones(3), TENSOR, []]),
    (Sequence[torch.Tensor], [[TENSOR], (TENSOR, TENSOR)]),
    (tuple[float, float], [(1.0, 2), [1.0, 2.0]]),
    (tuple[float, ...], [(), (1.0,)]),
    (Mapping[str, Any], [{}, {"a": 1}]),
    (Any, [None, "a", 1]),
]
REFUSED = [
    (int, [1.0, 1.5, True, "1", None, [1], TENSOR]),
    (float, ["0.5", True, None, 1j, [0.5], 10**30]),
    (bool, [0, 1, "no", None]),
    (str, [1, None, b"text", ["text"]]),
    (torch.Tensor, [np.zeros(2), [1.0], "x", None]),
    (float | torch.Tensor, ["0.5", None, [0.5]]),
    (int | None, ["3", 2.5]),
    (Callable[..., Any], [1, "f", None]),
    (Field, ["f", None, cf.networks.MLP]),
    (Sequence[float], ["12", 3, None, ["a"], {1.0, 2.0}, np.float64(3)]),
    (Sequence[torch.Tensor], [[1.0], "ab", [None]]),
    (tuple[float, float], [(1.0,), (1.0, 2.0, 3.0), ("a", "b"), 1.0]),
    (Mapping[str, Any], [[], "a"]),
    ("AnnData", [None, "a", TENSOR]),
]


def cases(table):
    return [
        pytest.param(hint, value, id=f"{hint}-{number}")
        for hint, values in table
        for number, value in enumerate(values)
    ]


@pytest.mark.parametrize(("hint", "value"), cases(LET_IN))
def test_what_a_signature_states_is_let_in(hint, value):
    check_type(value, hint, name="x", where="f")


@pytest.mark.parametrize(("hint", "value"), cases(REFUSED))
def test_anything_else_is_refused_by_name(hint, value):
    with pytest.raises(TypeError, match=r"^f\(\) expected `x` to be .+; found .+"):
        check_type(value, hint, name="x", where="f")


@checked
def echo(x: Any = None, *, n: int = 0, a: float | None = 0.0, on: bool = False, path: str | Path = "") -> tuple:
    return n, a, on, path


class Somewhere:
    """A path that is none of Python's own, as those of py.path and of cloud stores."""

    def __fspath__(self):
        return "some/where"


def test_numbers_in_arrays_and_paths_of_any_kind_arrive_as_python_has_them():
    found = echo(n=torch.tensor(3), a=np.array(0.5), on=torch.tensor(True), path=Somewhere())
    assert found == (3, 0.5, True, Path("some/where"))
    assert [type(value) for value in found[:3]] == [int, float, bool]
    assert echo(a=torch.tensor(2))[1] == 2
    wrong = {
        "n": [torch.tensor(2.5), torch.tensor([1]), torch.tensor(3, device="meta"), np.array("3"), torch.tensor(True)],
        "a": [torch.tensor(1j), np.array(True)],
        "on": [np.array(1)],
        "path": [b"bytes", 3],
    }
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(TypeError, match=f"expected `{name}` to be"):
                echo(**{name: value})


def test_parts_hold_numbers_and_devices_have_any_form(tmp_path):
    """Whatever they are made of, parts print, compare and are saved; a device is not kept with a model."""
    assert cf.paths.BrownianBridge(torch.tensor(0.5)) == cf.paths.BrownianBridge(np.float64(0.5))
    assert "sigma=0.5" in repr(cf.paths.BrownianBridge(torch.tensor(0.5)))
    x = torch.randn(20, 2, generator=cf.generator(seed=0))
    device = torch.device("cpu")
    model = cf.DomainTranslator(steps=2, batch_size=4, device=device).fit(x, x + 3)
    assert model.device is device
    model.save(tmp_path)
    cf.DomainTranslator.load(tmp_path, device=device)


def test_an_argument_can_be_left_to_the_function():
    @checked_but("n")
    def f(n: int, m: int) -> int:
        return n

    assert f("a", 1) == "a"
    with pytest.raises(TypeError, match="`m`"):
        f("a", "b")


def test_a_class_is_checked_where_it_is_made():
    @checked
    class Thing:
        def __init__(self, n: int, *, adata: "AnnData | None" = None) -> None:
            self.n = n

    assert Thing(3).n == 3
    with pytest.raises(TypeError, match=r"Thing\(\) expected `n` to be a whole number; found 2.5"):
        Thing(2.5)
    with pytest.raises(TypeError, match="`adata` to be AnnData or None; found 'x'"):
        Thing(2, adata="x")


def test_a_wrong_number_of_arguments_is_said_by_python():
    @checked
    def f(n: int) -> int:
        return n

    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        f()


def test_examples_of_what_is_checked_still_run():
    """doctest looks for functions of a module by their global names."""
    found = {test.name for test in doctest.DocTestFinder().find(cf.seeds)}
    assert {"cellflow.seeds.generator", "cellflow.seeds.generator_at"} <= found
    assert cf.generator.__wrapped__.__globals__ is cf.generator.__globals__


@pytest.mark.parametrize(
    ("call", "name", "meant"),
    [
        (lambda: cf.training.Recipe(learning_rat=1e-3), "learning_rat", "learning_rate"),
        (lambda: cf.couplings.UnbalancedSinkhorn(epsilo=1.0), "epsilo", "epsilon"),
        (lambda: cf.SnapshotFlow(stepz=3), "stepz", "steps"),
        (lambda: cf.networks.MLP(2, widht=8), "widht", "width"),
        (lambda: cf.SnapshotFlow().transport(torch.zeros(1, 2), start=0, stop=1, solvr=3), "solvr", "solver"),
        (lambda: cf.DomainTranslator().fit(torch.zeros(1, 2), torch.zeros(1, 2), feature=1), "feature", "features"),
    ],
)
def test_a_misspelt_argument_is_named_with_the_one_that_was_meant(call, name, meant):
    with pytest.raises(TypeError, match=rf"unexpected keyword argument '{name}'.*Did you mean '{meant}'\?"):
        call()
