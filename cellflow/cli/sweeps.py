"""The jobs of a sweep, started by one of hydra's launchers: one after the other, or wherever a launcher takes them."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cellflow.cli.compose import configs_folder
from cellflow.cli.kinds import check, read
from cellflow.errors import unknown

if TYPE_CHECKING:
    from cellflow.cli.settings import Settings

LAUNCHER = "hydra/launcher"
QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none")
"""Hydra's own log files are not written; ours goes to the terminal."""

Job = tuple[list[str], "Settings"]


def sweep(jobs: list[Job], one: Callable[[list[str], "Settings"], bool], launcher: list[str]) -> bool:
    """Run all jobs, and return whether all went well.

    Hydra is told their numbers only.

    Parameters
    ----------
    jobs
        Words and settings of each.
    one
        Runs one.
    launcher
        Words that choose and set one of hydra's launchers.

    Raises
    ------
    ValueError
        When there is no such launcher, or it has no such setting.
    """
    import hydra

    words = _checked(launcher)
    went_well: list[bool] = []
    faults: list[BaseException] = []

    def task(cfg: Any) -> None:
        try:
            went_well.append(one(*jobs[cfg.job]))
        except Exception as error:  # noqa: BLE001  # raised below: hydra would show its own words
            faults.append(error)

    numbers = ",".join(str(number) for number in range(len(jobs)))
    previous = sys.argv
    try:
        sys.argv = ["cellflow", "-m", *words, f"++job={numbers}", *QUIET]
        hydra.main(version_base="1.3", config_path=str(configs_folder()), config_name="hydra")(task)()
    finally:
        sys.argv = previous
    if faults:
        raise faults[0]
    return all(went_well)


def _checked(words: list[str]) -> list[str]:
    """Return words for hydra, once they are known to be right."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    chosen = [word for word in words if word.startswith(f"{LAUNCHER}=")]
    with initialize_config_dir(str(configs_folder()), version_base="1.3"):
        known = GlobalHydra.instance().config_loader().get_group_options(LAUNCHER)
        for word in chosen:
            name = word.partition("=")[2]
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
    if isinstance(value, str) and not value.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"Expected `{name}` to be a word; found {value!r}.")
    return f"{name}={'null' if value is None else str(value).lower() if isinstance(value, bool) else value}"
