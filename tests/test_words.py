"""Public prose is current English: phrases that a newcomer would have to read twice do not come back."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"cellflow": ("*.py", "*.yaml", "*.html"), "benchmarks": ("*.py", "*.md", "*.yaml"), "docs": ("*.md", "*.py")}
FILES = sorted(
    path
    for folder, patterns in {**FOLDERS, "configs": ("*.yaml",)}.items()
    for pattern in patterns
    for path in (ROOT / folder).rglob(pattern)
    if not {"_build", "peers", "inventories"} & set(path.relative_to(ROOT).parts)
) + [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
PLAIN = {
    r"dear(?:er|est|ly)?": "expensive, costly",
    r"(?<!there\s)(?-i:is none)(?! of (?:these|them|those))": "is `None`, is not one, is missing",
    r"kept aside": "held out",
    r"kept from the fit": "held out of the fit",
    r"not done again": "not repeated",
    r"of which is said|which is said": "see",
    r"oftener": "more often",
    r"optimi[sz]er steps?": "training step",
    r"pressed for": "short of",
    r"strangers?(?:'s?)?": "untrusted",
    r"that are none": "that are not",
    r"told from nothing": "distinguished from no effect",
    r"ways? that (?:is|are) none": "`None`",
}
"""What is not written, as a pattern of whole words, and what is written instead."""


def prose(path):
    """Yield first line and text of what people read in a file: of code the strings, without names in code font."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield 1, re.sub(r"`[^`\n]*`", "``", text)
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, re.sub(r"``[^`\n]*``|`[^`\n]*`", "``", node.value)


def found(text, line=1):
    """Return what is not written in a text that begins at a line, and the words for it."""
    return [
        f"line {line + text.count(chr(10), 0, match.start())}: {match.group()!r}; write: {instead}"
        for phrase, instead in PLAIN.items()
        for match in re.finditer(rf"\b(?:{phrase})\b".replace(" ", r"\s+"), text, flags=re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_prose_is_plain(path):
    wrong = [words for line, text in prose(path) for words in found(text, line)]
    assert not wrong, f"{path.relative_to(ROOT)} has words that readers stumble over:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    "text", ["a way\nthat is none", "It is oftener so.", "Pressed for memory", "a stranger's file", "Dear steps"]
)
def test_words_that_readers_stumble_over_are_found(text):
    assert found(text)


@pytest.mark.parametrize("text", ["there is none", "it is none of these", "endear", "x is None"])
def test_plain_words_are_let_through(text):
    assert not found(text)


def left_open(tree):
    """Yield the strings in functions that name a variable in braces and are not formatted: their ``f`` is missing."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            nodes = list(ast.walk(function))
            known = {node.id for node in nodes if isinstance(node, ast.Name)}
            known |= {node.arg for node in nodes if isinstance(node, ast.arg)}
            for node in nodes:
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                    names = re.findall(r"\{(?:\w+\()?([a-zA-Z_]\w*)[^{}\n]*\}", node.value)
                    if known & set(names) and node.value != ast.get_docstring(function, clean=False):
                        yield f"line {node.lineno}: {node.value!r:.80}"


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.suffix == ".py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_messages_show_values_and_not_their_names(path):
    assert not list(left_open(ast.parse(path.read_text(encoding="utf-8"))))


def test_a_message_without_its_f_is_found():
    assert list(left_open(ast.parse('def f(n):\n    raise ValueError("Expected 1 or more; " "found {n!r}.")')))
    assert not list(left_open(ast.parse('def f(n):\n    raise ValueError(f"Expected 1 or more; found {n!r}.")')))
