"""The YAML files: what a name such as ``dataset=eb`` stands for, and the settings of a run by hydra."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cellflow.cli.failures import EXPECTED
from cellflow.cli.running import FULL_ERROR, INTERRUPTED
from cellflow.cli.sweeps import QUIET
from cellflow.errors import MissingDependencyError, unknown

CONFIGS = Path(__file__).parent / "configs"
SKIPPED = 3
"""Exit code of a run whose package is not installed."""


def load(group: str, name: str, **changes: Any) -> Any:
    """Return the data set or the method of that name; ``changes`` replace settings everywhere but in solvers."""
    file = CONFIGS / group / f"{name}.yaml"
    if not file.is_file():
        raise ValueError(unknown(group, name, sorted(path.stem for path in file.parent.glob("*.yaml"))))
    return made(_changed(OmegaConf.to_container(OmegaConf.load(file)), changes))


def made(settings: Any) -> Any:
    """Return what settings describe."""
    return instantiate(settings, _convert_="all")  # else hydra wraps dataclasses in lists


def _changed(settings: Any, changes: dict[str, Any]) -> Any:
    if isinstance(settings, list):
        return [_changed(item, changes) for item in settings]
    if not isinstance(settings, dict):
        return settings
    kept = {"solver": settings["solver"]} if "solver" in settings else {}  # whose steps are none of the training
    return {key: changes[key] if key in changes else _changed(item, changes) for key, item in settings.items()} | kept


def through_hydra(words: list[str], act: Callable[[DictConfig, str], object]) -> int:
    """Call ``act`` with the settings that the words ask for and the method's name, once or for each job of a sweep.

    Returns the exit code. What a user can cause is said in one sentence; HYDRA_FULL_ERROR=1 shows the whole traceback.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig

    codes = [0]

    def task(cfg: DictConfig) -> None:
        name = HydraConfig.get().runtime.choices["method"]
        try:
            act(cfg, name)
        except (*EXPECTED, OmegaConfBaseException, HydraException) as error:
            skipped = isinstance(error, MissingDependencyError)
            if os.environ.get(FULL_ERROR) == "1" and not skipped:
                raise
            print(f"skipped {name}: {error}" if skipped else f"benchmarks.trajectory: {_said(error)}", file=sys.stderr)
            codes.append(SKIPPED if skipped else 1)

    # Flags first: hydra's parser does not find them between settings.
    ordered = sorted(words, key=lambda word: not word.startswith("-"))
    previous, sys.argv = sys.argv, ["benchmarks.trajectory", *ordered, *QUIET]
    try:
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(task)()
    except KeyboardInterrupt:
        print("\nStopped. The same command resumes from here: finished runs are not repeated.", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:  # hydra has said what it did not understand
        return int(stop.code or 0)
    finally:
        sys.argv = previous
    return 1 if 1 in codes else max(codes)


def _said(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
    return str(cause.args[0]) if isinstance(cause, KeyError) and cause.args else str(cause)
