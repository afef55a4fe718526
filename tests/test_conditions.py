"""Conditions: columns in every form of pandas, sets, doses, vectors of names, and what cannot be read."""

import itertools
import json
import pickle
import re

import anndata
import numpy as np
import pandas as pd
import pytest
from parts import ALL_CONDITIONS

import cellflow as cf
from cellflow.cells import Conditions, FittedConditions
from cellflow.cells.conditions import resolve
from cellflow.cells.doses import DoseScale
from cellflow.errors import CheckpointError
from cellflow.estimators.serialize import decode, encode, encode_settings

TABLE = {"A": [1.0, 0.0, 0.0], "B": [0.0, 3.0, 0.0], "C": [0.0, 0.0, 2.0]}
HOSTILE = [
    "a/b",
    "\u03b2-estradiol",
    "x, dose 3",
    "new\nline",
    "${HOME}",
    "'",
    '"',
    "nan",
    "None",
    " ",
    "__proto__",
    "\U0001f9ec",
    "%s",
]


def cells(**columns):
    """Four cells of each row."""
    return pd.DataFrame({name: list(values) * 4 for name, values in columns.items()})


def drugs():
    return cells(
        drug=["control", "A", "B", "A+B", "A", "B"],
        dose=[0.0, 1.0, 1.0, 10.0, 10.0, 100.0],
        donor=["x", "x", "y", "y", "x", "x"],
        age=[20.0, 20.0, 40.0, 40.0, 20.0, 60.0],
    )


ALL = Conditions("drug", "dose", categories=("donor",), numbers=("age",))


def test_a_combination_has_no_order_and_the_control_is_zero():
    obs = cells(drug=["control", "A+B", "B+A", " B + A ", "A", "B", "A+control", "C+B+A"])
    fitted = Conditions("drug").fit(obs)
    table = fitted.read(obs)
    assert table.labels == ("control", "A", "A+B", "A+B+C", "B")
    assert table.counts().tolist() == [4, 8, 12, 4, 4]
    assert table.is_control.tolist() == [True, False, False, False, False]
    assert not table.vectors[0].any()
    rows = {label: table.vectors[k] for k, label in enumerate(table.labels)}
    np.testing.assert_array_equal(rows["A"] + rows["B"], rows["A+B"])
    assert fitted.names == ("A", "B", "C")
    assert fitted.width == 3
    assert fitted.effect == slice(0, 3)
    for names in itertools.permutations("ABC"):
        np.testing.assert_array_equal(fitted.encode({"drug": "+".join(names)}, 2), np.ones((2, 3)))


def test_several_columns_and_one_are_the_same():
    one = cells(drug=["control", "A", "A+B", "B"])
    two = cells(drug1=["control", "A", "B", "B"], drug2=[None, None, "A", "control"])
    first, second = Conditions("drug").fit(one), Conditions(("drug1", "drug2")).fit(two)
    np.testing.assert_array_equal(first.read(one).vectors, second.read(two).vectors)
    assert first.read(one).labels == second.read(two).labels
    np.testing.assert_array_equal(second.encode({"drug1": "A+B"}, 1), second.encode({"drug2": "B", "drug1": "A"}, 1))


def test_doses_of_each_name():
    """One column for each name, doses in a text in the order of the names, and one dose for all."""
    parted = cells(drug1=["control", "A", "B", "B"], drug2=[None, None, "A", "B"],
                   dose1=[np.nan, 1, 3, 2], dose2=[np.nan, np.nan, 9, 1])  # fmt: skip
    joined = cells(drug=["control", "A", "B+A", "B"], dose=["", "1", "3+9", "3"])
    columns = Conditions(("drug1", "drug2"), ("dose1", "dose2")).fit(parted)
    column = Conditions("drug", "dose").fit(joined)
    np.testing.assert_array_equal(columns.read(parted).vectors, column.read(joined).vectors)
    assert set(columns.read(parted).labels) == {"control", "A, dose1 1", "A 9+B 3", "B, dose1 3"}  # 2 + 1 of B are 3
    controlled = cells(drug=["control", "A+control", "control+B+A", "B+B"], dose=["5", "1+5", "5+3+9", "1+2"])
    np.testing.assert_array_equal(column.read(controlled).vectors, column.read(joined).vectors)
    both = column.encode({"drug": "A+B", "dose": 3}, 1)
    np.testing.assert_array_equal(both, column.encode({"drug": "B+A", "dose": "3+3"}, 1))
    np.testing.assert_array_equal(
        both, column.encode({"drug": "A", "dose": 3}, 1) + column.encode({"drug": "B", "dose": 3}, 1)
    )


