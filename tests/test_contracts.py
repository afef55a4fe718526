"""What holds everywhere: layers, signatures, cold imports, every YAML instantiates, the namesake is refused."""

import ast
import importlib
import inspect
import operator
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

import cellflow as cf
from cellflow.cli import configs_folder

PACKAGE = Path(cf.__file__).parent
LAYERS = {
    "errors": 0, "files": 0, "lock": 0, "modes": 0, "renamed": 0, "machine": 0, "processes": 0, "seeds": 0,
    "shapes": 0, "signature": 0, "time_laws": 0, "together": 0, "batch": 0, "fields": 0, "paths": 0, "nearest": 0,
    "couplings": 1, "networks": 1, "integrate": 1,
    "objectives": 2, "metrics": 2, "cells": 2, "images": 2, "datasets": 2,
    "training": 3, "pairing": 3,
    "estimators": 4,
    "tl": 5, "pl": 5, "pp": 5, "doors": 5, "report": 5,
    "cli": 6, "__main__": 6, "data": 6,
}  # fmt: skip

HEAVY = {"scanpy", "matplotlib", "hydra", "ot", "lightning_fabric", "sklearn", "torchdiffeq"}


def files():
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its layer"
            yield node.module if node.module != "cellflow" else f"cellflow.{node.names[0].name}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_dependence_points_down(path):
    layer = LAYERS[room(path)]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "cellflow" and len(parts) > 1:
            assert LAYERS[parts[1]] <= layer, f"{path} imports {name}, which is above it"
        if parts[0] in ("anndata", "scanpy"):
            assert layer >= 2, f"{path}: nothing below layer 2 knows AnnData"
        if parts[0] in ("hydra", "omegaconf"):
            assert room(path) == "cli", f"{path}: only cli knows hydra"
        if parts[0] == "matplotlib":
            assert room(path) in ("pl", "report"), f"{path}: only pl and report draw"


def needed(path):
    """The files of cellflow that a file imports, inside functions too; nothing under TYPE_CHECKING ever runs."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (found for alias in node.names if (found := file_of(alias.name)))
        if isinstance(node, ast.ImportFrom):
            found = [file_of(f"{node.module}.{alias.name}") or file_of(node.module) for alias in node.names]
            yield from (file for file in found if file)


def file_of(name):
    place = PACKAGE.parent.joinpath(*name.split("."))
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def test_no_import_circle():
    """A room's `__init__.py` imports its files, so none of these may ask the room for a name."""
    graph = {path: {*needed(path)} - {PACKAGE / "__init__.py", path} for path in files()}
    while leaves := {path for path, targets in graph.items() if not targets & graph.keys()}:
        graph = {path: targets for path, targets in graph.items() if path not in leaves}
    assert not graph, f"import circle among {sorted(str(path.relative_to(PACKAGE)) for path in graph)}"


def test_the_page_on_architecture_shows_these_levels():
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    levels = re.findall(r"^(\d)  ([\w ]+)$", page, re.MULTILINE)
    shown = {room: int(level) for level, rooms in levels for room in rooms.split()}
    assert shown == {room: level for room, level in LAYERS.items() if room != "data"}  # which is kept for one version


def test_only_the_loop_trains():
    calls = [path for path in files() if ".backward(" in path.read_text()]
    assert [str(path.relative_to(PACKAGE)) for path in calls] == ["training/loop.py"]


def test_there_is_no_junk_drawer():
    names = {path.stem for path in files()}
    assert not names & {"utils", "helpers", "common", "misc", "core"}


