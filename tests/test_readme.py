"""The README to the letter, and the pages behind it: every example and every call that answers a question runs."""

import ast
import copy
import importlib
import re
import shlex
from functools import partial
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import pytest
import yaml
from sklearn.base import BaseEstimator, clone

import cellflow as cf
from cellflow.cli import COMMANDS, configs_folder
from cellflow.cli.image_runs import write
from cellflow.cli.schema import SHORT

ROOT = Path(__file__).parents[1]
README, QUESTIONS, PARTS, COMMAND_LINE = (
    (ROOT / page).read_text() for page in ("README.md", "docs/questions.md", "docs/parts.md", "docs/command_line.md")
)
SECTIONS = {
    text.partition("\n")[0]: text for page in (QUESTIONS, PARTS) for text in re.split(r"^## ", page, flags=re.MULTILINE)
}
WITH_CODE = [title for title, text in SECTIONS.items() if "```python" in text]
SMALL = partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)
FEW = {
    "SnapshotFlow": "steps=15",
    "DomainTranslator": "steps=2, batch_size=4, network=SMALL",
    "ImageGenerator": "steps=2, batch_size=4, network=SMALL",
    "PerturbationFlow": "steps=15",
    "Geodesics": "steps=15",
    "distill": "steps=2",
    "refine": "steps=2, coupling=cf.training.Reflow(solver=2)",
    "fate": "n_samples=2",
}
FEWER = {"fit": "steps=15", "translate": "steps=2", "tune": "grid={'steps': [1, 2]}", "tuned": "grid={'steps': [1, 2]}"}
"""Settings in place of a page's, which take minutes: for every call of that name, and where it says one itself."""


class Hurried(ast.NodeTransformer):
    """The same lines with few steps, small networks and few digits."""

    def visit_Call(self, node):
        self.generic_visit(node)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        said = {keyword.arg for keyword in node.keywords}
        few = [word for word in keywords(FEW.get(name, "")) if word.arg != "network" or None not in said]
        few += [word for word in keywords(FEWER.get(name, "")) if word.arg in said]
        node.keywords = [word for word in node.keywords if word.arg not in {word.arg for word in few}] + few
        return ast.parse(f"{ast.unparse(node)}.take(range(40))", mode="eval").body if name == "digits" else node


def keywords(words):
    return ast.parse(f"f({words})", mode="eval").body.keywords


def run(code, names):
    """Execute lines of a page in few steps; `...` would be a gap that the reader has to fill."""
    tree = ast.parse(code)
    assert not any(node.value is ... for node in ast.walk(tree) if isinstance(node, ast.Constant)), f"a gap in {code}"
    names["SMALL"] = SMALL
    exec(compile(ast.fix_missing_locations(Hurried().visit(tree)), "page.md", "exec"), names)
    plt.close("all")


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def questions(text):
    """What is run of a section, by question: first its example, then what stands under each heading."""
    for part in re.split(r"^### ", text, flags=re.MULTILINE):
        title, _, said = part.partition("\n")
        code = re.findall(r"```python\n(.*?)```|(?<!`)`([^`\n]+)`(?!`)", said, flags=re.DOTALL)
        yield title, [block or line for block, line in code if block or re.search(r"\w[.(=]", line)]


def rows(text):
    """The calls of a table, by the question beside them."""
    for table in re.findall(r"^\| Question \| Call \|\n\|[-|]+\|\n((?:\|.*\n)+)", text, flags=re.MULTILINE):
        for line in table.splitlines():
            question, call = line.strip("|").split(" | ")
            yield question.strip(), re.findall(r"`([^`]+)`", call)


def try_call(code, names):
    """Run a statement, or set what is a setting: of the estimator at hand, or of a command."""
    if re.fullmatch(r"\w+=\S.*", code):
        settings = [word.partition("=")[::2] for word in shlex.split(code)]
        if len(settings) > 1:
            known = settings_of("translate")
            assert all(key in known for key, _ in settings), f"{code} is no setting of `cellflow translate`"
        else:
            (setting,) = eval(f"dict({code})", names).items()
            found = [value for value in names.values() if isinstance(value, BaseEstimator)]
            assert any(setting[0] in estimator.get_params() for estimator in found), f"{code} is no setting"
            for estimator in found:
                if setting[0] in estimator.get_params():
                    clone(estimator).set_params(**dict([setting]))
    else:
        run(code, names)


def settings_of(name):
    """The settings of a command, and the groups it chooses from."""
    config = yaml.safe_load((configs_folder() / f"{name}.yaml").read_text())
    for part in config.pop("defaults", []):
        if isinstance(part, dict):
            config |= {key.removeprefix("override ").split("@")[-1]: None for key in part}
        elif part not in ("_self_", "hydra"):
            config |= settings_of(part)
    return config


def apart(names):
    """The same objects to write into: what one row does is not seen by the next."""
    own = {name: value.copy() for name, value in names.items() if isinstance(value, anndata.AnnData)}
    fitted = {name: copy.deepcopy(value) for name, value in names.items() if isinstance(value, BaseEstimator)}
    return names | own | fitted


