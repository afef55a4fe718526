"""What pandas users write: every form of a choice of cells, of times, of groups and of numbers, at all that take one.

Cures that a message shows are run: they must cure.
"""

import itertools
import logging
import re
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

import cellflow as cf
from cellflow.cells.columns import read_groups, read_labels, read_numbers, read_weights
from cellflow.cells.snapshots import leave_out, read_snapshots, read_times
from cellflow.cells.states import positions
from cellflow.cells.time_labels import read_time_labels
from conftest import make_cells

QUICK = {"time_key": "day", "steps": 2, "batch_size": 8, "device": "cpu", "coupling": "exact", "growth": False}


@pytest.fixture(scope="module")
def fitted():
    adata = make_cells(sizes=(12, 14, 16))
    adata.obs["kind"] = ["a", "b"] * (adata.n_obs // 2)
    return adata, cf.SnapshotFlow(**QUICK).fit(adata)


def cured(adata, message):
    """Run the lines of code that a message shows, and return what `adata` is then."""
    scope = {"adata": adata.copy(), "pd": pd, "np": np}
    lines = [line for line in re.findall(r"`([^`]*)`", message) if re.match(r"adata(\.obs\[.*?\])? = ", line)]
    assert lines, message
    numbers = itertools.count()
    exec(re.sub(r"(?<=: )\.\.\.", lambda _: str(next(numbers)), lines[0]), scope)  # what the user is asked to fill in
    return scope["adata"]


FIRST = "cell3"
ALL_CHOICES = {
    "names": lambda a, m: list(a.obs_names[m]),
    "tuple": lambda a, m: tuple(a.obs_names[m]),
    "index": lambda a, m: a.obs_names[m],
    "array of names": lambda a, m: a.obs_names[m].to_numpy(),
    "text array": lambda a, m: a.obs_names[m].to_numpy().astype(str),
    "series of names": lambda a, m: pd.Series(a.obs_names[m]),
    "strings of pandas": lambda a, m: pd.array(a.obs_names[m], dtype="string"),
    "categorical": lambda a, m: pd.Categorical(a.obs_names[m]),
    "category series": lambda a, m: pd.Series(a.obs_names[m]).astype("category"),
    "query": lambda a, m: a.obs.assign(chosen=m).query("chosen"),
    "rows": lambda a, m: a.obs[m],
    "mask": lambda a, m: m,
    "mask as series": lambda a, m: pd.Series(m, index=a.obs_names),
    "mask in another order": lambda a, m: pd.Series(m, index=a.obs_names)[::-1],
    "nullable mask": lambda a, m: pd.Series(m, index=a.obs_names).astype("boolean"),
    "nullable array": lambda a, m: pd.array(m, dtype="boolean"),
    "mask of objects": lambda a, m: pd.Series(m, index=a.obs_names).astype(object),
    "list of truth values": lambda a, m: m.tolist(),
}
BAD_CHOICES = {
    "twice": (lambda a, m: [FIRST, FIRST], ValueError, "'cell3' is named twice"),
    "unknown": (lambda a, m: ["nobody"], KeyError, "No cells 'nobody'"),
    "one unknown name": (lambda a, m: "nobody", KeyError, "No cells 'nobody'"),
    "numbers": (lambda a, m: [3, 4], TypeError, r"found numbers.*obs_names\[positions\]"),
    "missing name": (lambda a, m: [FIRST, None], ValueError, "1 of 2 names of cells are missing"),
    "none": (lambda a, m: [], ValueError, "No cells were chosen"),
    "nobody in a mask": (lambda a, m: m & False, ValueError, "No cells were chosen"),
    "short mask": (lambda a, m: m[:5], ValueError, "mask over 42 cells; found one over 5"),
    "mask over some": (lambda a, m: pd.Series(m, index=a.obs_names)[:5], ValueError, "over other cells: 5"),
    "mask without names": (lambda a, m: pd.Series(m), ValueError, "over other cells.*to_numpy"),
    "mask with gaps": (
        lambda a, m: pd.Series(m, index=a.obs_names).astype("boolean").where(a.obs["day"] != 1),
        ValueError,
        "14 of 42 entries of the mask are neither True nor False.*fillna",
    ),
    "two axes": (lambda a, m: m[:, None], ValueError, r"one axis; found an array of shape \(42, 1\)"),
    "table of masks": (lambda a, m: a.obs[["day"]] == 0, TypeError, "Take one column"),
}
ALL_USERS_OF_CELLS = {
    "read": lambda a, flow, cells: flow.read(a, cells).rows,
    "push": lambda a, flow, cells: cf.tl.push(a, flow, cells=cells, at=5, copy=True).obs["push"],
    "pull": lambda a, flow, cells: cf.tl.pull(a, flow, cells=cells, at=0, copy=True).obs["pull"],
    "fate": lambda a, flow, cells: cf.tl.fate(a, flow, cells=cells, groupby="kind", at=1, copy=True).obsm["fate"],
    "trajectories": lambda a, flow, cells: cf.tl.trajectories(a, flow, cells=cells, copy=True).uns["trajectories"]["x"],
}
each_user = pytest.mark.parametrize("user", ALL_USERS_OF_CELLS)


def chosen_at(adata, user):
    return (adata.obs["day"] == (5 if user == "pull" else 0)).to_numpy()


@each_user
def test_cells_are_chosen_in_every_form(fitted, user):
    adata, flow = fitted
    mask = chosen_at(adata, user)
    expected = np.asarray(ALL_USERS_OF_CELLS[user](adata, flow, mask))
    for form, choice in ALL_CHOICES.items():
        found = ALL_USERS_OF_CELLS[user](adata, flow, choice(adata, mask))
        np.testing.assert_array_equal(np.asarray(found), expected, err_msg=form)


@each_user
def test_one_name_is_one_cell(fitted, user):
    adata, flow = fitted
    name = adata.obs_names[chosen_at(adata, user)][2]
    for form in (name, np.str_(name)):
        found = ALL_USERS_OF_CELLS[user](adata, flow, form)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(ALL_USERS_OF_CELLS[user](adata, flow, [name])))