def test_an_effect_grows_from_zero_with_the_dose():
    obs = cells(drug=["control", "A", "A", "A", "A"], dose=[0, 0, 1, 10, 1000])
    fitted = Conditions("drug", "dose").fit(obs)
    table = fitted.read(obs)
    assert table.labels == ("control", "A, dose 1", "A, dose 10", "A, dose 1000")  # the dose 0 is the control
    doses = np.array([0, 1e-9, 1e-3, 0.1, 1, 10, 1000, 1e5])
    amounts = fitted.encode({"drug": ["A"] * 8, "dose": doses}, 8)[:, 0]
    assert (np.diff(amounts) > 0).all()
    assert amounts[0] == 0
    assert amounts[6] == pytest.approx(1)
    assert amounts[2] / amounts[1] == pytest.approx(1e6, rel=1e-2)  # linear below the smallest dose
    assert amounts[7] - amounts[6] == pytest.approx(2 * (amounts[6] - amounts[5]) / 2, rel=1e-2)  # logarithmic above
    k = fitted.dose_curvature[0]
    np.testing.assert_allclose(np.expm1(k * amounts) / np.expm1(k), doses / 1000, rtol=1e-4, atol=1e-8)


def test_each_drug_has_a_scale_of_its_own_and_a_new_one_that_of_all():
    obs = cells(drug=["control", "A", "A", "B", "B"], dose=[0, 1, 4, 100, 400])
    fitted = Conditions("drug", "dose", embeddings={"drug": TABLE}).fit(obs)
    lengths = np.linalg.norm(fitted.encode({"drug": ["A", "B"], "dose": [4, 400]}, 2), axis=1)
    vectors = np.linalg.norm(list(TABLE.values())[:2], axis=1)
    np.testing.assert_allclose(lengths, vectors / np.sqrt(np.mean(vectors**2)), rtol=1e-5)
    new = np.linalg.norm(fitted.encode({"drug": "C", "dose": [1, 400]}, 2), axis=1)
    expected = DoseScale(1, 400).amount(1), 1
    np.testing.assert_allclose(new / new[1], expected, rtol=1e-5)


@pytest.mark.parametrize("doses", [(1e-300, 1e300), (5e-324, 1.0), (1e300, 1.7e308)])
def test_extreme_doses_stay_finite(doses):
    scale = DoseScale.of(doses)
    assert 0 < scale.amount(doses[0]) < scale.amount(doses[1])
    assert scale.amount(doses[1]) == pytest.approx(1)


def test_one_treatment_of_which_the_doses_are_given():
    obs = cells(tgfb=[0, 12.5, 25])
    fitted = Conditions(dose="tgfb").fit(obs)
    table = fitted.read(obs)
    assert table.labels == ("tgfb 0", "tgfb 12.5", "tgfb 25")
    assert table.is_control.tolist() == [True, False, False]
    assert fitted.width == 1
    np.testing.assert_array_equal(fitted.encode({"tgfb": [0, 25]}, 2), [[0], [1]])


@pytest.mark.parametrize(
    "unit", ["nM", " nM", "nM ", " ng/ml", "%", " U per 10^6 cells", " \N{GREEK SMALL LETTER MU}M"]
)
def test_doses_are_read_with_their_unit(unit):
    texts = cells(drug=["control", "A", "A"], dose=["0", f"2{unit}", f"1e+1{unit}"])
    numbers = cells(drug=["control", "A", "A"], dose=[0, 2.0, 10.0])
    fitted, plain = Conditions("drug", "dose").fit(texts), Conditions("drug", "dose").fit(numbers)
    np.testing.assert_array_equal(fitted.read(texts).vectors, plain.read(numbers).vectors)
    np.testing.assert_array_equal(fitted.read(numbers).vectors, plain.read(numbers).vectors)
    with pytest.raises(ValueError, match="numbers without a unit"):
        plain.read(texts)
    with pytest.raises(ValueError, match="found doses in 'pM'"):
        fitted.encode({"drug": "A", "dose": "2 pM"}, 1)


