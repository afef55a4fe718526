"""The README to the letter: its code runs, and every call of its tables too, on the README's own data."""

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

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SECTIONS = {text.partition("\n")[0]: text for text in re.split(r"^## ", README, flags=re.MULTILINE)[1:]}
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
"""Settings in place of the README's, which take minutes: for every call of that name, and where it says one itself."""


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
    """Execute lines of the README in few steps; `...` would be a gap that the reader has to fill."""
    tree = ast.parse(code)
    assert not any(node.value is ... for node in ast.walk(tree) if isinstance(node, ast.Constant)), f"a gap in {code}"
    names["SMALL"] = SMALL
    exec(compile(ast.fix_missing_locations(Hurried().visit(tree)), "README.md", "exec"), names)
    plt.close("all")


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def rows(text):
    """The code in the second column of each table of calls, by the question beside it."""
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


@pytest.mark.filterwarnings("ignore:Growth depends on the relaxation")  # which the README says
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")  # of anndata, about its next version
@pytest.mark.parametrize("title", WITH_CODE)
def test_every_block_and_every_call_runs(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(cf.datasets.digits().take(range(3)), tmp_path / "folder")
    files = sorted(path.name for path in (tmp_path / "folder").rglob("*.png"))
    (tmp_path / "plate.csv").write_text("file,drug\n" + "".join(f"{file},A\n" for file in files))
    names: dict[str, object] = {}
    for code in blocks(SECTIONS[title]):
        run(code, names)
    if isinstance(cells := names.get("adata"), anndata.AnnData) and "hours" in cells.obs:
        cells[cells.obs["hours"] < 48].write_h5ad("day2.h5ad")
        cells[cells.obs["hours"] >= 48].write_zarr("day4.zarr")
    for question, calls in rows(SECTIONS[title]):
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
    questions = {question for text in SECTIONS.values() for question, _ in rows(text)}
    assert questions >= {"Can I trust it?", "One step, not fifty?"}


@pytest.mark.slow
@pytest.mark.parametrize("title", WITH_CODE)
def test_every_block_runs_as_printed(title, capsys):
    names: dict[str, object] = {}
    for code in blocks(SECTIONS[title]):
        exec(compile(code, "README.md", "exec"), names)
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


def test_parts_in_the_readme_exist():
    table = re.search(r"^\| Part \| Choices \|\n\|[-|]+\|\n((?:\|.*\n)+)", README, flags=re.MULTILINE)[1]
    for line in table.splitlines():
        part, choices = line.strip("|").split(" | ")
        for name in re.findall(r"`([A-Z]\w+|[a-z]+_\w+)`", choices):
            rooms = [importlib.import_module(f"cellflow.{room}") for room in re.findall(r"\w+", part)]
            assert any(hasattr(room, name) for room in rooms), f"{part}: {name}"


def test_commands_in_the_readme_exist():
    used = set(re.findall(r"^cellflow (\w+)", README, flags=re.MULTILINE))
    assert used == set(COMMANDS)
    for line in re.findall(r"^cellflow \w.*", README, flags=re.MULTILINE):
        command, *settings = shlex.split(line, comments=True)[1:]
        known = settings_of(command)
        for key in (word.partition("=")[0] for word in settings if "=" in word):
            assert key.split(".")[0] in known, f"`cellflow {command}` has no setting {key}"


@pytest.mark.parametrize(
    "page", ["README.md", "docs/one_step.md", "docs/architecture.md", "docs/large_data.md", "docs/microscopy.md"]
)
def test_files_that_a_page_shows_are_there(page):
    for target in re.findall(r"\]\((?!https:)([^)#]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), target


def test_make_targets_in_the_readme_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) - {"and"} <= targets
