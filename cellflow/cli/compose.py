"""From the words of a command line to settings: hydra puts the YAML files together, and never sees a value."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from cellflow.cli import documents
from cellflow.cli.checks import MISSING, check_all, complete, set_word
from cellflow.cli.configs import configs_folder
from cellflow.cli.former import modern_words
from cellflow.cli.kinds import unquoted
from cellflow.cli.parts import TARGET
from cellflow.cli.schema import OF_RUNS
from cellflow.cli.settings import Settings
from cellflow.errors import unknown


def settings_from(command: str, words: list[str], folder: str | None = None) -> Settings:
    """Return the settings for the words of a command.

    Parameters
    ----------
    command
        Name of the command.
    words
        Words ``name=value``.
    folder
        The user's own folder of YAML files, with one folder for each kind of part.

    Raises
    ------
    ValueError
        When a setting or choice does not exist, a value is of another kind, or a setting is missing.

    Examples
    --------
    >>> cfg = settings_from("fit", ["data.path=it's.h5ad", "data.time_key=day", "validate=off"])
    >>> cfg.data.path, cfg.validate, cfg.recipe.learning_rate
    ("it's.h5ad", False, 0.002)
    """
    own, choices, values = _own_groups(folder), {}, []
    for word in modern_words(words):
        name, _, text = word.partition("=")
        if name in own or name in _groups():
            choices[name] = unquoted(text)
        else:
            values.append((name, text))
    _check_choices(command, choices, own)
    for group, chosen in choices.items():
        if folder is not None and chosen in own.get(group, []):
            _check_own(Path(folder) / group / f"{chosen}.yaml")
    composed = _compose(command, tuple(choices.items()), folder)[0]
    if folder is not None:
        check_all(composed, command)
    for name, text in sorted(values, key=lambda value: not value[0].endswith(TARGET)):  # which decides the others
        set_word(composed, name, text, command)
    complete(composed, command)
    return Settings(composed)


def defaults(command: str) -> dict[str, Any]:
    """Return the settings of a command as the files have them.

    Examples
    --------
    >>> defaults("report")["n_seeds"]
    1
    """
    return _compose(command, (), None)[0]


def in_its_words(said: str, command: str) -> str:
    """Return a message of the library as a command line has it: names of settings, lists, and nothing.

    Examples
    --------
    >>> in_its_words("No `adata.obs['day']`. Set `time_key`, or give `steps=100`.", "fit")
    "No `adata.obs['day']`. Set `data.time_key`, or give `steps=100`."
    >>> in_its_words("Set `percentiles=(0.1, 99.9)`, or `size=None`.", "translate")
    'Set `percentiles=[0.1,99.9]`, or `size=null`.'
    >>> in_its_words("Set `skip_unreadable=True`.", "translate")
    'Set `skip_unreadable=true`.'
    >>> in_its_words("Use `read_images`, or give `levels=cf.images.Levels(low, high, 'float32')`.", "translate")
    'Set `stream=false`.'
    """
    known = defaults(command)
    full: dict[str, list[str]] = {}
    for group, inside in known.items():
        for name in inside if isinstance(inside, Mapping) else ():
            full.setdefault(str(name), []).append(f"{group}.{name}")
    own = {name: found[0] for name, found in full.items() if len(found) == 1 and name not in known}
    # What follows "setting" is what was typed.
    said = re.sub(r"(?<!setting )`(\w+)(?=[`=])", lambda word: f"`{own.get(word[1], word[1])}", said)
    said = re.sub(r",? or (give )?`levels=cf\.[^`]*`", "", said)  # of an array's black and white, which has no setting
    if "stream" in known:
        said = re.sub(r"\b(u|U)se `read_images`", lambda word: f"{'Ss'[word[1] == 'u']}et `stream=false`", said)
    said = said.replace("`conditional=True`", "`labels=folder`")  # of a generator, which learns the classes then
    said = re.sub(r"(`[\w.]+)=None`", r"\1=null`", said)
    said = re.sub(r"(`[\w.]+)=(True|False)`", lambda word: f"{word[1]}={word[2].lower()}`", said)
    return re.sub(r"(`[\w.]+)=\(([^()`]*)\)`", lambda word: f"{word[1]}=[{word[2].replace(' ', '')}]`", said)


def _check_choices(command: str, choices: Mapping[str, str], own: Mapping[str, list[str]]) -> None:
    """Refuse names of parts that there are not, for a command that does not take them."""
    task = {"task": choices["task"]} if "task" in choices else {}
    for given in (task, choices):  # which parts there are follows from the task
        taken = _chosen(command, tuple(task.items()) if given is choices else ())
        for group, name in given.items():
            there = sorted(path.stem for path in (configs_folder() / group).glob("*.yaml")) + own.get(group, [])
            if group not in taken and group not in own:
                raise ValueError(_not_taken(group, command))
            if name not in there and not (name == "null" and taken.get(group, "") is None):
                raise ValueError(unknown(group, name, there))


def _not_taken(group: str, command: str) -> str:
    if group in OF_RUNS:
        again = f"name your own part again with `{group}._target_=`"
        return f"`{command}` takes its {group} from the run. Leave `{group}=` out; {again}."
    return f"`{command}` has no `{group}` to choose. `cellflow {command} --help` lists every setting."


def _chosen(command: str, task: tuple[tuple[str, str], ...]) -> dict[str, str | None]:
    """Return the parts of a command, and which ones are chosen by default."""
    return _read(command, task)[1]


Chosen = tuple[tuple[str, str], ...]


def _compose(command: str, choices: Chosen, folder: str | None) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Return the settings in the files, and which file was chosen for each part."""
    if folder is None:
        return deepcopy(_read(command, choices))
    return _by_hydra(command, choices, folder)