@each_user
@pytest.mark.parametrize("choice", BAD_CHOICES)
def test_a_choice_that_cannot_be_meant_is_refused(fitted, user, choice):
    adata, flow = fitted
    make, kind, words = BAD_CHOICES[choice]
    with pytest.raises(kind, match=words):
        ALL_USERS_OF_CELLS[user](adata, flow, make(adata, chosen_at(adata, user)))


@pytest.mark.parametrize("choice", [{FIRST}, {FIRST: 1}, slice(0, 3), True, 3, None], ids=repr)
def test_what_is_no_list_is_no_choice(cells, choice):
    with pytest.raises(TypeError, match="Expected names of cells, or a mask over all of them; found"):
        positions(cells, choice)


WORDS = {
    "d0": "d{:g}", "E8.5": "E{:g}", "24h": "{:g}h", "24 h": "{:g} h", "day 3": "day {:g}", "P7": "P{:g}",
    "Day_3": "Day_{:g}", "3 days": "{:g} days", "t=3": "t={:g}", "with spaces": "  {:g} h  ", "both": "day {:g} pi",
    "hyphen": "day-{:g}",
}  # fmt: skip
ALL_TIMES = {
    **{name: lambda day, form=form: day.map(form.format) for name, form in WORDS.items()},
    "labels as categories": lambda day: day.map("d{:g}".format).astype("category"),
    "labels as ordered categories": lambda day: pd.Categorical(day.map("d{:g}".format), ordered=True),
    "labels as strings of pandas": lambda day: day.map("d{:g}".format).astype("string"),
    "singular and plural": lambda day: day.map(lambda d: f"{d:g} day" if d == 1 else f"{d:g} days"),
    "upper and lower case of a word": lambda day: day.map(lambda d: f"{'Day' if d else 'day'} {d:g}"),
    "Int64": lambda day: day.astype("Int64"),
    "Float64": lambda day: day.astype("Float64"),
    "objects": lambda day: day.astype(object),
    "Timedelta": lambda day: pd.to_timedelta(day, unit="D"),
    "Timedelta as objects": lambda day: pd.to_timedelta(day, unit="D").astype(object),
    "Timedelta as categories": lambda day: pd.to_timedelta(day, unit="D").astype("category"),
}


