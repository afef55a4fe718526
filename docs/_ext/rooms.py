"""The API reference: one page for each room, with every name of its ``__all__``. A new public name lists itself."""

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any

import cellflow

OWNERS = {"Batch": None, "generator": None, "Conditions": "cells", "Run": "training"}
"""Names of ``cellflow`` itself, by the room that describes them; those of ``None`` are on the page of the top level."""

INHERITED = "Module, BaseEstimator, ABC, Protocol, Generic, tuple, object"
"""Classes of others, whose methods are described elsewhere."""

OF_OTHERS = ("get_metadata_routing", "set_fit_request", "set_score_request")
"""Methods that scikit-learn adds to an estimator, whose descriptions point into its own documents."""


def rooms() -> dict[str, ModuleType]:
    """Return the public rooms by name."""
    found = {name: getattr(cellflow, name) for name in cellflow.__all__}
    return {name: room for name, room in found.items() if inspect.ismodule(room)}


def names_of(room: ModuleType) -> list[str]:
    """Return the public names of a room: of ``__all__``, or what is defined in it."""
    if hasattr(room, "__all__"):
        return list(room.__all__)
    return [
        name
        for name, value in vars(room).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == room.__name__
    ]


def full_name(room: str, name: str) -> str:
    """Return how a user writes a name: ``cellflow.Run``, not ``cellflow.training.Run``, where both are public."""
    return f"cellflow.{name}" if name in cellflow.__all__ else f"cellflow.{room}.{name}"


def entries() -> dict[str, list[str]]:
    """Return the full public names that each page describes, by page."""
    pages = {"cellflow": [f"cellflow.{name}" for name, owner in OWNERS.items() if owner is None]}
    for name, room in rooms().items():
        pages[name] = [full_name(name, public) for public in names_of(room)]
    return pages


def lookup(name: str) -> Any:
    """Return what a full public name stands for."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def directive(name: str) -> str:
    """Return the reStructuredText that describes one public name."""
    value = lookup(name)
    if not callable(value):
        return "\n".join([f".. py:data:: {name}", "", f"   {about(value)}", ""])
    if not inspect.isclass(value):
        return f".. autofunction:: {name}\n"
    left_out = ", ".join([*OF_OTHERS, *getattr(value, "_fields", ())])  # fields are described as parameters
    options = ["   :members:", f"   :inherited-members: {INHERITED}", f"   :exclude-members: {left_out}"]
    return "\n".join([f".. autoclass:: {name}", *options, ""])


def about(value: Any) -> str:
    """Return what a public name is, in one sentence: the first of its docstring, or what a table of parts holds."""
    if isinstance(value, Mapping):
        return "By name: " + ", ".join(f"``{key}``" for key in value) + "."
    if isinstance(value, UnionType):
        return "Any of " + ", ".join(f"``{getattr(kind, '__name__', kind)}``" for kind in value.__args__) + "."
    return " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())


def page(title: str, module: ModuleType, names: list[str]) -> str:
    """Return a page in reStructuredText: what the room is for, a table of its names, and each of them."""
    heading = "cellflow" if title == "cellflow" else f"cellflow.{title}"
    lines = [heading, "=" * len(heading), "", inspect.getdoc(module) or "", ""]
    lines += [".. list-table::", ""]
    for name in names:
        lines += [f"   * - :py:obj:`~{name}`", f"     - {about(lookup(name))}"]
    lines += [""]
    return "\n".join([*lines, *(directive(name) for name in names)])


def write(app: Any) -> None:
    """Write the pages into ``docs/api``, those that have changed."""
    folder = Path(app.confdir) / "api"
    folder.mkdir(exist_ok=True)
    modules = {"cellflow": cellflow, **rooms()}
    for title, names in entries().items():
        text, file = page(title, modules[title], names), folder / f"{title}.rst"
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def setup(app: Any) -> dict[str, bool]:
    """Write the pages before Sphinx looks for its sources."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
