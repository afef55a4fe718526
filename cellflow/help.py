"""What ``cellflow --help`` prints: the settings and their comments, read from the YAML files themselves."""

import re
from collections.abc import Iterator
from pathlib import Path

SETTING = re.compile(r"^(?P<indent> *)(?P<key>\w+):\s*(?P<value>[^#]*?)\s*(?:#\s*(?P<about>.*))?$")
GROUPS = ("path", "coupling", "network", "recipe")


def overview(configs: Path, commands: object) -> str:
    """Return the list of commands, one line each.

    Examples
    --------
    >>> from cellflow.cli import configs_folder
    >>> print(overview(configs_folder(), ["fit"]).splitlines()[0])
    cellflow: fit flows between snapshots of cells.
    """
    rows = [f"  {name:<12} {_purpose(configs / f'{name}.yaml')}" for name in commands]  # type: ignore[attr-defined]
    return "\n".join(
        [
            "cellflow: fit flows between snapshots of cells.",
            "",
            "Usage: cellflow COMMAND [setting=value ...]",
            "",
            *rows,
            "",
            "`cellflow COMMAND --help` explains every setting of a command. Start with `cellflow demo`.",
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
    text = (configs / f"{command}.yaml").read_text()
    examples = [f"  {line.removeprefix('#').strip()}" for line in text.splitlines() if line.startswith("#   ")]
    parts = [_purpose(configs / f"{command}.yaml"), "", "Examples:", *examples, "", "Settings:"]
    parts += list(_settings(configs / f"{command}.yaml"))
    if "- flow" in text:
        parts += [*_settings(configs / "flow.yaml"), "", "Parts, chosen as part=name and set as part.setting=value:"]
        for group in GROUPS:
            for file in sorted((configs / group).glob("*.yaml")):
                parts += [f"  {group}={file.stem}", *_settings(file, prefix=f"{group}.", indent="    ")]
    return "\n".join(parts)


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