def with_time(values):
    adata = make_cells()
    adata.obs["day"] = pd.Series(np.asarray(values(adata.obs["day"]), dtype=object), index=adata.obs_names)
    adata.obs["day"] = pd.Series(values(make_cells().obs["day"]), index=adata.obs_names)
    return adata


@pytest.mark.parametrize("form", ALL_TIMES)
def test_every_form_of_time_gives_the_same_snapshots(form):
    expected = read_snapshots(make_cells(), time_key="day", rep="X_pca")
    found = read_snapshots(with_time(ALL_TIMES[form]), time_key="day", rep="X_pca")
    assert found.clock == expected.clock
    assert (found.time == expected.time).all()


def test_before_and_after_are_told_apart():
    found = read_snapshots(with_time(lambda day: (day - 1).map("day{:g}".format)), time_key="day", rep="X_pca")
    assert found.clock.times == (-1.0, 0.0, 4.0)


def test_how_labels_are_read_is_said_once(caplog):
    adata = with_time(lambda day: day.map("E{:g}".format))
    with caplog.at_level(logging.INFO, logger="cellflow"):
        cf.SnapshotFlow(**QUICK).fit(adata)
    said = [record.message for record in caplog.records if "read as" in record.message]
    assert len(said) == 1
    assert re.fullmatch(r"`adata.obs\['day'\]` is read as the numbers after 'E': 'E\d' is \d\.", said[0])


def test_a_flow_on_labels_is_that_on_numbers():
    plain, named = make_cells(), with_time(lambda day: day.map("d{:g}".format))
    one, other = (cf.SnapshotFlow(**QUICK).fit(adata) for adata in (plain, named))
    cf.tl.velocity(named, other)
    cf.tl.velocity(plain, one)
    assert (plain.obsm["velocity"] == named.obsm["velocity"]).all()
    assert cf.tl.interpolate(named, other, at=0.5).obs["day"].unique().tolist() == [0.5]
    assert cf.tl.interpolate(named, other, at="d1").obs["day"].unique().tolist() == [1.0]  # as its own column writes it
    for adata, flow, label in ((plain, one, "d1"), (named, other, "E1"), (named, other, "day one")):
        with pytest.raises(ValueError, match=f"'{label}'.*[Gg]ive a number in the unit|'{label}': not numbers"):
            cf.tl.interpolate(adata, flow, at=label)