def test_categories_and_numbers_follow_the_effect():
    obs = drugs()
    fitted = ALL.fit(obs)
    table = fitted.read(obs)
    assert fitted.columns == ("drug", "dose", "donor", "age")
    rest = table.vectors[:, fitted.effect.stop :]
    assert fitted.width == 2 + 2 + 1
    ages = obs["age"].to_numpy()
    np.testing.assert_allclose(rest[table.index, 2], (ages - 40) / np.std([20, 40, 60]), rtol=1e-6)
    np.testing.assert_array_equal(rest[table.index, 0], obs["donor"] == "x")
    control = table.labels.index("control, donor x, age 20")
    fed = table.context == table.context[control]
    assert [table.labels[k] for k in np.flatnonzero(fed)] == [
        "control, donor x, age 20", "A, dose 1, donor x, age 20", "A, dose 10, donor x, age 20",
    ]  # fmt: skip


def test_what_is_not_said_of_a_condition_is_each_cell_s_own():
    obs = drugs()
    fitted = ALL.fit(obs)
    found = fitted.encode({"drug": "B", "dose": 1}, len(obs), obs=obs)
    own = fitted.read(obs.assign(drug="B", dose=1))
    np.testing.assert_array_equal(found, own.vectors[own.index])
    np.testing.assert_array_equal(fitted.encode(obs, len(obs)), fitted.read(obs).vectors[fitted.read(obs).index])
    said = fitted.table({"drug": "control", "donor": "y", "age": 20.0}, 3)  # the control needs no dose
    assert said.labels == ("control, donor y, age 20",)
    assert said.index.tolist() == [0, 0, 0]


FORMS = {
    "object": lambda names: pd.Series(names, dtype=object),
    "category": lambda names: pd.Series(names, dtype=object).astype("category"),
    "more categories": lambda names: pd.Series(pd.Categorical(names, [*dict.fromkeys(names), "never"])),
    "ordered": lambda names: pd.Series(pd.Categorical(names, [*dict.fromkeys(names)][::-1], ordered=True)),
    "string": lambda names: pd.Series(names, dtype=object).map(str).astype("string"),
    "numpy text": lambda names: pd.Series([np.str_(name) for name in names], dtype=object),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("names", [["control", "A", "B"], ["control", *HOSTILE]], ids=["plain", "hostile"])
def test_names_in_every_form(form, names):
    obs = pd.DataFrame({"drug": FORMS[form](names * 3)})
    fitted = Conditions("drug", separator=None).fit(obs)
    table = fitted.read(obs)
    assert table.labels == ("control", *sorted(names[1:]))
    assert [table.labels[k] for k in table.index] == names * 3
    again = FittedConditions.of(json.loads(json.dumps(fitted.record())))
    np.testing.assert_array_equal(again.encode({"drug": names}, len(names)), fitted.encode({"drug": names}, len(names)))


TYPES = {
    "int": ([0, 1, 2], "0"),
    "float": ([0.0, 1.0, np.nan], "0"),
    "nullable int": (pd.array([0, 1, None], dtype="Int64"), "0"),
    "bool": ([False, True, True], "False"),
    "nullable bool": (pd.array([False, True, None], dtype="boolean"), "False"),
    "mixed": (pd.Series([0, "1", True], dtype=object), "0"),
    "category of ints": (pd.Categorical([0, 1, None]), "0"),
}


@pytest.mark.parametrize("kind", TYPES)
def test_names_that_are_no_text(kind):
    """They are called as they print; whole numbers without decimals, whatever missing values make of them."""
    values, control = TYPES[kind]
    obs = pd.concat([pd.DataFrame({"drug": pd.Series(values), "other": "B"})] * 3)
    fitted = Conditions(("drug", "other"), control=control).fit(obs)
    expected = {str(int(v)) if isinstance(v, float) else str(v) for v in pd.Series(values).dropna()} - {control}
    assert set(fitted.names) == {"B", *expected}
    assert FittedConditions.of(fitted.record()).names == fitted.names


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "Int64", "Float64", "object", "category", "string"])
def test_doses_in_every_form(dtype):
    obs = cells(drug=["control", "A", "A"], dose=[0, 1, 10])
    other = obs.assign(dose=obs["dose"].astype(dtype))
    expected, found = (Conditions("drug", "dose").fit(each).read(each) for each in (obs, other))
    np.testing.assert_array_equal(expected.vectors, found.vectors)
    assert expected.labels == found.labels


