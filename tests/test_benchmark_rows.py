"""What all benchmarks share: rows in a file, numbers on a page, the command line."""

import math
import multiprocessing

import pytest

from benchmarks import command, page
from benchmarks.rows import RESULTS, Table, text_of, value_of

ALL_TABLES = sorted(RESULTS.glob("*.csv"))


def test_rows_of_the_same_thing_give_way(tmp_path):
    table = Table(tmp_path / "rows.csv", ("a", "b"), ("a", "b", "c"))
    table.put({"a": "x", "b": 1, "c": 0.25}, {"a": "y", "b": 1, "c": None})
    table.put({"a": "x", "b": 1, "c": 0.5}, {"a": "x", "b": 2, "c": 3, "d": True})
    found = [("x", 1, 0.5, None), ("y", 1, None, None), ("x", 2, 3, True)]
    assert [tuple(row.values()) for row in table.read()] == found
    assert [row["c"] for row in table.read(a="x", b=2)] == [3]
    assert table.read(a="x", b=3) == []


def test_rows_of_two_sizes_are_refused(tmp_path):
    table = Table(tmp_path / "rows.csv", ("a",))
    table.refuse_others("size", "large")
    table.put({"a": 1, "size": "small"})
    table.refuse_others("size", "small")
    with pytest.raises(ValueError, match="holds rows of small; asked for large.*--out"):
        table.refuse_others("size", "large")


@pytest.mark.parametrize("value", [None, True, False, 0, -3, 12, 0.25, -1e-07, 1.5e10, math.inf, "", "x", "07", "1e5"])
def test_values_survive_the_file(value):
    assert value_of(text_of(value)) == (value if value != "" else None)


@pytest.mark.parametrize("settings", ["2898422917", "0123456789", "4587e31234", "c0defd5ff8"])
def test_digests_are_letters_whatever_they_look_like(settings, tmp_path):
    """A row that is read and put again keeps its own, and is found by it."""
    table = Table(tmp_path / "rows.csv", ("seed",))
    table.put({"seed": 1, "settings": settings}, {"seed": 2})
    table.put(*table.read())
    assert table.read(settings=settings) == [{"seed": 1, "settings": settings}]
    assert table.read(seed=2)[0]["settings"] is None


def test_not_a_number_survives_the_file():
    assert math.isnan(value_of(text_of(math.nan)))
    assert text_of(0.123456) == "0.12346"


@pytest.mark.parametrize("path", ALL_TABLES, ids=lambda path: path.stem)
def test_old_rows_are_kept_to_the_letter(path, tmp_path):
    """Adding a row to a committed table changes none of its numbers."""
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    columns = path.read_text().splitlines()[0].split(",")
    Table(copy, tuple(columns)).put({columns[0]: "a new row"})
    before, after = (Table(file, tuple(columns))._texts() for file in (path, copy))
    assert after[:-1] == before
    assert after[-1][columns[0]] == "a new row"


def keep_some(path, seed):
    """Keep a row again and again, in a process of its own."""
    for k in range(20):
        Table(path, ("method", "seed")).put({"method": f"m{k}", "seed": seed, "device": "abacus"})


def test_seeds_are_kept_side_by_side(tmp_path):
    table = Table(tmp_path / "toy.csv", ("method", "seed"))
    runs = [multiprocessing.get_context("fork").Process(target=keep_some, args=(table.path, k)) for k in range(3)]
    for run in runs:
        run.start()
    while any(run.is_alive() for run in runs):
        assert {row["device"] for row in table.read()} <= {"abacus"}  # never half a file
    assert sorted((row["method"], row["seed"]) for row in table.read()) == sorted(
        (f"m{k}", seed) for k in range(20) for seed in range(3)
    )


def test_numbers_are_shown_with_their_intervals():
    assert page.shown({"fd": 12.345, "fd_low": 11.0, "fd_high": 14.2}, "fd") == "12.3 [11, 14.2]"
    assert page.shown({"fd": None}, "fd") == page.shown({}, "fd") == ""
    assert page.spread([1.0, 3.0], error=".2g") == "2 (1.4)"
    assert page.spread([2.0]) == "2"
    assert page.table(["a", 1], [["x", None]]) == ["| a | 1 |", "|---|---|", "| x |  |"]


def test_settings_are_read_with_and_without_dashes(tmp_path):
    known = {"flow_steps": int, "method": command.Several(["a", "b", "a, b"]), "sizes": (1, 2), "kind": ["x", "y"]}
    given = command.options("toy", "", ["flow_steps=3", f"out={tmp_path / 'new'}", "--method", "b,a, b"], **known)
    assert (given.flow_steps, given.method, given.sizes, given.kind) == (3, ["b", "a, b"], (1, 2), "x")
    assert given.out.is_dir()
    assert given.command == f"python -m benchmarks.toy flow_steps=3 out={tmp_path / 'new'} --method 'b,a, b'"
    given = command.options("toy", "", ["--method=all", "sizes=4", "kind=y", f"out={tmp_path}"], **known)
    assert (given.flow_steps, given.method, given.sizes, given.kind) == (None, ["a", "b", "a, b"], (4,), "y")
    assert command.options("toy", "", ["method=", f"out={tmp_path}"], **known).method == []


def test_tables_go_into_a_folder_of_their_own_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.options("images toy", "About.", []).out.as_posix() == "runs/bench/images/toy"
    assert command.options("images toy", "About.", ["--commit-table"]).out == RESULTS
