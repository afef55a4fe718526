"""Links from the names that people write, such as ``cf.tl.fate(...)`` or ``Exact``, to where they are described."""

import re
from collections import Counter
from typing import Any

from docutils import nodes
from rooms import entries
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform

PUBLIC = {name for names in entries().values() for name in names}
COUNTS = Counter(name.rpartition(".")[2] for name in PUBLIC)
UNIQUE = {name.rpartition(".")[2]: name for name in PUBLIC if COUNTS[name.rpartition(".")[2]] == 1}
ROOM_NAMES = {f"cellflow.{page}" for page in entries()}


def public_name(text: str) -> str | None:
    """Return the full name that a piece of code begins with, or ``None``."""
    if (found := re.match(r"(?:cf|cellflow)((?:\.\w+)+)", text)) is None:
        return UNIQUE.get(text)
    words = f"cellflow{found[1]}".split(".")
    shorter = [".".join(words[:n]) for n in range(len(words), 1, -1)]
    doubled = [f"cellflow.{words[-1]}"] if words[-1] in UNIQUE else []
    return next((name for name in [*shorter, *doubled] if name in PUBLIC), None)


class LinkedCode(SphinxTransform):
    """Code in prose that begins with a public name becomes a link to it."""

    default_priority = 5

    def apply(self) -> None:
        """Replace each piece of code of the page."""
        if "/api/" in f"/{self.env.docname}":
            return
        for node in list(self.document.findall(nodes.literal)):
            text = node.astext()
            if isinstance(node.parent, nodes.reference | nodes.title) or not text.startswith(("cf.", "cellflow.")):
                continue
            if (name := public_name(text)) is not None:
                link = pending_xref(
                    "", nodes.literal(text, text), refdomain="py", reftype="obj", reftarget=name, refexplicit=True
                )
                link["refdoc"] = self.env.docname
                node.replace_self(link)


def resolve(app: Any, env: Any, node: pending_xref, content: nodes.Node) -> nodes.Node | None:
    """Find a name that Sphinx does not: written as users write it, or without its room."""
    if node.get("refdomain") != "py":
        return None
    name = public_name(node["reftarget"])
    if name is None or name == node["reftarget"]:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)


def setup(app: Any) -> dict[str, bool]:
    """Register both."""
    app.add_transform(LinkedCode)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
