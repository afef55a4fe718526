"""Settings on the command line: every one of every command, with values of every other kind, and with odd names."""

import re
import shlex
import typing
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml

import cellflow as cf
from cellflow.cli import COMMANDS, compose, configs_folder, kinds, main, parts
from cellflow.cli.checks import check_all, leaves
from cellflow.cli.former import KINDS
from cellflow.cli.former_rules import RULES
from cellflow.cli.schema import OF_COMMANDS, PARTS, SETTINGS, kind_of
from cellflow.cli.words import read_line
from conftest import make_cells

NEEDED = {
    "fit": ["data.path=a.h5ad", "data.time_key=day"],
    "interpolate": ["model=run", "at=1"],
    "velocity": ["model=run"],
    "fate": ["model=run", "groupby=kind"],
    "report": ["model=run"],
    "distill": ["model=run"],
}
CHOICES = [
    ["path=linear"], ["path=brownian_bridge", "path.sigma=0.3"], ["path=trigonometric"], ["path=variance_preserving"],
    ["coupling=auto"], ["coupling=exact"], ["coupling=hierarchical"], ["coupling=independent"], ["coupling=unbalanced"],
    ["coupling=sinkhorn", "coupling.epsilon=0.5"],
    ["curve=geodesics"], ["curve=mean"], ["curve=spline"], ["curve=straight"],
    ["network=mlp"], ["network=unet"], ["recipe=default"],
    ["solver=adaptive"], ["solver=default"], ["solver=fixed"], ["solver=jumps"], ["solver=noisy"],
    ["task=snapshots"], ["task=hematopoiesis"], ["task=translation"],
]  # fmt: skip
"""Every YAML file of a part or a task."""
FOREIGN = re.compile(
    r"Traceback|hydra(?!/launcher)|omegaconf|HYDRA_|LexerNoViable|ConfigKeyError|not in struct|Could not override", re.I
)
"""Words of others, which say nothing to a user."""


def settings(command, *words):
    return compose.settings_from(command, [*NEEDED.get(command, []), *words])


@cache
def all_settings():
    """Return each setting of each command, with the words that make it one.

    Asked for by tests, not when they are collected, which every process of a run does.
    """
    return list(_all_settings())


def _all_settings():
    for command in COMMANDS:
        seen = set()
        for choice in [[], *CHOICES]:
            if choice and not _takes(command, choice[0]):
                continue
            cfg = settings(command, *choice)
            names = [name for name, _ in leaves(cfg)]
            for group in PARTS:
                if isinstance(cfg.get(group), dict) and cfg[group].get("_target_"):
                    taken = parts.parameters(parts.find(cfg[group]["_target_"]))
                    names += [f"{group}.{name}" for name in taken]
            for name in names:
                key = (name, str(cfg.get(name.partition(".")[0], {}).get("_target_")) if "." in name else "")
                if key not in seen and not name.endswith("_"):
                    seen.add(key)
                    yield command, choice, name


def _takes(command, word):
    return word.partition("=")[0] in compose._chosen(command, ())


VALUES = {
    "true": bool, "off": bool, "YES": bool, "3": int, "-7": int, "0.25": float, "2e-3": float, "null": type(None),
    "maybe": str, "it's": str, "[1,2]": list, "[[a,b],{c: d}]": list, "{a: 1}": dict, "[1,": str, "{": str, "": None,
    "1e999": str, "nan": str, "9" * 40: str, "${seed}": str, "${oc.env:HOME}": str, "!!python/name:os.system": str,
}  # fmt: skip
"""Words of every kind."""


def test_every_file_and_every_group_is_crossed():
    files = {f"{path.parent.name}={path.stem}" for path in configs_folder().glob("*/*.yaml")}
    assert {choice[0] for choice in CHOICES} == files