DATES = pd.Timestamp("2024-03-01")
BAD_TIMES = {
    "E and P": (lambda day: day.map(lambda d: f"E{d:g}" if d < 5 else "P0"), "'E.*'P0', which need not be in one unit"),
    "hours and days": (lambda day: day.map(lambda d: "24h" if d < 5 else "3d"), "'24h', '3d'|'3d', '24h'"),
    "one without unit": (lambda day: day.map(lambda d: "0" if d < 1 else f"{d:g}h"), "need not be in one unit"),
    "m and M": (lambda day: day.map(lambda d: f"{d:g}m" if d < 5 else "3M"), "need not be in one unit"),
    "a control": (lambda day: day.map(lambda d: "control" if d < 1 else f"d{d:g}"), "'control'.*nor one number"),
    "two numbers": (lambda day: day.map("E{:g}_rep1".format), "nor one number"),
    "decimal comma": (lambda day: day.map("E{:g},5".format), "nor one number"),
    "early and late": (lambda day: pd.Categorical(np.where(day > 0, "late", "early"), ordered=True), "'early'"),
    "texts of dates": (lambda day: (DATES + pd.to_timedelta(day, unit="D")).dt.strftime("%Y-%m-%d"), "2024-03-01"),
    "dates": (lambda day: DATES + pd.to_timedelta(day, unit="D"), "datetime64.*not a length of time"),
    "dates as objects": (lambda day: (DATES + pd.to_timedelta(day, unit="D")).dt.date, "dates.*not a length of time"),
    "dates as categories": (
        lambda day: (DATES + pd.to_timedelta(day, unit="D")).astype("category"),
        "datetime64.*not a length of time",
    ),
    "periods": (lambda day: (DATES + pd.to_timedelta(day, unit="D")).dt.to_period("D"), "period.*not a length"),
    "bins": (lambda day: pd.cut(day, 3), "interval.*not a length of time"),
    "continuous": (lambda day: day + np.linspace(0, 0.9, len(day)), "150 different times for 150 cells"),
    "rounding": (lambda day: day + np.arange(len(day)) % 2 * 1e-12, "differ only by rounding"),
    "gaps": (lambda day: day.where(day != 1), "60 of 150 cells have no finite time"),
    "nullable gaps": (lambda day: day.astype("Float64").where(day != 1), "60 of 150 cells have no finite time"),
    "gaps in labels": (
        lambda day: day.map("d{:g}".format).astype(object).where(day != 1),
        "60 of 150 cells have no finite time",
    ),
    "infinite": (lambda day: day.where(day != 1, np.inf), "60 of 150 cells have no finite time"),
}


@pytest.mark.parametrize("form", BAD_TIMES)
def test_times_that_cannot_be_read_are_refused_with_a_cure_that_cures(form):
    make, words = BAD_TIMES[form]
    adata = with_time(make)
    with pytest.raises(ValueError, match=words) as refused:
        read_snapshots(adata, time_key="day", rep="X_pca")
    assert len(str(refused.value)) < 700
    mended = cured(adata, str(refused.value))
    made = (set(mended.obs) - set(adata.obs)) or {"day"}
    assert len(np.unique(read_times(mended, made.pop()))) >= 2


@pytest.mark.parametrize("labels", [["T-1", "T-0"], ["day-3", "day-7"], ["d-1"]], ids=repr)
def test_a_hyphen_that_may_be_a_minus_is_refused(labels):
    with pytest.raises(ValueError, match="a hyphen, or a minus"):
        read_time_labels(labels, what="`adata.obs['day']`")


NUMBERS = np.arange(42) % 3 + 0.5
ALL_NUMBERS = {
    "float64": lambda x: x,
    "float32": lambda x: x.astype(np.float32),
    "float16": lambda x: x.astype(np.float16),
    "Float64": lambda x: pd.array(x, dtype="Float64"),
    "objects": lambda x: x.astype(object),
    "text": lambda x: x.astype(str),
    "strings of pandas": lambda x: pd.array(x.astype(str), dtype="string"),
    "categories": pd.Categorical,
    "categories of text": lambda x: pd.Categorical(x.astype(str)),
}
ALL_WHOLE_NUMBERS = {
    "int64": lambda x: x.astype(int),
    "uint8": lambda x: x.astype(np.uint8),
    "Int64": lambda x: pd.array(x.astype(int), dtype="Int64"),
    "UInt8": lambda x: pd.array(x.astype(int), dtype="UInt8"),
    "whole categories": lambda x: pd.Categorical(x.astype(int)),
}
READERS = {"weight_key": read_weights, "prior_key": lambda adata, key: read_numbers(adata, key, setting="prior_key")}


def with_column(values):
    adata = make_cells(sizes=(12, 14, 16))
    adata.obs["kind"] = pd.Series(values, index=adata.obs_names)
    return adata


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", ALL_NUMBERS | ALL_WHOLE_NUMBERS)
def test_numbers_are_read_in_every_form(reader, form):
    whole = form in ALL_WHOLE_NUMBERS
    numbers = NUMBERS.round() if whole else NUMBERS
    found = READERS[reader](with_column((ALL_WHOLE_NUMBERS if whole else ALL_NUMBERS)[form](numbers)), "kind")
    assert found.dtype == np.float64
    assert (found == numbers).all()


