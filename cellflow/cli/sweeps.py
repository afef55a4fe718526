"""The jobs of a sweep, started by one of hydra's launchers: one after the other, or wherever a launcher takes them."""

import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from cellflow.cli.compose import in_its_words
from cellflow.cli.configs import configs_folder
from cellflow.cli.kinds import check, read
from cellflow.cli.members import DONE, Members, keep_jobs
from cellflow.cli.settings import Settings
from cellflow.cli.sweep_table import TABLE, gather, shown
from cellflow.errors import MissingDependencyError, unknown
from cellflow.processes import started

log = logging.getLogger("cellflow")

LAUNCHER = "hydra/launcher"
QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none")
"""Hydra's own log files are not written; ours goes to the terminal."""
PLUGINS = {
    "joblib": "hydra-joblib-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
}
"""Distributions of the launchers besides hydra's own."""

Job = tuple[list[str], Settings]


def sweep(
    command: str,
    jobs: list[Job],
    act: Callable[[Settings], object],
    launcher: list[str],
    spoken: Callable[[], AbstractContextManager[None]],
) -> bool:
    """Run all jobs, write and show one table of them, and return whether all went well.

    Each has its own numbered folder in that of the sweep. A job that fails is a row of the table. Hydra only gets their
    numbers.

    Parameters
    ----------
    command
        Name of the command.
    jobs
        Words and settings of each.
    act
        Runs one; it may be sent to another process, with the settings.
    launcher
        Words that choose and set one of hydra's launchers.
    spoken
        Sets up logging in another process.

    Raises
    ------
    ValueError
        When the launcher or its setting does not exist; under torchrun; when other members are resumed.
    MissingDependencyError
        When the launcher is not installed.
    """
    if started() is not None:
        raise ValueError(
            "A sweep starts its own jobs, and each trains in one process. Start it without torchrun or srun."
        )
    words, folder = _checked(launcher), _folder(command, [settings for _, settings in jobs])
    if "resume" in jobs[0][1]:
        keep_jobs(folder, [words for words, _ in jobs], resume=bool(jobs[0][1].resume))
    task = Members(act, [settings for _, settings in jobs], folder, spoken, partial(in_its_words, command=command))
    try:
        _launch(words, len(jobs), task)
    finally:
        table = gather(folder, [words for words, _ in jobs])
        log.info("%s\n%s", shown(table), folder / TABLE)
    return bool((table["status"] == DONE).all())


def _launch(words: list[str], n: int, task: Members) -> None:
    import hydra

    previous = sys.argv
    try:
        sys.argv = ["cellflow", "-m", *words, f"++job={','.join(map(str, range(n)))}", *QUIET]
        hydra.main(version_base="1.3", config_path=str(configs_folder()), config_name="hydra")(task)()
    except Exception as error:  # noqa: BLE001  # of a launcher that has lost jobs: what they left is in the table
        log.error("the launcher ended: %s: %s", type(error).__name__, error)
    finally:
        sys.argv = previous


def _folder(command: str, settings: list[Settings]) -> Path:
    """Return the folder of a sweep, and number its jobs."""
    outs = {one.get("out") for one in settings}
    if settings[0].get("resume") and outs == {None}:
        raise ValueError("Expected the folder of the sweep to resume; found none. Name it with `out=`.")
    stamped = f"{command}-{datetime.now():%Y-%m-%d-%H%M%S}"
    makes_runs = "resume" in settings[0] and settings[0].get("model") is None
    (out,) = outs if len(outs) == 1 else (None,)
    folder = Path("runs") / stamped if out is None or not makes_runs else Path(out)
    for number, one in enumerate(settings):
        one.job = number
        if makes_runs and one.get("out") is None:
            one.out = str(folder)
    return folder.resolve()


def _checked(words: list[str]) -> list[str]:
    """Return words for hydra, after checking them."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    chosen = [word for word in words if word.startswith(f"{LAUNCHER}=")]
    with initialize_config_dir(str(configs_folder()), version_base="1.3"):
        known = GlobalHydra.instance().config_loader().get_group_options(LAUNCHER)
        for word in chosen:
            name = word.partition("=")[2]
            if name not in known and name in PLUGINS:
                raise MissingDependencyError(
                    f"`{LAUNCHER}={name}` needs {PLUGINS[name]}. Install it with `pip install {PLUGINS[name]}`."
                )
            if name not in known:
                raise ValueError(unknown(LAUNCHER, name, known))
        cfg = compose("hydra", overrides=chosen, return_hydra_config=True)
    settings: Any = OmegaConf.to_container(cfg.hydra.launcher, resolve=False)
    return chosen + [_one(word, settings) for word in words if word not in chosen]


def _one(word: str, settings: dict[str, Any]) -> str:
    name, _, text = word.partition("=")
    room, _, key = name.rpartition(".")
    if room != "hydra.launcher" or key not in settings or key == "_target_":
        there = [LAUNCHER, *(f"hydra.launcher.{each}" for each in settings if each != "_target_")]
        raise ValueError(unknown("setting of a sweep", name, there))
    default = settings[key]
    kind = type(default) if isinstance(default, bool | int | float | str) else int | float | str | None
    value = check(read(text, kind, name=name), kind, name=name)
    if not isinstance(value, str):
        return f"{name}={'null' if value is None else str(value).lower() if isinstance(value, bool) else value}"
    if not all(letter.isalnum() or letter in "_-:./,*" for letter in value):
        raise ValueError(f"Expected `{name}` to be a word; found {value!r}.")
    return f"{name}='{value}'"  # in quotes, in which hydra reads nothing
