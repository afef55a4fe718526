"""The pages of the site, without building it: links and names are right, nothing is left out, one tutorial runs."""

import ast
import importlib.util
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import cellflow as cf

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path for path in [*DOCS.rglob("*.md"), *(ROOT / "benchmarks").glob("README.md")] if "_" not in path.parts
)
LIST_OF_TUTORIALS = DOCS / "tutorials" / "index.md"
TUTORIALS = sorted(set((DOCS / "tutorials").glob("*.md")) - {LIST_OF_TUTORIALS})
CODE = re.compile(r"```\{code-cell\} python\n(.*?)```", flags=re.DOTALL)
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.md"))


def named(path):
    return str(path.relative_to(ROOT))


def anchors(text):
    """The anchors of a page's headings, as MyST and GitHub make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def module_at(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def generated(path):
    """Whether a page is made by ``docs/_ext/rooms.py`` from a room."""
    return path.parent == DOCS / "api" and path.suffix == ".rst" and path.stem in {"cellflow", *cf.__all__}


@pytest.mark.parametrize("page", [*PAGES, *RESULTS], ids=named)
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        where = (page.parent / file).resolve() if file else page
        assert where.exists() or generated(where), f"{named(page)}: no file {target}"
        if anchor:
            assert anchor in anchors(where.read_text(encoding="utf-8")), f"{named(page)}: no heading {target}"


@pytest.mark.filterwarnings("ignore:.*is now:FutureWarning")  # the migration shows former names
@pytest.mark.parametrize("page", PAGES, ids=named)
def test_names_on_a_page_exist(page):
    for name in re.findall(r"\bcf((?:\.[A-Za-z_]\w*)+)", page.read_text(encoding="utf-8")):
        found = cf
        for word in name.split(".")[1:]:
            if not hasattr(found, word):
                pytest.fail(f"{named(page)}: no cf{name}")
            found = getattr(found, word)


def test_every_page_is_in_a_list_of_contents():
    listed = set()
    for page in PAGES:
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            for line in block.splitlines():
                if line and not line.startswith(":"):
                    listed |= {path.resolve() for path in page.parent.glob(f"{line}.md")}
    missing = {named(page) for page in [*PAGES, *RESULTS] if page not in listed} - {"docs/index.md"}
    assert missing <= {"docs/figures/README.md"}, f"in no toctree: {sorted(missing)}"


def test_the_reference_lists_every_public_name():
    rooms = module_at(DOCS / "_ext" / "rooms.py")
    described = {name.rpartition(".")[2] for names in rooms.entries().values() for name in names}
    for room in rooms.rooms().values():
        assert set(rooms.names_of(room)) <= described
    assert {name for name in cf.__all__ if name not in rooms.rooms()} <= described
    text = rooms.page("paths", cf.paths, rooms.entries()["paths"])
    assert ".. autoclass:: cellflow.paths.BrownianBridge" in text


@pytest.mark.parametrize("page", TUTORIALS, ids=named)
def test_cells_of_a_tutorial_are_code(page):
    cells = CODE.findall(page.read_text(encoding="utf-8"))
    assert cells
    for code in cells:
        ast.parse(code)


def test_a_method_of_your_own_runs_in_few_steps():
    text = (DOCS / "tutorials" / "method.md").read_text(encoding="utf-8")
    names = {}
    for code in CODE.findall(text):
        quick = re.sub(r"steps=[13]00", "steps=10", code.replace("1000", "200"))
        exec(compile(quick, "method.md", "exec"), names)
    plt.close("all")
    assert list(names["paths"]) == ["OT-CFM", "own path", "own coupling", "own objective"]
    assert all(bool(x.isfinite().all()) for x in names["paths"].values())
    t = names["torch"].tensor([0.0, 1.0])
    assert [weight.tolist() for weight in names["Gentle"]().coefficients(t)[:2]] == [[1.0, 0.0], [0.0, 1.0]]
    assert names["flow"].path == names["Gentle"]()


def test_every_tutorial_has_its_run_time_below_two_minutes():
    rows = re.findall(r"^\| \[.*?\]\((\w+\.md)\).*\| (\d+) \|$", LIST_OF_TUTORIALS.read_text(), flags=re.MULTILINE)
    assert sorted(name for name, _ in rows) == [path.name for path in TUTORIALS]
    assert all(0 < int(seconds) < 120 for _, seconds in rows)


def test_every_page_of_benchmarks_answers_a_question():
    questions, _, _ = (DOCS / "benchmarks.md").read_text().partition("```{toctree}")
    assert set(re.findall(r"results/(\w+\.md)", questions)) == {path.name for path in RESULTS}


def test_the_browser_check_finds_links_that_lead_nowhere(tmp_path):
    browser = module_at(DOCS / "_check" / "browser.py")
    for name in ("a.html", "b c.html"):
        (tmp_path / name).touch()
    home = "http://here/"
    good = ["http://here/b%20c.html#place", "http://here/a.html", "https://elsewhere.org/gone.html#x"]
    pages = {"a.html": {"links": good, "names": []}, "b c.html": {"links": [], "names": ["place"]}}
    assert browser.broken_links(pages, home, tmp_path) == []
    pages["b c.html"]["links"] = ["http://here/gone.html", "http://here/a.html#gone"]
    found = browser.broken_links(pages, home, tmp_path)
    assert found == ["b c.html: no place gone on a.html", "b c.html: no page gone.html"]
    with browser.served(tmp_path) as address:
        assert browser.elsewhere("https://elsewhere.org/", address)
        assert not browser.elsewhere(f"{address}a.html", address)