@cache  # nobody changes cellflow's own files meanwhile
def _read(command: str, choices: Chosen) -> tuple[dict[str, Any], dict[str, str | None]]:
    return _by_hydra(command, choices, None)


def _by_hydra(command: str, choices: Chosen, folder: str | None) -> tuple[dict[str, Any], dict[str, str | None]]:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    named = [(group, name) for group, name in choices if name != "null"]  # which is the default where it is allowed
    words = [f"{'' if group in _groups() else '+'}{group}={name}" for group, name in named]
    if folder is not None:
        words.append(f"hydra.searchpath=['file://{Path(folder).resolve()}']")
    with _apart(), initialize_config_dir(str(configs_folder()), version_base="1.3"):
        cfg = compose(command, overrides=words, return_hydra_config=True)
    chosen: dict[str, Any] = dict(cfg.hydra.runtime.choices)
    found: Any = OmegaConf.to_container(cfg, resolve=False)
    own = {group: name for group, name in chosen.items() if not group.startswith("hydra/")}
    return {key: _marked(value) for key, value in found.items() if key != "hydra"}, own


@contextmanager
def _apart() -> Iterator[None]:
    """Let settings be composed within a job of a sweep too, where hydra is at work in the same process."""
    from hydra.core.global_hydra import GlobalHydra

    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = outer


def _marked(value: Any) -> Any:
    """Mark what hydra says is missing by something that no text can be."""
    if isinstance(value, dict):
        return {key: _marked(each) for key, each in value.items()}
    return MISSING if value == "???" else value


@cache
def _groups() -> frozenset[str]:
    return frozenset(path.name for path in configs_folder().iterdir() if path.is_dir())


def _own_groups(folder: str | None) -> dict[str, list[str]]:
    """Return the names of the YAML files in each folder below the user's own."""
    if folder is None:
        return {}
    if not Path(folder).is_dir():
        raise ValueError(f"No folder {folder}. Name one that holds folders such as `network` with `--config-dir`.")
    if set("'\\$") & set(str(Path(folder).resolve())):
        raise ValueError(f"Expected a folder whose name has no quote, dollar or backslash; found {folder}.")
    below = [path for path in sorted(Path(folder).iterdir()) if path.is_dir() and path.name.isidentifier()]
    return {path.name: sorted(file.stem for file in path.glob("*.yaml")) for path in below if path.name != "hydra"}


def _check_own(file: Path) -> None:
    """Refuse a file of the user's own into which hydra would read more than there is."""
    settings = documents.read(file)
    if strange := next(_references(settings), None):
        raise ValueError(f"{file}: settings are read as they are, and {strange!r} refers to another. Write the value.")
    defaults = settings.get("defaults", ["_self_"])
    if defaults != ["_self_"]:
        raise ValueError(f"{file}: expected no `defaults`; found {defaults!r}. Choose them on the command line.")


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, str) and "${" in value:
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _references(each)