def test_rows_in_any_order_give_the_same_table():
    obs = drugs()
    shuffled = obs.sample(frac=1, random_state=0)
    first, second = ALL.fit(obs), ALL.fit(shuffled)
    assert first.record() == second.record()
    assert first.read(obs).labels == second.read(shuffled).labels
    np.testing.assert_array_equal(first.read(obs).index[shuffled.index], second.read(shuffled).index)


def test_labels_are_different_whatever_the_names_are():
    obs = cells(one=["control", "A", "A+B", "A"], two=[None, "B", None, None])
    table = Conditions(("one", "two"), separator=None).fit(obs).read(obs)
    assert len(set(table.labels)) == len(table) == 4
    close = cells(drug=["control", "A", "A"], dose=[0, 1.0, 1.0 + 1e-12])
    table = Conditions("drug", "dose").fit(close).read(close)
    assert len(set(table.labels)) == len(table) == 3


@pytest.mark.parametrize("separator", ["+", None, ", ", " and ", "/"])
@pytest.mark.parametrize("doses", [(1000001, 1000002), (0.5, 0.5000004), (1e-9, 1.0000001e-9), (1, 3)])
def test_labels_say_which_condition_it_is_whatever_else_there_is(separator, doses):
    names = ["control", "A", "A 1", "A, dose 1", "'A'", "A+B", "B", "x, donor y"]
    both = [*itertools.product(names, doses, ["y", "y, donor z"])]
    obs = pd.DataFrame([*both] * 5, columns=["drug", "dose", "donor"])
    fitted = Conditions("drug", "dose", categories=("donor",), separator=separator).fit(obs)
    table = fitted.read(obs)
    assert len(set(table.labels)) == len(table) >= 2 * len(set(names) - {"A+B"}) + 2
    for row in range(len(table)):  # alone it is called the same
        assert fitted.read(obs.iloc[table.rows(row)]).labels == (table.labels[row],)
        assert "#" not in table.labels[row]


def test_doses_that_differ_by_rounding_alone_are_one():
    obs = cells(drug=["control", "A", "A"], dose=[0, 0.3, 0.1 + 0.2])
    fitted = Conditions("drug", "dose").fit(obs)
    assert fitted.read(obs).labels == ("control", "A, dose 0.3")
    assert fitted.read(obs.astype({"dose": "float32"})).labels == ("control", "A, dose 0.3")


@pytest.mark.parametrize(("dose", "said"), [(1000.0, False), (1001.0, True), (1e9, True), (1e-9, False)])
def test_doses_far_beyond_those_in_training_are_said(dose, said, caplog):
    fitted = Conditions("drug", "dose").fit(cells(drug=["control", "A", "A"], dose=[0, 1, 100]))
    fitted.encode({"drug": ["A", "A"], "dose": [1.0, dose]}, 2)
    assert ("times the largest in training, 100" in caplog.text) == said


def test_spaces_around_names_are_none():
    obs = cells(drug=["control", "A", "B", "A+B", "control ", " A", "B ", " B + A"], line=["x", "x ", " x", "x"] * 2)
    fitted = Conditions("drug", control=" control", categories=("line",)).fit(obs)
    assert fitted.names == ("A", "B")
    assert fitted.read(obs).labels == ("control, line x", "A, line x", "A+B, line x", "B, line x")
    assert embedded(obs, {"A ": [1.0, 0.0], " B": [0.0, 1.0]}).encode({"drug": " A "}, 1).any()


def test_names_with_one_vector_are_said(caplog):
    obs = cells(drug=["control", "A", "B", "C"])
    embedded(obs, {"A": [1.0, 1.0], "B": [0.0, 1.0], "C": [1.0, 1.0]})
    assert "the vectors of 'A' and 'C' are the same" in caplog.text