def test_every_setting_of_every_file_is_of_a_known_kind_and_none_else_is():
    names = {name for _, _, name in all_settings() if name.partition(".")[0] not in PARTS}
    assert names == {name for name in SETTINGS if name != "solver.steps"}
    assert all(name in names for known in OF_COMMANDS.values() for name in known)
    flat = [name for names in RULES for name in ([names] if isinstance(names, str) else names)]
    assert set(flat) - {"growth"} == set(KINDS)


@pytest.mark.parametrize("choice", [[], *CHOICES], ids=str)
def test_our_own_files_hold_values_of_their_kinds(choice):
    for command in COMMANDS:
        if not choice or _takes(command, choice[0]):
            check_all(settings(command, *choice), command)


def fits(value, kind):
    """Whether a value is of a kind, by another route than `kinds`."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is typing.Any or kind is parts.inspect.Parameter.empty:
        return True
    if origin in (typing.Union, kinds.types.UnionType):
        return any(fits(value, each) for each in args)
    if origin is Annotated:
        return fits(value, args[0])
    if origin is Literal:
        return value in args
    if kind is bool or kind is int:
        return type(value) is kind
    if kind is float:
        return type(value) in (int, float)
    if kind in (str, Path):
        return isinstance(value, str) and value != ""
    if kind in (None, type(None)):
        return value is None
    return isinstance(value, dict if origin in (dict, kinds.Mapping) else list)


def says(word, kind):
    """Whether a word may be one of a kind: no other word is a truth value, a number or nothing."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, kinds.types.UnionType):
        return any(says(word, each) for each in args)
    if origin is Annotated:
        return says(word, args[0])
    if kind in (bool, int, float, type(None)):
        return VALUES[word] is kind or (kind is float and VALUES[word] is int)
    return origin is not Literal or word in args


def kind(command, cfg, name):
    group, _, inner = name.partition(".")
    if group not in PARTS or not cfg[group].get("_target_"):
        return kind_of(name, command)
    return parts.kind_in(parts.parameters(parts.find(cfg[group]["_target_"])), inner)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_takes_its_kind_and_refuses_others_in_a_sentence(command):
    refused = 0
    for _, choice, name in [each for each in all_settings() if each[0] == command]:
        expected = kind(command, settings(command, *choice), name)
        for word in set(VALUES) - ({"null"} if name == "growth" else set()):  # a former spelling
            try:
                cfg = settings(command, *choice, f"{name}={word}")
            except (ValueError, TypeError) as error:
                refused += 1
                said = str(error)
                assert len(said.split()) > 3, (name, word, said)
                assert not FOREIGN.search(said.replace(word, "")), (name, word, said)
                last = name.rpartition(".")[2]
                assert f"`{name}`" in said or last in said or "mass" in said or "epsilon" in said, (name, word, said)
            else:
                found = cfg
                for key in name.split("."):
                    found = found[key]
                assert fits(found, expected), (name, word, found)
                assert says(word, expected), (name, word, found)
    assert refused >= 7 * len([each for each in all_settings() if each[0] == command and "data.path" not in each]) / 2