def gaps(values):
    return pd.Series(values).mask(np.arange(42) < 4)


BAD_NUMBERS = {
    "gaps": (lambda x: gaps(x).to_numpy(), "4 of 42 cells have no finite number"),
    "nullable gaps": (lambda x: gaps(x).astype("Float64").array, "4 of 42 cells have no finite number"),
    "gaps in categories": (lambda x: gaps(x).astype("category").array, "4 of 42 cells have no finite number"),
    "gaps in objects": (lambda x: gaps(x).astype(object).where(np.arange(42) > 3, None).array, "4 of 42 cells"),
    "infinite": (lambda x: np.where(x == 0.5, np.inf, x), "14 of 42 cells have no finite number"),
    "text": (lambda x: np.where(x == 0.5, "low", "1"), "found 'low' at 14 cells"),
    "complex": (lambda x: x + 1j, "found complex128"),
    "dates": (lambda x: pd.to_datetime(["2024-03-01"] * 42), "found datetime64"),
    "lengths of time": (lambda x: pd.to_timedelta(x, unit="D"), "found timedelta64"),
}


@pytest.mark.parametrize("setting", READERS)
@pytest.mark.parametrize("form", BAD_NUMBERS)
def test_numbers_that_are_none_are_refused_with_a_cure_that_cures(setting, form):
    make, words = BAD_NUMBERS[form]
    adata = with_column(make(NUMBERS))
    growing = {"growth": True, "coupling": "auto"} if setting == "prior_key" else {}
    with pytest.raises(ValueError, match=words) as refused:
        cf.SnapshotFlow(**QUICK | growing, **{setting: "kind"}).fit(adata)
    if "first:" in str(refused.value):
        both = re.findall(r"`adata[^`]* = [^`]*`", str(refused.value))
        assert len(both) == 2
        for line in both:
            assert np.isfinite(READERS[setting](cured(adata, line), "kind")).all()


LABELS = np.array(["1", "2"])[np.arange(42) % 2]
ALL_LABELS = {
    "text": lambda x: x,
    "objects": lambda x: x.astype(object),
    "strings of pandas": lambda x: pd.array(x, dtype="string"),
    "categories": pd.Categorical,
    "categories that nobody has": lambda x: pd.Categorical(x, categories=["0", "1", "2", "9"]),
    "ordered categories": lambda x: pd.Categorical(x, ordered=True),
    "whole numbers": lambda x: x.astype(int),
    "Int64": lambda x: pd.array(x.astype(int), dtype="Int64"),
    "categories of whole numbers": lambda x: pd.Categorical(x.astype(int)),
}


def gaps_in(adata, column):
    column = adata.obs["kind"].copy()
    return column.where(np.arange(len(column)) > 3, None if column.dtype == object else pd.NA)


ALL_USERS_OF_LABELS = {
    "push groupby": lambda a, flow: cf.tl.push(
        a, flow, cells=a.obs["day"] == 0, at=5, groupby="kind", copy=True
    ).uns["push"]["groups"],
    "pull groupby": lambda a, flow: cf.tl.pull(
        a, flow, cells=a.obs["day"] == 5, at=0, groupby="kind", copy=True
    ).uns["pull"]["groups"],
    "fate groupby": lambda a, flow: cf.tl.fate(a, flow, groupby="kind", copy=True).obsm["fate"],
    "validate groupby": lambda a, flow: cf.tl.validate(
        a, flow, groupby="kind", keep_aside=False, copy=True
    ).uns["validation_couplings"].drop(columns=["score", "method", "cells"]),
    "validate lineage_key": lambda a, flow: cf.tl.validate(
        a, flow, lineage_key="kind", keep_aside=False, copy=True
    ).uns["validation_couplings"].drop(columns=["score", "method", "cells"]),
    "within": lambda a, flow: [cf.SnapshotFlow(**QUICK, within="kind").fit(a).history_["loss"]],
}  # fmt: skip
each_user_of_labels = pytest.mark.parametrize("user", ALL_USERS_OF_LABELS)


