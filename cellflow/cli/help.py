"""What ``cellflow --help`` prints: the settings and their comments, read from the YAML files themselves."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

SETTING = re.compile(r"^(?P<indent> *)(?P<key>\w+):\s*(?P<value>[^#]*?)\s*(?:#\s*(?P<about>.*))?$")
TASKS = "task"
"""The group whose files set everything that a demo does; the others set one part each."""


def overview(configs: Path, commands: object) -> str:
    """Return the list of commands, one line each.

    Examples
    --------
    >>> from cellflow.cli import configs_folder
    >>> print(overview(configs_folder(), ["fit"]).splitlines()[0])
    cellflow: fit flows between snapshots of cells, from controls to treated ones, or between sets of images.
    """
    rows = [f"  {name:<12} {_purpose(configs / f'{name}.yaml')}" for name in commands]  # type: ignore[attr-defined]
    return "\n".join(
        [
            "cellflow: fit flows between snapshots of cells, from controls to treated ones, or between sets of images.",
            "",
            "Usage: cellflow COMMAND [setting=value ...]",
            "",
            *rows,
            "",
            "`cellflow COMMAND --help` explains every setting of a command. Start with `cellflow demo`.",
            "`cellflow --version` shows the version; `python -m cellflow` is the same program.",
            "Names are read literally: quote them for your shell only. For yes write true, yes or on; for no, false "
            "or off.",
            "Add `-m` to run a command for several values: `cellflow fit ... -m seed=0,1,2`.",
        ]
    )


def describe(configs: Path, command: str) -> str:
    """Return purpose, examples and settings of one command.

    Examples
    --------
    >>> from cellflow.cli import configs_folder
    >>> "data.time_key" in describe(configs_folder(), "fit")
    True
    """
    file = configs / f"{command}.yaml"
    examples = [
        f"  {line.removeprefix('#').strip()}" for line in file.read_text().splitlines() if line.startswith("#   ")
    ]
    groups: dict[str, None] = {}
    settings = list(_all_settings(configs, file, groups))
    parts = [_purpose(file), "", "Examples:", *examples, "", "Settings:", *settings]
    if groups:
        parts += ["", "Parts, chosen as part=name and set as part.setting=value:"]
    for group in groups:
        for choice in sorted((configs / group).glob("*.yaml")):
            prefix = "" if group == TASKS else f"{group}."
            parts += [f"  {group}={choice.stem}", *_settings(choice, prefix=prefix, indent="    ")]
    return "\n".join(parts)


def _all_settings(configs: Path, file: Path, groups: dict[str, None]) -> Iterator[str]:
    """Yield the settings of a file and of those that it builds on; note the groups of parts."""
    yield from _settings(file)
    for entry in yaml.safe_load(file.read_text()).get("defaults", []):
        if isinstance(entry, dict):
            groups.update(dict.fromkeys(key for key in entry if not key.startswith("override ")))
        elif entry not in ("_self_", "hydra"):
            yield from _all_settings(configs, configs / f"{entry}.yaml", groups)


def _purpose(file: Path) -> str:
    return file.read_text().splitlines()[0].removeprefix("#").strip()


def _settings(file: Path, *, prefix: str = "", indent: str = "  ") -> Iterator[str]:
    """Yield a line for each setting: its full name, its default, its comment."""
    outer = ""
    for line in file.read_text().splitlines():
        found = SETTING.match(line)
        if not found or found["key"].startswith("_") or found["key"] in ("defaults", "hydra"):
            continue
        outer = outer if found["indent"] else ""
        if not found["value"]:
            outer = f"{found['key']}."
            continue
        default = "(required)" if found["value"] == "???" else f"[{found['value']}]"
        yield f"{indent}{prefix + outer + found['key']:<22} {default:<14} {found['about'] or ''}".rstrip()