@pytest.mark.parametrize(
    ("word", "value"),
    [("true", True), ("Yes", True), ("ON", True), ("false", False), ("no", False), ("off", False)],
)
def test_every_yes_and_no_of_every_command_is_read_as_meant(word, value):
    for command, choice, name in all_settings():
        cfg = settings(command, *choice)
        if kind(command, cfg, name) is bool:
            found = settings(command, *choice, f"{name}={word}")
            for key in name.split("."):
                found = found[key]
            assert found is value, (command, name)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("validate=maybe", "Expected `validate` to be true or false; found 'maybe'."),
        ("validate=1", "Expected `validate` to be true or false; found '1'."),
        ("recipe.learning_rate=true", "Expected `recipe.learning_rate` to be a number; found 'true'."),
        ("steps=2.5", "Expected `steps` to be a whole number of at least 1; found '2.5'."),
        ("steps=0", "Expected `steps` to be a whole number of at least 1; found '0'."),
        ("ot_batch_size=half", "to be a whole number of at least 1, 'auto' or 'whole'; found 'half'."),
        ("device=tpu", "Expected `device` to be 'auto', 'cpu'"),
        ("data.path=", "Expected `data.path` to be a list of paths or a path; found nothing."),
        ("data.path=null", "No file null"),
        ("time_key=day", "Did you mean `data.time_key`?"),
        ("recipe.learning_rat=1", "Did you mean `recipe.learning_rate`?"),
        ("coupling=exakt", "Unknown coupling 'exakt'. Choose from: 'auto', 'exact'"),
        ("path.sigmas=1", "Did you mean `path.sigma`?"),
        ("network._target_=nowhere.Network", "there is no module `nowhere`"),
        ("network._target_=cellflow.networks.MLQ", "Did you mean `MLP`?"),
        ("network._target_=MLP", "Expected `network._target_` to be a dotted name"),
        ("steps", "Expected a setting such as `seed=1`; found 'steps', without a value."),
        ("~steps", "found '~steps', without a value"),
        ("=3", "without a name"),
        ("--multi", "Unknown flag '--multi'. Did you mean `--multirun`?"),
        ("--cfg=job", "Unknown flag '--cfg=job'"),
        ("--config-dir=nowhere", "No folder nowhere"),
        ("hydra.job.chdir=true", "belongs to a sweep; add `-m`"),
        ("taught=perhaps", "Expected `taught` to be true or false"),
        ("bend=[", "Expected `bend` to be a number"),
        ("steps=[" + "[" * 500, "Expected `steps` to be a whole number"),
        ("masses=[" + "[" * 500, "Expected `masses` to be 'counts'"),
    ],
)
def test_wrong_words_end_in_one_sentence_before_anything_is_done(word, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *NEEDED["fit"], word]) == 1
    shown = capsys.readouterr().err
    assert said in shown
    assert not FOREIGN.search(shown.replace(word, "")), shown
    assert len(shown.strip().splitlines()) == 1, shown
    assert list(tmp_path.iterdir()) == []


NAMES = [
    "a(1).h5ad", "a=b.h5ad", "it's.h5ad", "a%20.h5ad", "two words.h5ad", "a,b.h5ad", "[x].h5ad", "{y}.h5ad",
    "é漢字.h5ad",     "$HOME.h5ad", "${HOME}.h5ad", "${oc.env:HOME}.h5ad", "a\\b.h5ad", "~x.h5ad", "a'b\"c.h5ad", '"',
    "'", "a\tb", "#x",
    "a: b", "[", "}", "- a", "null.h5ad", "true", "1e3", "!x", "&a", "*a", "@b", "a|b", "`a`", "%", "a;b", "?", "<a>",
    "../a", " a", "a ", "a\nb", "\\", "\\'", "range(3)", "choice(a,b)", "???",
]  # fmt: skip
"""Names that a file, a column, a group or a gene can have."""


@cache
def texts():
    """Return each setting that takes a path or a text."""
    return list(names_of(Path, str))


def names_of(*wanted):
    for command, choice, name in all_settings():
        if not choice and name.partition(".")[0] not in PARTS:
            expected = kind_of(name, command)
            if any(each is one for one in wanted for each in (expected, *typing.get_args(expected))):
                yield command, name


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_are_taken_as_they_are_by_every_setting_that_takes_one(name):
    assert {"data.path", "model", "out", "source", "input", "data.time_key", "groupby"} < {each for _, each in texts()}
    for command, setting in texts():
        lists = ("data.holdout", "markers", "data.genes")
        if setting in ("task", "at", "features", "masses", *lists):  # choices, numbers, lists
            continue
        if setting.startswith("conditions.") and name.startswith(("[", "{")):  # one column, or a list of them
            continue
        for said in (name, quoted(name)):
            found = settings(command, f"{setting}={said}")
            for key in setting.split("."):
                found = found[key]
            assert found == name, (command, setting, said)


def quoted(name):
    """As a careful user quotes, so that quotes reach the command."""
    return name if set("'\"\\") & set(name) else f"'{name}'"