@pytest.fixture(scope="module")
def flow():
    """A flow that has not seen day 1, so that nothing is fitted again to validate it."""
    return cf.SnapshotFlow(**QUICK).fit(leave_out(make_cells(sizes=(12, 14, 16)), "day", 1))


@each_user_of_labels
def test_labels_are_read_in_every_form(flow, user):
    expected = ALL_USERS_OF_LABELS[user](with_column(LABELS), flow)
    for form, make in ALL_LABELS.items():
        found = ALL_USERS_OF_LABELS[user](with_column(make(LABELS)), flow)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected), err_msg=form)
        assert [*getattr(found, "columns", [])] == [*getattr(expected, "columns", [])], form


@pytest.mark.parametrize("user", [name for name in ALL_USERS_OF_LABELS if name != "within"])
def test_cells_without_a_label_are_the_same_in_every_form(flow, user):
    def made(form):
        adata = with_column(ALL_LABELS[form](LABELS))
        adata.obs["kind"] = adata.obs["kind"].mask(np.arange(42) < 4)
        return np.asarray(ALL_USERS_OF_LABELS[user](adata, flow))

    expected = made("objects")
    for form in ("strings of pandas", "categories that nobody has", "Int64"):
        np.testing.assert_array_equal(made(form), expected, err_msg=form)


@each_user_of_labels
@pytest.mark.parametrize(
    ("column", "kind", "words"),
    [
        ("nowhere", KeyError, r"No `adata.obs\['nowhere'\]`. Available: \['day', 'kind'\]. Set `"),
        (["kind"], TypeError, "Expected the name of one column|expected `(groupby|lineage_key|within)` to be text"),
        (3, TypeError, "Expected the name of one column|expected `(groupby|lineage_key|within)` to be text"),
    ],
)
def test_columns_are_named_and_are_there(flow, user, column, kind, words):
    adata, setting = with_column(LABELS), user.split()[-1]
    ask = {
        "push": lambda: cf.tl.push(adata, flow, cells=adata.obs["day"] == 0, at=5, groupby=column),
        "pull": lambda: cf.tl.pull(adata, flow, cells=adata.obs["day"] == 5, at=0, groupby=column),
        "fate": lambda: cf.tl.fate(adata, flow, groupby=column),
        "validate": lambda: cf.tl.validate(adata, flow, keep_aside=False, **{setting: column}),
        "within": lambda: cf.SnapshotFlow(**QUICK, within=column).fit(adata),
    }[user.split()[0]]
    with pytest.raises(kind, match=words):
        ask()


@each_user_of_labels
def test_a_pseudotime_is_no_group(flow, user):
    with pytest.raises(ValueError, match="42 different numbers for 42 cells: no groups") as refused:
        ALL_USERS_OF_LABELS[user](with_column(np.linspace(0, 1, 42)), flow)
    mended = cured(with_column(np.linspace(0, 1, 42)), str(refused.value))
    assert read_labels(mended, "part", setting="groupby").nunique() == 5


READ_COLUMN = {
    "time_key": lambda adata: read_times(adata, "kind"),
    "within": lambda adata: read_groups(adata, "kind", setting="within"),
    "groupby": lambda adata: read_labels(adata, "kind", setting="groupby"),
    "weight_key": lambda adata: read_weights(adata, "kind"),
}


@pytest.mark.parametrize("reader", READ_COLUMN)
def test_a_name_of_two_columns_is_refused(reader):
    adata = with_column(LABELS)
    with warnings.catch_warnings(action="ignore"):
        adata.obs = pd.concat([adata.obs, adata.obs[["kind"]]], axis=1)
    with pytest.raises(ValueError, match="2 columns called 'kind'"):
        READ_COLUMN[reader](adata)


def test_every_gap_in_groups_is_counted_and_cured():
    adata = with_column(pd.Series(LABELS, dtype=object).mask(np.arange(42) < 4).array)
    with pytest.raises(ValueError, match="4 of 42 cells have no group") as refused:
        cf.SnapshotFlow(**QUICK, within="kind").fit(adata)
    assert len(read_groups(cured(adata, str(refused.value)), "kind", setting="within")) == 38


