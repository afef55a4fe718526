"""What every docstring keeps to: one form of source, `None` in code font, and words of the field."""

import ast
import re
from pathlib import Path

import pytest

import cellflow as cf

PACKAGE = Path(cf.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
STRANGE = (
    "dear", "dearly", "forgets", "hedge", "held back", "oftener", "presses", "pressed for", "taught", "verdict",
    "ways", "a way to", "without end", "as anybody asks",
)  # fmt: skip
"""Words and phrases that this field does not use for what they once stood for here."""


def docstrings(path):
    """Yield name and text of every docstring of a file, those of constants included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for statement in getattr(node, "body", ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ():
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield f"{path.relative_to(PACKAGE)}:{value.lineno}", value.value


def prose(text):
    """Return a docstring without code: neither what is between backticks nor examples."""
    return re.sub(r"``.*?``|`[^`]*`", "", re.split(r"\n\s*Examples\n\s*-+\n", text)[0], flags=re.DOTALL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_docstrings_have_one_form(path):
    for where, text in docstrings(path):
        assert not re.search(r"^\s*Sources?:", text, flags=re.MULTILINE), f"{where}: a section `Source`, please"
        for line in re.findall(r"^\s*Source\n(.*)$", text, flags=re.MULTILINE):
            assert line.strip() == "------", f"{where}: `Source` is underlined as numpydoc has it"
        assert not re.search(r"\bNone\b", prose(text)), f"{where}: write ``None``"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_docstrings_speak_the_language_of_the_field(path):
    for where, text in docstrings(path):
        found = [word for word in STRANGE if re.search(rf"\b{word}\b", prose(text))]
        assert not found, f"{where}: {found}"