def test_lists_hold_names_too():
    assert settings("demo", "markers=[\"it's\", 'a,b', ID1, 1e3, no]").markers == ["it's", "a,b", "ID1", "1e3", "no"]
    assert settings("fit", "data.genes=[\"it's\", 'a,b', 1e3]").data.genes == ["it's", "a,b", "1e3"]


def test_home_is_where_a_leading_tilde_leads(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert settings("fit", "out=~/runs").out == "/home/somebody/runs"
    assert settings("fit", "out=~runs").out == "~runs"


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_files_of_any_name_are_fitted_and_the_run_is_found_again(name, tmp_path, capsys, monkeypatch):
    """Through the whole command, to the error that the file is no AnnData: its name is in it."""
    monkeypatch.chdir(tmp_path)
    if "/" in name:
        return
    file = name if name.endswith(".h5ad") else f"{name}.h5ad"
    Path(file).write_bytes(b"no cells")
    assert main(["fit", f"data.path={file}", "data.time_key=it's"]) == 1
    shown = capsys.readouterr().err
    assert file in shown
    assert "No file" not in shown
    assert not FOREIGN.search(shown.replace(file, ""))


ODD = "it's ${oc.env:HOME} (1)=[x],é"


@pytest.mark.usefixtures("unreported")
def test_a_run_in_an_odd_folder_with_odd_columns_goes_all_the_way(tmp_path, capsys):
    """Also: what ends up in config.yaml is text, whoever reads it."""
    cells = make_cells()
    cells.obs[ODD] = cells.obs["day"]
    cells.write_h5ad(tmp_path / f"{ODD}.h5ad")
    run = tmp_path / ODD
    fast = ["steps=3", "progress=no", "device=cpu", "validate=off", "regularize=no", "network.width=8"]
    assert main(["fit", f"data.path={tmp_path}/{ODD}.h5ad", f"data.time_key={ODD}", f"out={run}", *fast]) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["time_key"] == ODD
    assert cf.SnapshotFlow.load(run).time_key == ODD
    assert main(["interpolate", f"model={run}", "at=3", "solver.steps=2"]) == 0
    assert main(["report", f"model={run}", "validate=no"]) == 0
    capsys.readouterr()
    assert main(["fit", f"data.path={tmp_path}/{ODD}.h5ad", f"data.time_key={ODD}", f"out={run}", *fast]) == 1
    assert "already holds a run" in capsys.readouterr().err


def test_jobs_of_a_sweep_split_at_commas_but_not_in_quotes_or_brackets():
    line = read_line(
        ["-m", "data.path='a,b.h5ad',c.h5ad", "data.holdout=[1],[2,3]", "seed=range(2)", "steps=choice(7)"]
    )
    assert len(line.jobs()) == 8
    assert line.jobs()[0] == ["data.path='a,b.h5ad'", "data.holdout=[1]", "seed=0", "steps=7"]
    assert read_line(["data.path=a,b.h5ad"]).jobs() == [["data.path=a,b.h5ad"]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "seed=0,x"], "Expected `seed` to be a whole number; found 'x'."),
        (["-m", "seed=range(0)"], "found 0."),
        (["-m", "seed=range(99999999)"], "found 99,999,999"),
        (["-m", "seed=range(999)", "steps=range(1,999)"], "at most 10,000 jobs; found 997,002"),
        (["-m", "seed=0", "hydra/launcher=nowhere"], "Unknown hydra/launcher 'nowhere'. Choose from: 'basic'"),
        (["-m", "seed=0", "hydra.launcher.n_jobs=2"], "Unknown setting of a sweep 'hydra.launcher.n_jobs'"),
    ],
)
def test_a_sweep_is_checked_to_its_end_before_its_first_job(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *NEEDED["fit"], *words]) == 1
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