SIZES = {0.0: 1.0, 1.0: 2.0, 5.0: 3.0}
ALL_MASSES = {
    "mapping": SIZES,
    "series": pd.Series(SIZES),
    "series in another order": pd.Series(SIZES)[::-1],
    "series of whole numbers": pd.Series(SIZES).astype(int),
    "nullable series": pd.Series(SIZES).astype("Int64"),
    "text as times": pd.Series(SIZES.values(), index=["0", "1", "5"]),
    "lengths of time": pd.Series(SIZES.values(), index=pd.to_timedelta(list(SIZES), unit="D")),
    "objects": pd.Series(SIZES, dtype=object),
    "more than is needed": pd.Series({**SIZES, 9.0: 4.0}),
    "row of a table": pd.DataFrame({"size": SIZES})["size"],
}
BAD_MASSES = {
    "without times": (pd.Series([1.0, 2.0, 3.0]), "No size at time 5 in `masses`"),
    "a time twice": (pd.Series([1.0, 1.0, 2.0, 3.0], index=[0, 0, 1, 5]), "0 occurs twice"),
    "gap": (pd.Series({**SIZES, 1.0: np.nan}), "finite sizes above 0"),
    "nullable gap": (pd.Series({**SIZES, 1.0: pd.NA}, dtype="Float64"), "Expected numbers as sizes.*<NA>"),
    "text": (pd.Series({**SIZES, 1.0: "many"}), "Expected numbers as sizes.*'many'"),
    "labels": (pd.Series(SIZES.values(), index=["d0", "d1", "d5"]), "'d0', 'd1', 'd5': not numbers"),
    "table": (pd.DataFrame({"size": SIZES}), "a mapping from time to size; found DataFrame"),
    "array": (np.ones(3), "a mapping from time to size; found ndarray"),
    "list": ([1.0, 2.0, 3.0], "a mapping from time to size; found list"),
    "another word": ("count", "a mapping from time to size; found 'count'"),
}


def grown(masses):
    settings = QUICK | {"growth": True, "coupling": "exact"}
    return cf.SnapshotFlow(**settings, masses=masses).fit(make_cells(sizes=(12, 14, 16)))


@pytest.mark.parametrize("form", ALL_MASSES)
def test_sizes_are_read_by_their_times(form, tmp_path):
    flow = grown(ALL_MASSES[form])
    assert flow.masses_ == (1.0, 2.0, 3.0)
    flow.save(tmp_path)
    loaded = cf.SnapshotFlow.load(tmp_path)
    assert loaded.masses_ == flow.masses_
    assert loaded.fit(make_cells(sizes=(12, 14, 16))).masses_ == flow.masses_


def test_numbers_of_cells_are_sizes():
    counts = make_cells(sizes=(12, 14, 16)).obs["day"].value_counts()
    assert grown(counts).masses_ == grown("counts").masses_


@pytest.mark.parametrize("form", BAD_MASSES)
def test_sizes_that_cannot_be_meant_are_refused(form):
    masses, words = BAD_MASSES[form]
    with pytest.raises(ValueError, match=words):
        grown(masses)


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_columns_are_the_same_after_a_file(kind, tmp_path):
    adata = with_column(pd.Categorical(LABELS))
    adata.obs["label"] = pd.Series(adata.obs["day"].map("d{:g}".format), dtype="category")
    adata.obs["weight"] = pd.array(NUMBERS.round().astype(int), dtype="Int64")
    with warnings.catch_warnings(action="ignore"):
        getattr(adata, f"write_{kind}")(tmp_path / "cells")
    back = getattr(anndata, f"read_{kind}")(tmp_path / "cells")
    assert (read_times(back, "label") == adata.obs["day"]).all()
    assert (read_weights(back, "weight") == NUMBERS.round()).all()
    assert (read_labels(back, "kind", setting="groupby") == LABELS).all()