@pytest.mark.filterwarnings("ignore:Growth depends on the relaxation")  # which the page says
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")  # of anndata, about its next version
@pytest.mark.parametrize("title", WITH_CODE)
def test_every_block_and_every_call_runs(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(cf.datasets.digits().take(range(3)), tmp_path / "folder")
    files = sorted(path.name for path in (tmp_path / "folder").rglob("*.png"))
    (tmp_path / "plate.csv").write_text("file,drug\n" + "".join(f"{file},A\n" for file in files))
    names: dict[str, object] = {}
    asked = questions(SECTIONS[title])
    for code in next(asked)[1]:
        try_call(code, names)
    if isinstance(cells := names.get("adata"), anndata.AnnData) and "hours" in cells.obs:
        cells[cells.obs["hours"] < 48].write_h5ad("day2.h5ad")
        cells[cells.obs["hours"] >= 48].write_zarr("day4.zarr")
    for question, calls in asked:
        here = apart(names)
        for code in calls:
            try:
                try_call(code, here)
            except Exception as error:
                error.add_note(f"{question} `{code}`")
                raise


def test_gaps_and_unknown_settings_are_found():
    with pytest.raises(AssertionError, match="a gap"):
        run("f(cells=...)", {"f": dict})
    with pytest.raises(AssertionError, match="no setting"):
        try_call("stream=true seize=64", {})
    with pytest.raises(AssertionError, match="no setting"):
        try_call("bent=1.0", {"flow": cf.SnapshotFlow()})
    found = {question: calls for text in SECTIONS.values() for question, calls in questions(text)}
    assert found["Can I trust it?"][0].startswith("cf.tl.validate(")
    assert found["How are cells paired?"] == ['coupling="exact"', "flow.turnover_", 'within="donor"']


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_examples_of_the_first_pages_are_among_those_that_run(page):
    known = {ast.unparse(ast.parse(code)) for text in SECTIONS.values() for code in blocks(text)}
    shown = [ast.unparse(ast.parse(code)) for code in blocks((ROOT / page).read_text())]
    assert shown
    assert [code for code in shown if code not in known] == []


def test_calls_of_the_readme_are_among_those_that_run():
    known = {question: "\n".join(calls) for text in SECTIONS.values() for question, calls in questions(text)}
    table = dict(rows(README))
    assert len(table) > 5
    for question, calls in table.items():
        assert [call for call in calls if call not in known[question]] == [], question


def test_the_readme_is_read_in_a_minute():
    lines = README.splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > 132] == []


@pytest.mark.slow
@pytest.mark.parametrize("title", WITH_CODE)
def test_every_block_runs_as_printed(title, capsys):
    names: dict[str, object] = {}
    for code in blocks(SECTIONS[title].partition("\n### ")[0]):
        exec(compile(code, "page.md", "exec"), names)
    plt.close("all")
    if "samples" in names:
        assert float(capsys.readouterr().out) < 0.25  # the clouds are 5.7 apart


def test_the_example_of_one_step_runs(capsys):
    names: dict[str, object] = {}
    for code in blocks((ROOT / "docs" / "one_step.md").read_text()):
        run(code, names)
    assert "one Euler step is off by" in capsys.readouterr().out


@pytest.mark.slow
def test_the_example_of_one_step_runs_as_printed(capsys):
    names: dict[str, object] = {}
    for block in blocks((ROOT / "docs" / "one_step.md").read_text()):
        exec(compile(block, "one_step.md", "exec"), names)
    euler, jump = (float(number) for number in re.findall(r"\d\.\d+", capsys.readouterr().out))
    assert jump < 0.75 * euler


def parts_named(text):
    return re.findall(r"`([A-Z]\w+|[a-z]+_\w+)\b[^`]*`", text)


def exists(name, rooms):
    return any(hasattr(importlib.import_module(f"cellflow.{room}"), name) for room in rooms)


def test_choices_of_parts_exist():
    table = re.search(r"^\| Part \| Choices \|\n\|[-|]+\|\n((?:\|.*\n)+)", PARTS, flags=re.MULTILINE)[1]
    for line in table.splitlines():
        part, choices = line.strip("|").split(" | ")
        for name in parts_named(choices):
            assert exists(name, re.findall(r"\w+", part)), f"{part}: {name}"


def test_published_methods_are_made_of_parts_that_exist():
    heads = r"^\| Method \| Path \| Coupling \| Objective \|\n\|[-|]+\|\n((?:\|.*\n)+)"
    table = re.search(heads, PARTS, flags=re.MULTILINE)[1].splitlines()
    assert len(table) > 8
    for line in table:
        method, *parts = line.strip("|").split(" | ")
        for room, cell in zip(("paths", "couplings", "objectives"), parts, strict=True):
            for name in parts_named(cell):
                assert exists(name, (room, "training")), f"{method}: {name}"


def test_every_command_is_on_its_page():
    assert set(re.findall(r"^cellflow (\w+)", COMMAND_LINE, flags=re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize("page", ["README.md", "docs/command_line.md", "docs/microscopy.md"])
def test_settings_of_commands_on_a_page_exist(page):
    lines = re.findall(r"^cellflow \w.*", (ROOT / page).read_text(), flags=re.MULTILINE)
    assert lines
    for line in lines:
        command, *settings = shlex.split(line, comments=True)[1:]
        known = settings_of(command)
        for key in (word.partition("=")[0] for word in settings if "=" in word):
            whole = key if key in known else SHORT.get(key, key)
            assert whole.split(".")[0] in known, f"`cellflow {command}` has no setting {key}"


@pytest.mark.parametrize(
    "page",
    [
        "README.md", "docs/questions.md", "docs/parts.md", "docs/command_line.md", "docs/migrate.md",
        "docs/one_step.md", "docs/architecture.md", "docs/large_data.md", "docs/microscopy.md",
    ],
)  # fmt: skip
def test_files_that_a_page_shows_are_there(page):
    for target in re.findall(r"\]\((?!https:)([^)#]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_on_a_page_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / page).read_text()))
    assert named
    assert named <= targets
