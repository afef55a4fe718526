"""The command line: ``python -m benchmarks.trajectory protocol=A dataset=eb dims=5 method=otcfm seeds=5``."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks.trajectory.protocols import PROTOCOLS, choose
from benchmarks.trajectory.run import Job, run
from benchmarks.trajectory.settings import CONFIGS
from benchmarks.trajectory.sweep import SKIPPED, run_all, run_table
from cellflow.errors import MissingDependencyError

COMMANDS = {"all": run_all, "table": run_table}
EXPECTED = (ValueError, TypeError, KeyError, OSError, ImportError, RuntimeError, FloatingPointError)
"""What a user can cause, and is told in one sentence; HYDRA_FULL_ERROR=1 shows the whole traceback."""


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments say, and return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("--help", "-h", "help"):
        print(usage())
        return 0
    if given[0] in COMMANDS:
        return COMMANDS[given[0]](given[1:])
    return _through_hydra(given)


def usage() -> str:
    """Return what can be asked for: the settings with their comments, and every choice.

    Examples
    --------
    >>> "otcfm" in usage()
    True
    """
    text = (CONFIGS / "config.yaml").read_text().split("\nhydra:")[0]
    parts = [text, "# protocols"]
    parts += [f"#   {name:<12} {protocol.about}" for name, protocol in PROTOCOLS.items()]
    for group in ("dataset", "method"):
        parts.append(f"# {group}s")
        for file in sorted((CONFIGS / group).glob("*.yaml")):
            parts.append(f"#   {file.stem:<20} {file.read_text().splitlines()[0].removeprefix('# ')}")
    return "\n".join(parts)


def job_of(cfg: DictConfig, *, method_name: str) -> Job:
    """Return the job that a configuration describes; the data are read.

    Raises
    ------
    ValueError, KeyError, FileNotFoundError
        When the protocol, the data set or the settings are not right.
    """
    from hydra.utils import instantiate

    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ValueError(f"missing {' '.join(f'{key}=...' for key in missing)}.")
    protocol = choose(cfg.protocol)
    cells = instantiate(cfg.dataset).load(cfg.dims)
    settings = cast("dict[str, Any]", OmegaConf.to_container(cfg.method, resolve=True))
    return Job(
        protocol=protocol,
        cells=cells,
        method=instantiate(cfg.method, _convert_="all"),  # else hydra wraps dataclasses in lists
        name=cfg.name or method_name,
        settings=settings,
        folds=OmegaConf.to_container(cfg.fold) if OmegaConf.is_list(cfg.fold) else cfg.fold,
        seeds=cfg.seeds,
        out=Path(cfg.out),
        again=cfg.again,
    )


def _through_hydra(words: list[str]) -> int:
    import hydra
    from hydra.core.hydra_config import HydraConfig

    failed: list[BaseException] = []

    def task(cfg: DictConfig) -> None:
        try:
            torch.set_num_threads(cfg.threads)
            run(job_of(cfg, method_name=HydraConfig.get().runtime.choices["method"]))
        except MissingDependencyError as error:
            print(f"skipped {HydraConfig.get().runtime.choices['method']}: {error}", file=sys.stderr)
            failed.append(error)
        except (*EXPECTED, OmegaConfBaseException, HydraException) as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            print(f"benchmarks.trajectory: {_sentence(error)}", file=sys.stderr)
            failed.append(error)

    try:
        with _arguments(words):
            hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(task)()
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here: finished runs are not done again.", file=sys.stderr)
        return 130
    except SystemExit as stop:  # hydra has said what it did not understand
        return int(stop.code or 0)
    if any(not isinstance(error, MissingDependencyError) for error in failed):
        return 1
    return SKIPPED if failed else 0


@contextmanager
def _arguments(words: list[str]) -> Iterator[None]:
    """Let hydra see these arguments, and none of its own log files."""
    # Flags first: hydra's parser does not find them between settings.
    ordered = sorted(words, key=lambda word: not word.startswith("-"))
    quiet = ("hydra/job_logging=none", "hydra/hydra_logging=none")
    previous, sys.argv = sys.argv, ["benchmarks.trajectory", *ordered, *quiet]
    try:
        yield
    finally:
        sys.argv = previous


def _sentence(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
    return str(cause.args[0]) if isinstance(cause, KeyError) and cause.args else str(cause)


if __name__ == "__main__":
    sys.exit(main())
