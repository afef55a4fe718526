"""Settings as words: ``task=shapes method=I-CFM,OT-CFM size=cpu`` as well as ``--task shapes``."""

import argparse
from collections.abc import Iterable


def dashed(words: Iterable[str]) -> list[str]:
    """Return words with two dashes before each setting that has none.

    Examples
    --------
    >>> dashed(["task=shapes", "--size=cpu", "-h"])
    ['--task=shapes', '--size=cpu', '-h']
    """
    return [word if word.startswith("-") or "=" not in word else f"--{word}" for word in words]


def several(known: Iterable[str]) -> "Several":
    """Return a type for argparse: names with commas between them, or ``all``.

    Examples
    --------
    >>> several(["a", "b"])("all"), several(["a", "b"])("b")
    (['a', 'b'], ['b'])
    """
    return Several(list(known))


class Several:
    """Reads ``a,b`` as a list of known names.

    Examples
    --------
    >>> Several(["a", "b"])("b,a")
    ['b', 'a']
    """

    def __init__(self, known: list[str]) -> None:
        self.known = known

    def __call__(self, text: str) -> list[str]:
        """Return the names in the text.

        Raises
        ------
        argparse.ArgumentTypeError
            When one is not known.
        """
        names = self.known if text == "all" else text.split(",")
        for name in names:
            if name not in self.known:
                raise argparse.ArgumentTypeError(f"unknown {name!r}; choose from {', '.join(self.known)}, or all")
        return list(names)


def numbers(text: str) -> tuple[int, ...]:
    """Return numbers with commas between them.

    Examples
    --------
    >>> numbers("1,4,16")
    (1, 4, 16)
    """
    return tuple(int(part) for part in text.split(","))