OWN = {
    "width: 16": None,
    "width: no": "Expected `network.width` to be a whole number or null; found False.",
    "width: '16'": "Expected `network.width` to be a whole number or null; found '16'.",
    "width: [16]": "found [16]",
    "widht: 16": "Did you mean `network.width`?",
    "width: ${oc.env:HOME}": "'${oc.env:HOME}' refers to another",
    "width: ${": "'${' refers to another",
    "defaults: [mlp]": "expected no `defaults`",
    "width: [": "expected YAML, found something else in line",
    "width: !!python/name:os.system 1": "found a tag",
    "width: &a 1\ndepth: *a": "found a reference",
    "width: " + "[" * 400: "lists within lists",
    "width: 2020-13-45": "a date or a number that cannot be",
}


@pytest.mark.parametrize("line", OWN)
def test_files_of_ones_own_are_checked_in_the_same_way(line, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "network").mkdir(parents=True)
    part = "_target_: cellflow.networks.MLP\n_partial_: true\n"
    (tmp_path / "mine" / "network" / "own.yaml").write_text(f"{part}{line}\n")
    words = [*NEEDED["fit"], "network=own"]
    if OWN[line] is None:
        assert compose.settings_from("fit", words, "mine").network.width == 16
        return
    assert main(["fit", *words, "--config-dir", "mine"]) == 1
    shown = capsys.readouterr().err
    assert OWN[line] in shown
    assert not FOREIGN.search(shown), shown


def test_what_goes_on_after_ctrl_c_is_what_was_typed(tmp_path):
    from cellflow.cli.goodbye import again

    words = ["data.path=it's.h5ad", "data.time_key=a b", "out=x"]
    assert shlex.split(again("fit", words, "out=y (1)")) == ["cellflow", "fit", *words[:2], "out=y (1)", "resume=true"]


@pytest.mark.parametrize("command", COMMANDS)
def test_messages_of_the_library_name_settings_as_the_command_does(command):
    known, said = compose.defaults(command), partial(compose.in_its_words, command=command)
    inside = [name for value in known.values() if isinstance(value, dict) for name in value]
    for group, settings in known.items():
        assert said(f"Set `{group}`, or `{group}=1`.") == f"Set `{group}`, or `{group}=1`."
        for name in settings if isinstance(settings, dict) else ():
            full = name if name in known or inside.count(name) > 1 else f"{group}.{name}"
            assert said(f"Set `{name}`, `{name}=1`, not {name}.") == f"Set `{full}`, `{full}=1`, not {name}."


def test_examples_can_be_pasted_into_every_shell():
    """Square brackets are patterns of file names in zsh, which refuses those that match nothing."""
    root = Path(__file__).parents[1]
    pages = [
        *root.glob("configs/**/*.yaml"),
        *root.glob("docs/**/*.md"),
        root / "README.md",
        root / "benchmarks/README.md",
    ]
    lines = [
        (path, line) for path in pages for line in path.read_text().splitlines() if re.search(r"\bcellflow \w", line)
    ]
    assert len(lines) > 50
    bare = [(path.name, line) for path, line in lines if re.search(r"(?<![\"'\w.])[\w.]+=\[", line)]
    assert not bare


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Set `skip_unreadable=True`.", "Set `skip_unreadable=true`."),
        ('Set fit="pad" to keep all.', 'Set fit="pad" to keep all.'),  # a shell takes the quotes away
        ("Fit one with `conditional=True`.", "Fit one with `labels=folder`."),
        ("Found key='a b', x == 'c'.", "Found key='a b', x == 'c'."),
    ],
)
def test_values_are_shown_as_they_are_typed(said, shown):
    assert compose.in_its_words(said, "generate") == shown


def test_a_missing_column_is_named_by_the_setting_of_the_command_line(tmp_path, capsys):
    path = tmp_path / "cells.h5ad"
    cf.datasets.branching(seed=0).write_h5ad(path)
    assert main(["fit", f"data.path={path}", "data.time_key=day", f"out={tmp_path / 'run'}"]) == 1
    assert "Set `data.time_key`." in capsys.readouterr().err
