"""Sphinx: `make docs`. The source folder is the root of the repository, so that links work there and on the site."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))

project = "cellflow"
author = "The cellflow developers"
copyright = author  # noqa: A001  # the name that Sphinx reads
release = version_of("cellflow-torch")
root_doc = "docs/index"
include_patterns = ["docs/**", "benchmarks/README.md", "benchmarks/results/*.md"]
exclude_patterns = [".*", "build", "runs", "dist", "cellflow", "tests", "configs", "docs/_*", "docs/figures/*.md"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "scanpydoc.definition_list_typed_field",
    "rooms",
    "names",
    "mathml",
]

# Docstrings: numpydoc with a section of our own, types where they are documented.
napoleon_google_docstring = False
napoleon_custom_sections = [("Source", "notes_style")]
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
autodoc_default_options = {"show-inheritance": False}
default_role = "py:obj"
add_module_names = False
python_maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"

# Names of other packages: small inventories in plain text, since the site is built without a network.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3/", "inventories/python.txt"),
    "numpy": ("https://numpy.org/doc/stable/reference/generated/", "inventories/numpy.txt"),
    "pandas": ("https://pandas.pydata.org/docs/reference/api/", "inventories/pandas.txt"),
    "torch": ("https://docs.pytorch.org/docs/stable/", "inventories/torch.txt"),
    "anndata": ("https://anndata.readthedocs.io/en/stable/generated/", "inventories/anndata.txt"),
    "scanpy": ("https://scanpy.readthedocs.io/en/stable/api/generated/", "inventories/scanpy.txt"),
}
intersphinx_mapping = {name: (url, str(DOCS / file)) for name, (url, file) in intersphinx_mapping.items()}

# Tutorials run when they have changed; a cell that fails ends the build.
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS.parent / "build" / "notebooks")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_excludepatterns = ["docs/*.md", "benchmarks/**"]
nb_merge_streams = True
nb_ipywidgets_js = {}  # which would come from elsewhere
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure", "myst.header"]

html_math_renderer = "mathml"
html_theme = "sphinx_book_theme"
html_title = "cellflow"
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system
html_css_files = ["site.css"]
html_js_files = ["sort.js"]
html_extra_path = ["_root"]
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {"**": ["navbar-logo.html", "sbt-sidebar-nav.html"]}  # the search is in the header
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
}
