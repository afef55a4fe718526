"""What CONTRIBUTING.md says of adding a part is true of every part that there is; the version is said in one place."""

import inspect
import re
from pathlib import Path

import pytest
import yaml

import cellflow as cf

ROOT = Path(__file__).parents[1]
ROWS = dict(re.findall(r"^\| (an? [\w ]+) \| (.+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))


def classes(room, base=None):
    """The classes that a room exports, without protocols."""
    found = {name: getattr(room, name) for name in getattr(room, "__all__", dir(room))}
    return [
        name
        for name, thing in found.items()
        if inspect.isclass(thing)
        and not getattr(thing, "_is_protocol", False)
        and (not base or issubclass(thing, base))
    ]


def functions(room):
    return [name for name in room.__all__ if inspect.isfunction(getattr(room, name))]


PARTS = {
    "a path": [name for name in classes(cf.paths, cf.paths.GaussianPath) if name != "GaussianPath"],
    "a coupling": [name for name in classes(cf.couplings) if hasattr(getattr(cf.couplings, name), "keeps_mass")],
    "an objective": [name for name in classes(cf.objectives) if name.endswith("Matching")],
    "a solver": ["Fixed", "Adaptive", "Jumps", "Noisy"],
    "a tool": functions(cf.tl),
    "a plot": functions(cf.pl),
    "a data set": functions(cf.datasets),
}


def files(kind):
    return [ROOT / place for place in re.findall("`(.+?)`", ROWS[kind])]


def text(place):
    """What a file says, or all files of a folder."""
    return "\n".join(file.read_text() for file in ([place] if place.is_file() else sorted(place.glob("*.*"))))


def test_the_table_is_of_the_kinds_that_are_looked_at():
    assert ROWS.keys() == PARTS.keys()
    assert all(len(names) > 3 for names in PARTS.values())


@pytest.mark.parametrize("kind", PARTS)
def test_every_part_is_in_all_files_of_its_row(kind):
    for place in files(kind):
        said = text(place)
        assert [name for name in PARTS[kind] if not re.search(rf"\b{name}\b", said)] == [], place.relative_to(ROOT)


def test_documents_link_to_files_that_are_there():
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md"):
        links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / name).read_text())
        assert [link for link in links if not (ROOT / link).exists()] == [], name


def test_the_version_is_said_where_it_is_read_and_nowhere_else():
    assert cf.__version__ == yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert f"## {cf.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()


def test_forms_and_workflows_can_be_read():
    for file in [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"]:
        assert yaml.safe_load(file.read_text()), file
