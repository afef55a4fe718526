"""Formulas as MathML, which browsers draw themselves: no script, and none from elsewhere."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml


def markup(text: str, *, block: bool) -> str:
    """Return the MathML of a formula in LaTeX."""
    line = re.sub(r"\s+", " ", text.strip())
    cleaned = re.sub(r"\\[Bb]igg?[lr]?(?![a-zA-Z])", "", line)  # sizes of brackets, which docutils does not know
    found = latex2mathml.tex2mathml(cleaned)
    return found.replace("<math ", '<math display="block" ', 1) if block else found


def inline(self: Any, node: nodes.math) -> None:
    """Write a formula in a line."""
    self.body.append(markup(node.astext(), block=False))
    raise nodes.SkipNode


def display(self: Any, node: nodes.math_block) -> None:
    """Write a formula of its own."""
    self.body.append(f'<div class="math">{markup(node.astext(), block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer, which ``html_math_renderer`` chooses."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
