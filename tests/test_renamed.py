"""Old keywords: warned about at the user's line, mapped to the new ones, and unknown ones refused."""

import warnings

import pytest

from cellflow.renamed import PACKAGE, renamed

RULES = {
    "score": lambda value: {"stochastic": value is not None},
    ("steps", "method"): lambda steps=20, method="rk4": {"solver": (method, steps)},
}


def fit(adata=None, *, solver=None, stochastic=False, **given):
    return renamed("Flow.fit", given, RULES)


def test_nothing_given_is_silent():
    assert fit() == {}


def test_an_old_keyword_warns_with_the_new_spelling():
    with pytest.warns(FutureWarning, match=r"`Flow.fit\(score='two_heads'\)` is now `Flow.fit\(stochastic=True\)`"):
        assert fit(score="two_heads") == {"stochastic": True}


def test_keywords_that_became_one_warn_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert fit(method="euler", steps=3) == {"solver": ("euler", 3)}
    assert len(caught) == 1
    assert "Flow.fit(steps=3, method='euler')` is now `Flow.fit(solver=('euler', 3))" in str(caught[0].message)
    with pytest.warns(FutureWarning):
        assert fit(steps=3) == {"solver": ("rk4", 3)}


def test_several_rules_warn_each():
    with pytest.warns(FutureWarning) as caught:
        assert fit(steps=3, score=None) == {"solver": ("rk4", 3), "stochastic": False}
    assert len(caught) == 2


@pytest.fixture
def public():
    """A function that stands in the package, and asks `renamed` through another one."""
    source = """
def fit(adata=None, *, solver=None, stochastic=False, **given):
    return inner(given)

def inner(given):
    return renamed("Flow.fit", given, rules)
"""
    names = {"renamed": renamed, "rules": RULES}
    exec(compile(source, f"{PACKAGE}imagined.py", "exec"), names)
    return names["fit"]


def test_an_unknown_keyword_is_the_error_of_python_with_the_choices(public):
    with pytest.raises(TypeError, match=r"Flow.fit\(\) got an unexpected keyword argument 'stpes'") as caught:
        public(stpes=3)
    assert "Choose from: 'adata', 'solver', 'stochastic'." in str(caught.value)


def test_the_warning_points_at_the_users_line(public):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        public(score=None)
    assert caught[0].filename == __file__


def test_a_long_value_is_named_by_its_kind():
    with pytest.warns(FutureWarning, match=r"score=<list>"):
        fit(score=list(range(100)))
