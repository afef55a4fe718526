"""Settings as plain values, and the names of files that are written with them; `built` makes parts of them."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LONGEST = 60
"""Maximum number of letters of conditions in a file name."""


class Settings(dict[str, Any]):
    """Plain values, of which each is an attribute too; groups of settings are settings.

    Nothing is read into a value: what looks like a reference is text.

    Examples
    --------
    >>> cfg = Settings({"steps": 3, "data": {"path": "${HOME}.h5ad"}})
    >>> cfg.steps, cfg.data.path
    (3, '${HOME}.h5ad')
    """

    job: int | None = None  # of a sweep

    def __init__(self, values: Mapping[str, Any]) -> None:
        inner = {key: Settings(value) if _named(value) else value for key, value in values.items()}
        super().__init__(inner)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "job":
            super().__setattr__(name, value)
        else:
            self[name] = value


def _named(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def plain(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as a plain dictionary.

    Examples
    --------
    >>> plain(Settings({"data": {"path": "a"}}))
    {'data': {'path': 'a'}}
    """
    return {key: plain(value) if isinstance(value, Settings) else value for key, value in cfg.items()}


def free(out: str | None, default: Path) -> Path:
    """Return the file to write, and refuse to overwrite one."""
    path = default if out is None else Path(out)
    if path.exists():
        raise FileExistsError(f"{path} exists. Choose another file with `out=`.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def file_words(condition: Mapping[str, str] | list[dict[str, str]] | None) -> list[str]:
    """Return conditions for a file name: letters of their values that any file system takes.

    If letters are left out, a digest of the conditions makes the name unique.

    Examples
    --------
    >>> file_words({"drug": "A+B", "dose": "10"}), file_words({"drug": "\u00e9"}), file_words(None)
    (['A+B-10'], ['_-cb01a3'], [])
    """
    asked = condition if isinstance(condition, list) else [] if condition is None else [condition]
    values = [str(value) for each in asked for value in each.values()]
    words, plain = "-".join(values), re.compile(r"[\w.+]+", flags=re.ASCII)
    if not values or (len(words) <= LONGEST and all(plain.fullmatch(value) for value in values)):
        return [words] if values else []
    digest = hashlib.sha256(json.dumps(asked, ensure_ascii=True).encode()).hexdigest()[:6]
    known = re.sub(r"[^\w.+-]", "_", words, flags=re.ASCII)
    return [f"{known[: LONGEST - len(digest) - 1]}-{digest}"]
