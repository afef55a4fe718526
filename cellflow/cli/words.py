"""The words of a command line: flags, settings ``name=value``, and the values of a sweep."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches

SWEEP, FOLDER = ("-m", "--multirun"), ("--config-dir", "-cd")
RANGE = re.compile(r"range\((-?\d+)(?:,\s*(-?\d+))?(?:,\s*(-?\d+))?\)")
CHOICE = re.compile(r"choice\((.*)\)", re.DOTALL)
MOST_JOBS = 10_000


@dataclass(frozen=True)
class Line:
    """What a command line says.

    Parameters
    ----------
    settings
        Words ``name=value``.
    sweep
        Whether commas separate values, each for its own job.
    folder
        The user's own folder of YAML files.
    launcher
        Words for hydra, on how the jobs of a sweep are started.
    """

    settings: list[str] = field(default_factory=list)
    sweep: bool = False
    folder: str | None = None
    launcher: list[str] = field(default_factory=list)

    def jobs(self) -> list[list[str]]:
        """Return the words of each job of a sweep, or those of the only one.

        Examples
        --------
        >>> Line(["seed=0,1", "at=[1,2]"], sweep=True).jobs()
        [['seed=0', 'at=[1,2]'], ['seed=1', 'at=[1,2]']]
        """
        if not self.sweep:
            return [self.settings]
        choices = [list(_choices(word)) for word in self.settings]
        number = 1
        for each in choices:
            number *= len(each)
        if number > MOST_JOBS:
            raise ValueError(f"Expected a sweep of at most {MOST_JOBS:,} jobs; found {number:,}.")
        return [list(job) for job in itertools.product(*choices)]


def read_line(words: list[str]) -> Line:
    """Return the words of a command line, before checking whether such settings exist.

    Raises
    ------
    ValueError
        For a flag that does not exist, or a word that is not a setting.

    Examples
    --------
    >>> read_line(["-m", "seed=0,1", "+network.kernel=3"]).settings
    ['seed=0,1', 'network.kernel=3']
    """
    settings: list[str] = []
    launcher: list[str] = []
    sweep, folder, rest = False, None, iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if word in SWEEP:
            sweep = True
        elif name in FOLDER:
            folder = value if equals else next(rest, "")
            if not folder:
                raise ValueError(f"Expected a folder of YAML files after `{name}`; found nothing.")
        elif word.startswith("-"):
            close = get_close_matches(word, [*SWEEP, "--config-dir", "--help"], n=1)
            hint = f"Did you mean `{close[0]}`?" if close else f"Choose from: {SWEEP[0]}, --config-dir, --help."
            raise ValueError(f"Unknown flag {word!r}. {hint}")
        elif not equals or not name.lstrip("+"):
            raise ValueError(f"Expected a setting such as `seed=1`; found {word!r}, without a {_lack(name)}.")
        elif name.lstrip("+").startswith(("hydra.", "hydra/")):
            launcher.append(word.lstrip("+"))
        else:
            settings.append(word.lstrip("+"))
    if launcher and not sweep:
        raise ValueError(f"`{launcher[0]}` belongs to a sweep; add `-m`.")
    return Line(settings, sweep, folder, launcher)


def nearest(name: str, command: str, known: list[str]) -> str:
    """Say that a command has no such setting, and suggest one.

    Examples
    --------
    >>> nearest("stepz", "fit", ["steps", "seed"])
    '`fit` has no setting `stepz`. Did you mean `steps`? `cellflow fit --help` lists every setting.'
    >>> nearest("rep", "fit", ["report", "data.rep"]).partition("? ")[0]
    '`fit` has no setting `rep`. Did you mean `data.rep`'
    """
    known = [each for each in known if each != name]
    last = {each.rpartition(".")[2]: each for each in reversed(known)}
    close = [last[name]] if name in last else get_close_matches(name, known, n=1)
    close = close or [last[found] for found in get_close_matches(name, last, n=1)]
    hint = f"Did you mean `{close[0]}`? " if close else ""
    shown = name if len(name) <= 60 else f"{name[:56]} ..."
    return f"`{command}` has no setting `{shown}`. {hint}`cellflow {command} --help` lists every setting."


def parts_of(text: str) -> list[str]:
    """Return the parts of a text between its commas, except commas in quotes or brackets.

    Examples
    --------
    >>> parts_of("[1,2],'a,b',c")
    ['[1,2]', "'a,b'", 'c']
    """
    found, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and not found[-1].strip():
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth = max(depth - 1, 0)
        if letter == "," and depth == 0 and not quote:
            found.append("")
        else:
            found[-1] += letter
    return [each.strip() for each in found]


def _choices(word: str) -> Iterator[str]:
    name, _, text = word.partition("=")
    if numbers := RANGE.fullmatch(text):
        given = [int(each) for each in numbers.groups() if each is not None]
        if len(given) == 3 and given[2] == 0:
            raise ValueError(f"Expected a step that is not 0 in `{word}`.")
        found = range(*given)
        if not 0 < len(found) <= MOST_JOBS:
            raise ValueError(f"Expected 1 to {MOST_JOBS:,} numbers in `{word}`; found {len(found):,}.")
        values = [str(number) for number in found]
    else:
        inner = CHOICE.fullmatch(text)
        values = parts_of(inner[1] if inner else text)
    for value in values:
        yield f"{name}={value}"


def _lack(name: str) -> str:
    return "value" if name.lstrip("+") else "name"