def test_vectors_that_cancel_are_refused_where_they_do():
    table = {"A": [1.0, 0.1], "B": [-1.0, -0.1]}
    embedded(cells(drug=["control", "A", "B"]), table)
    with pytest.raises(ValueError, match=re.escape("the vectors of 'A+B' are 0, or cancel")):
        embedded(cells(drug=["control", "A", "B", "A+B"]), table)


def embedded(obs, table, uns=None):
    return Conditions("drug", embeddings={"drug": table}).fit(obs, uns)


@pytest.mark.parametrize("form", ["mapping", "frame", "series of lists", "key"])
def test_vectors_of_names_never_seen(form):
    obs = cells(drug=["control", "A", "B", "A+B"])
    frame = pd.DataFrame(TABLE).T
    given = {"mapping": TABLE, "frame": frame, "series of lists": dict(pd.Series(TABLE)), "key": "drugs"}[form]
    fitted = embedded(obs, given, {"drugs": frame})
    unit = np.sqrt((1 + 9) / 2)
    np.testing.assert_allclose(fitted.encode({"drug": "C"}, 1), [[0, 0, 2 / unit]], rtol=1e-6)
    np.testing.assert_allclose(fitted.encode({"drug": "B+C"}, 1), [[0, 3 / unit, 2 / unit]], rtol=1e-6)
    assert fitted.names == ("A", "B")
    assert not fitted.encode({"drug": "control"}, 1).any()
    with pytest.raises(ValueError, match=re.escape("No 'D' in 'drug': training had 'A', 'B', 'C'")):
        fitted.encode({"drug": "D"}, 1)


def test_vectors_of_a_category():
    obs = cells(drug=["control", "A"] * 2, line=["x", "x", "y", "y"])
    table = {"x": [1.0, 0.0], "y": [0.0, 1.0], "z": [0.5, 0.5]}
    fitted = Conditions("drug", categories=("line",), embeddings={"line": table}).fit(obs)
    np.testing.assert_allclose(fitted.encode({"drug": "A", "line": "z"}, 1), [[1, 0.5, 0.5]])