@pytest.mark.parametrize("module", ["tl", "pl"])
def test_tools_and_plots_take_adata_first_and_keywords_after(module):
    found = importlib.import_module(f"cellflow.{module}")
    for name in found.__all__:
        parameters = list(inspect.signature(getattr(found, name)).parameters.values())
        free = [p.name for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
        allowed = {"adata", "flow", "predicted"}
        assert free[0] in ("adata", "flow"), f"{module}.{name}"
        assert set(free) <= allowed, f"{module}.{name} takes {free} by position"


def test_importing_cellflow_pulls_in_nothing_heavy():
    """Neither it, nor its couplings, nor the plots and reports before they draw."""
    code = (
        "import sys, cellflow, cellflow.couplings; print(*sys.modules); import anndata; before = set(sys.modules); "
        "import cellflow.pl, cellflow.report; print(*(set(sys.modules) - before))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    below, above = (set(line.split()) for line in shown.splitlines())
    assert "cellflow.couplings" in below
    assert "cellflow.pl" in above
    assert not below & (HEAVY | {"anndata", "scipy.optimize"})
    assert not above & {"matplotlib", "scanpy", "hydra"}


SHORT_LINES = {
    "--version": 0, "--help": 0, "fit --help": 0, "fti": 2, "fit --multi": 1, "fit stepz=3": 1, "fit steps=many": 1,
}  # fmt: skip
"""Command lines that nothing has to be loaded for, and the exit code of each."""


def test_the_command_line_loads_what_a_command_needs():
    code = (
        "import sys; from cellflow.cli import main; "
        f"codes = [main(line.split()) for line in {[*SHORT_LINES]}]; print(codes); print(*sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    codes, loaded = shown.stdout.splitlines()[-2:]
    assert codes == str([*SHORT_LINES.values()]), shown.stderr
    assert "cellflow.cli.schema" in loaded.split()
    roots = {name.partition(".")[0] for name in loaded.split()}
    assert not roots & {"torch", "numpy", "pandas", "anndata", *HEAVY - {"hydra"}}
    first = subprocess.run(
        [sys.executable, "-c", "import sys; from cellflow.cli import main; main(['--version']); print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "hydra" not in first.stdout.split()


def test_every_public_name_is_there():
    for name in cf.__all__:
        assert getattr(cf, name) is not None
    assert set(cf.__all__) <= set(dir(cf))
    with pytest.raises(AttributeError, match="no attribute 'SnapshotFlaw'"):
        cf.SnapshotFlaw  # noqa: B018


def test_what_messages_and_examples_name_is_there():
    said = {name for path in files() for name in re.findall(r"\bcf((?:\.\w+)+)", path.read_text())}
    for name in said:
        assert name.split(".")[1] in cf._MODULES | set(cf._NAMES), name
        operator.attrgetter(name[1:])(cf)


def test_a_namesake_in_the_environment_is_refused(monkeypatch):
    real = metadata.distribution
    monkeypatch.setattr(metadata, "distribution", lambda name: object() if name == "cellflow-tools" else real(name))
    with pytest.raises(ImportError, match="pip uninstall cellflow-tools"):
        importlib.reload(cf)
    monkeypatch.undo()
    importlib.reload(cf)


GROUPS = ("path", "coupling", "curve", "recipe", "network", "solver")
PART_FILES = sorted(path for group in GROUPS for path in (configs_folder() / group).glob("*"))


@pytest.mark.parametrize("path", PART_FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_yaml_instantiates(path):
    settings = OmegaConf.load(path)
    for key in OmegaConf.missing_keys(settings):
        settings[key] = 0.5
    part = instantiate(settings)
    assert part is not None
    if path.parent.name == "recipe":
        assert part == cf.training.Recipe()  # the file and the code have the same defaults


PUBLIC = (
    "paths", "couplings", "objectives", "networks", "integrate", "training", "cells", "images", "pairing",
    "datasets", "metrics", "estimators", "tl", "pl", "pp", "report",
)  # fmt: skip


def public_things(module):
    found = importlib.import_module(f"cellflow.{module}")
    for name in getattr(found, "__all__", [n for n in vars(found) if not n.startswith("_")]):
        thing = getattr(found, name)
        ours = getattr(thing, "__module__", "").startswith("cellflow")
        if ours and (inspect.isclass(thing) or inspect.isfunction(thing)) and not inspect.isabstract(thing):
            yield name, thing


@pytest.mark.parametrize("module", PUBLIC)
def test_public_functions_and_classes_have_an_example(module):
    """Protocols and result records are exempt: they are shown where they are used."""
    lacking = [
        name
        for name, thing in public_things(module)
        if ">>>" not in (thing.__doc__ or "")
        and not getattr(thing, "_is_protocol", False)
        and not hasattr(thing, "_fields")
    ]
    assert lacking == []


def test_the_former_room_of_the_data_still_opens_with_a_warning():
    from cellflow import data

    for room in ("pairing", "images", "cells"):
        for name in importlib.import_module(f"cellflow.{room}").__all__:
            with pytest.warns(FutureWarning, match=rf"cellflow\.{room}\.{name}"):
                assert getattr(data, name) is getattr(importlib.import_module(f"cellflow.{room}"), name)
    with pytest.warns(FutureWarning, match=r"cellflow\.Batch"):
        assert data.Batch is cf.Batch
    with pytest.raises(AttributeError, match="no attribute 'paired'"):
        data.paired  # noqa: B018


@pytest.mark.parametrize(
    ("command", "estimator", "elsewhere"),
    [
        ("fit", cf.SnapshotFlow, {"time_key", "rep"}),  # in the group `data`
        ("perturb", cf.PerturbationFlow, {"rep", "control"}),  # in the groups `data` and `conditions`
        ("translate", cf.DomainTranslator, {"rep", "network"}),  # no representation; a group, empty by default
        ("generate", cf.ImageGenerator, {"conditional", "network"}),  # follows from `labels`
    ],
)
def test_every_setting_of_an_estimator_can_be_set_on_the_command_line(command, estimator, elsewhere):
    with initialize_config_dir(str(configs_folder()), version_base="1.3"):
        cfg = compose(command)
    signature = inspect.signature(estimator).parameters
    assert set(estimator._get_param_names()) - set(cfg) == elsewhere
    for name in set(estimator._get_param_names()) - elsewhere - {"steps", "batch_size", "progress"}:
        if not OmegaConf.is_config(cfg[name]):  # a value has the same default in both; commands have budgets of theirs
            assert cfg[name] == signature[name].default, name