@pytest.mark.parametrize("write", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2")  # anndata about itself
def test_tables_in_uns_survive_files(tmp_path, write):
    obs = drugs().astype({"drug": "category"})
    obs.index = obs.index.astype(str)
    frame = pd.DataFrame(TABLE, index=["1", "2", "3"]).T
    adata = anndata.AnnData(
        np.zeros((len(obs), 1), "float32"),
        obs=obs,
        uns={"frame": frame, "mapping": {k: np.array(v) for k, v in TABLE.items()}},
    )
    getattr(adata, f"write_{write}")(tmp_path / f"cells.{write}")
    again = getattr(anndata, f"read_{write}")(tmp_path / f"cells.{write}")
    for key in ("frame", "mapping"):
        first, second = embedded(adata.obs, key, adata.uns), embedded(again.obs, key, again.uns)
        assert first.record() == second.record()
        np.testing.assert_array_equal(first.read(adata.obs).vectors, second.read(again.obs).vectors)


@pytest.mark.parametrize("conditions", ALL_CONDITIONS, ids=repr)
def test_the_setting_is_saved_and_read(conditions):
    stored = json.loads(json.dumps(encode(conditions)))
    assert decode(stored, name="conditions") == conditions
    assert pickle.loads(pickle.dumps(conditions)) == conditions


def test_the_name_of_a_column_stands_for_conditions():
    assert resolve("drug") == Conditions(treatment="drug")
    assert resolve(None) is None
    assert encode_settings({"conditions": "drug"}) == encode_settings({"conditions": Conditions("drug")})
    assert Conditions(["drug"], categories=["donor"]) == Conditions("drug", categories=("donor",))
    with pytest.raises(TypeError, match="the name of a column"):
        resolve(3)


def test_a_foreign_setting_is_no_part():
    with pytest.raises(CheckpointError, match="treatmant"):
        decode({"part": "Conditions", "values": {"treatmant": "drug"}}, name="conditions")


def some_records():
    obs = drugs()
    yield ALL.fit(obs).record()
    yield Conditions("drug", embeddings={"drug": TABLE}).fit(obs).record()
    yield Conditions(dose="dose").fit(obs).record()


@pytest.mark.parametrize("record", list(some_records()), ids=["columns", "vectors", "dose"])
def test_a_record_is_read_strictly(record):
    """Whatever is taken out of it, or exchanged for something else, is refused or means the same."""
    whole = FittedConditions.of(record)
    assert whole.record() == record

    def places(value, path=()):
        yield path
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            yield from places(value[key], (*path, key))

    for path in list(places(record))[1:]:
        for wrong in (None, -1.5, True, "q", [], {}, [[]], float("nan"), [1, 1]):
            damaged = json.loads(json.dumps(record))
            inner = damaged
            for key in path[:-1]:
                inner = inner[key]
            if inner[path[-1]] == wrong and type(inner[path[-1]]) is type(wrong):
                continue
            inner[path[-1]] = wrong
            try:
                found = FittedConditions.of(damaged)
            except (KeyError, TypeError, ValueError):
                continue
            assert np.isfinite(found.width)
            assert FittedConditions.of(found.record()).record() == found.record()
    for key in record:
        with pytest.raises(ValueError, match="Expected conditions with"):
            FittedConditions.of({name: value for name, value in record.items() if name != key})


BAD_CELLS = {
    "a condition with one cell": (lambda o: pd.concat([o, o[1:2].assign(drug="Z")]), "Only one cell has the condition"),
    "NaN dose": (lambda o: o.assign(dose=o["dose"].where(o["drug"] != "A")), "No dose in 'dose' for 'A'"),
    "negative dose": (lambda o: o.assign(dose=-o["dose"]), "doses of 0 or more in 'dose'; found -1"),
    "infinite dose": (lambda o: o.assign(dose=np.inf), "doses of 0 or more in 'dose'; found inf"),
    "words for doses": (lambda o: o.assign(dose="high"), "amounts in the dose column 'dose'"),
    "truth values for doses": (lambda o: o.assign(dose=True), "amounts in the dose column 'dose'"),
    "lengths of time for doses": (lambda o: o.assign(dose=pd.Timedelta(days=1)), "amounts in the dose column 'dose'"),
    "several units": (lambda o: o.assign(dose=["1 nM", "1 uM"] * 12), "doses in one unit in 'dose'; found 'nM', 'uM'"),
    "a unit at some": (lambda o: o.assign(dose=["100 nM", 1] * 12), "found some in 'nM' and 1 without a unit. Write"),
    "a unit at some, as text": (lambda o: o.assign(dose=["100 nM", "1"] * 12), "such as '1 nM'"),
    "a unit at one of two": (lambda o: o.assign(drug="A+B", dose="1 nM+3"), "found some in 'nM' and 3 without a unit"),
    "three cells of each": (
        lambda o: pd.concat([o] * 3).assign(donor=np.repeat(np.arange(24), 3)),
        "24 different values in 'donor': does it name cells",
    ),
    "more doses than names": (lambda o: o.assign(dose="1+2+3"), "Expected one dose, or"),
    "no treatment": (lambda o: o.assign(drug=o["drug"].where(o["drug"] != "A")), "Some cells have no treatment"),
    "half a combination": (lambda o: o.assign(drug="A+"), "no name on one side of '+'"),
    "no donor": (lambda o: o.assign(donor=o["donor"].where(o["donor"] != "x")), "Some cells have no value in 'donor'"),
    "no age": (lambda o: o.assign(age=o["age"].where(o["age"] != 20)), "finite numbers in 'age'"),
    "one age": (lambda o: o.assign(age=30), "'age' holds one number, 30"),
    "words for ages": (lambda o: o.assign(age="old"), "found 'old'"),
    "lists for names": (lambda o: o.assign(drug=[["A"]] * len(o)), "names or numbers in 'drug'; found list"),
    "barcodes for donors": (lambda o: o.assign(donor=o.index), "24 different values in 'donor': does it name cells"),
    "pseudotimes for ages": (lambda o: o.assign(age=np.linspace(0, 1, len(o))), "24 different values in 'age'"),
    "no cells": (lambda o: o[:0], "no cells"),
    "a column missing": (lambda o: o.drop(columns="dose"), "No column 'dose' for the conditions. Available: ['drug'"),
    "a column twice": (lambda o: pd.concat([o, o[["drug"]]], axis=1), "2 columns called 'drug'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CELLS)
def test_cells_that_cannot_be_read_are_refused(case):
    damage, said = BAD_CELLS[case]
    obs = drugs()
    before = obs.copy()
    with pytest.raises((ValueError, KeyError, TypeError), match=re.escape(said)):
        ALL.fit(damage(obs))
    pd.testing.assert_frame_equal(obs, before)


CURED = ["a condition with one cell", "NaN dose", "no treatment"]


@pytest.mark.parametrize("case", CURED)
def test_cures_cure(case):
    """The code that a message shows makes cells that can be read."""
    obs = BAD_CELLS[case][0](drugs()).reset_index(drop=True)
    obs.index = obs.index.astype(str)
    scope = {"adata": anndata.AnnData(np.zeros((len(obs), 1), "float32"), obs=obs)}
    with pytest.raises(ValueError, match="adata") as caught:
        ALL.fit(obs)
    exec(next(line for line in re.findall(r"`([^`]*)`", str(caught.value)) if line.startswith("adata")), scope)
    assert ALL.fit(scope["adata"].obs).names in (("A", "B"), ("B",))


BAD_CONDITIONS = {
    "an unseen name": ({"drug": "C"}, "No 'C' in 'drug': training had 'A', 'B'. Give vectors"),
    "an unseen donor": ({"donor": "q"}, "No 'q' in 'donor': training had 'x', 'y'"),
    "another column": ({"batch": 1}, "'batch' is not one of the columns of the fit"),
    "a dose below zero": ({"dose": -1}, "doses of 0 or more"),
    "no dose": ({"dose": None}, "No dose in 'dose' for 'A'"),
    "another number of rows": ({"dose": [1, 2]}, "Expected one value, or 3, for 'dose'; found 2"),
    "an age in other units": ({"age": 1e12}, "Is it in the same units?"),
    "a missing name": ({"drug": None}, "Some cells have no treatment"),
    "a list of names": ({"drug": [["A"]] * 3}, "names or numbers in 'drug'; found list"),
}


@pytest.mark.parametrize("case", BAD_CONDITIONS)
def test_conditions_that_cannot_be_asked_for_are_refused(case):
    change, said = BAD_CONDITIONS[case]
    fitted = ALL.fit(drugs())
    right = {"drug": "A", "dose": 1, "donor": "x", "age": 30}
    assert fitted.encode(right, 3).shape == (3, 5)
    with pytest.raises((ValueError, KeyError, TypeError), match=re.escape(said)):
        fitted.encode(right | change, 3)


@pytest.mark.parametrize("column", ["drug", "dose", "donor", "age"])
def test_a_condition_lacks_no_column(column):
    right = {"drug": "A", "dose": 1, "donor": "x", "age": 30}
    del right[column]
    with pytest.raises(KeyError, match=f"lacks '{column}'"):
        ALL.fit(drugs()).encode(right, 1)


@pytest.mark.parametrize("condition", ["A", None, 3, ["A"]])
def test_a_condition_is_a_mapping(condition):
    with pytest.raises(TypeError, match="a mapping from columns to values"):
        ALL.fit(drugs()).encode(condition, 1)


BAD_TABLES = {
    "unequal width": ({"A": [1.0], "B": [1.0, 2.0]}, "vectors of one length"),
    "NaN": ({"A": [1.0, np.nan], "B": [1.0, 2.0]}, "finite numbers for 'A'"),
    "too large": ({"A": [1.0, 1e39], "B": [1.0, 2.0]}, "finite numbers for 'A'"),
    "NaN in a frame": (pd.DataFrame({"x": [1.0, np.nan]}, index=["A", "B"]), "finite numbers for 'B'"),
    "words": ({"A": ["x"], "B": ["y"]}, "Expected numbers for 'A'"),
    "words in a frame": (pd.DataFrame({"x": ["1", "q"]}, index=["A", "B"]), "Expected numbers for 'B'"),
    "no vectors": ({"A": [], "B": []}, "vectors of one length"),
    "nothing": ({}, "a name for each vector"),
    "numbers": ({"A": 1.0, "B": 2.0}, "one row of numbers for 'A'"),
    "a name twice": (pd.DataFrame({"x": [1.0, 2.0, 3.0]}, index=["A", "B", "A"]), "found several for 'A'"),
    "a name twice in two types": ({1: [1.0], "1": [1.0]}, "found several for '1'"),
    "no name": (pd.DataFrame({"x": [1.0, 2.0]}, index=["A", None]), "a name for each vector"),
    "a name in the data missing": ({"A": [1.0]}, "no vector for 'B', which the data hold"),
    "zero": ({"A": [1.0, 0.0], "B": [0.0, 0.0]}, "the vectors of 'B' are 0, or cancel"),
    "all zero": ({"A": [0.0], "B": [0.0]}, "All vectors of `embeddings['drug']`"),
    "an array": (np.ones((2, 2)), "found ndarray"),
    "no such key": ("fingerprints", "No `uns['fingerprints']`"),
    "a key of something else": ("colors", "found list"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_tables_that_cannot_be_used_are_refused(case):
    table, said = BAD_TABLES[case]
    with pytest.raises((ValueError, KeyError, TypeError), match=re.escape(said)):
        embedded(cells(drug=["control", "A", "B"]), table, {"colors": ["red"]})


BAD_SETTINGS = {
    "no column": ({}, "a column or more"),
    "a column twice": ({"treatment": "drug", "categories": ("drug",)}, "'drug' twice"),
    "three doses": ({"treatment": ("a", "b"), "dose": ("c", "d", "e")}, "one for each of 2"),
    "doses of nothing": ({"dose": ("a", "b")}, "one column in `dose`"),
    "an empty separator": ({"treatment": "a", "separator": ""}, "`separator`"),
    "vectors of numbers": ({"treatment": "a", "numbers": ("n",), "embeddings": {"n": TABLE}}, "found 'n'"),
    "vectors twice": ({"treatment": ("a", "b"), "embeddings": {"a": TABLE, "b": TABLE}}, "under the first"),
    "a number for a column": ({"treatment": 3}, "expected `treatment`"),
    "a table for all": ({"treatment": "a", "embeddings": pd.DataFrame(TABLE)}, "a mapping or None; found DataFrame"),
    "one category": ({"treatment": "a", "categories": "donor"}, "expected `categories` to be a sequence"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_settings_that_contradict_each_other_are_refused(case):
    given, said = BAD_SETTINGS[case]
    with pytest.raises((ValueError, TypeError), match=re.escape(said)):
        Conditions(**given)


@pytest.mark.parametrize("name", ["ctrl", "DMSO", "Control", "non-targeting"])
def test_a_control_that_is_not_there_is_named(name, caplog):
    obs = cells(drug=[name, "A"])
    fitted = Conditions("drug").fit(obs)
    assert f"set `Conditions(control='{name}')`" in caplog.text
    with pytest.raises(ValueError, match=f"No control: expected cells with 'control' in 'drug'.*control='{name}'"):
        fitted.require_control(fitted.read(obs))
    right = Conditions("drug", control=name).fit(obs)
    right.require_control(right.read(obs))


def test_doses_without_a_zero_have_no_control():
    obs = cells(tgfb=[1.0, 2.0])
    fitted = Conditions(dose="tgfb").fit(obs)
    with pytest.raises(ValueError, match="a dose of 0 in 'tgfb'; found 'tgfb 1', 'tgfb 2'"):
        fitted.require_control(fitted.read(obs))


def test_a_thousand_conditions_are_read_in_seconds_and_never_as_cells_by_width():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {"gene": rng.choice([f"g{k}" for k in range(1000)], 100_000), "dose": rng.choice([1.0, 2.0], 100_000)}
    )
    fitted = Conditions("gene", "dose").fit(obs)
    table = fitted.read(obs)
    assert table.vectors.shape == (2000, 1000)
    assert table.index.shape == (100_000,)


def test_conditions_that_do_not_fit_into_memory_are_refused(monkeypatch):
    monkeypatch.setattr("cellflow.cells.fitted_conditions.MOST", 10)
    obs = cells(drug=["control", *"ABCD"])
    with pytest.raises(ValueError, match="5 conditions of 4 numbers each do not fit"):
        Conditions("drug").fit(obs).read(obs)


def test_conditions_are_public():
    assert cf.Conditions is Conditions
