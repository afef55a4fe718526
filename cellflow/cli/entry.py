"""Running a command: its name, its configuration by hydra, its errors in one sentence, and Ctrl-C."""

import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cellflow.cli import cells, distillation, generation, runs, translation
from cellflow.cli.former import modern_words
from cellflow.cli.help import describe, overview
from cellflow.estimators.base import DESCRIPTION
from cellflow.training.checkpoint import STATE

log = logging.getLogger("cellflow")

QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none")
"""Hydra's own log files are not written; ours goes to the terminal."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
FULL_ERROR = "HYDRA_FULL_ERROR"
"""Environment variable: 1 shows the whole traceback of an error."""
EXPECTED = (ValueError, TypeError, KeyError, OSError, ImportError, RuntimeError, FloatingPointError)
"""Errors that a user can cause; they are reported in one sentence."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    command, rest = (given[0], given[1:]) if given else ("--help", [])
    if command in ("--help", "-h", "help"):
        print(overview(configs_folder(), COMMANDS))  # noqa: T201
        return 0
    if command not in COMMANDS:
        print(f"cellflow: unknown command {command!r}. Choose from: {', '.join(COMMANDS)}.", file=sys.stderr)  # noqa: T201
        return 2
    if "--help" in rest or "-h" in rest:
        print(describe(configs_folder(), command))  # noqa: T201
        return 0
    return _run(command, rest)


def configs_folder() -> Path:
    """Return the folder with the YAML files: beside the code in a wheel, at the top level in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def demo(cfg: DictConfig) -> None:
    """Run an example on data in the package: snapshots of cells, or a translation of images."""
    (translation.demo if cfg.task == "translation" else cells.demo)(cfg)


def report(cfg: DictConfig) -> None:
    """Write the report of a finished run again, whatever it fitted."""
    kinds = {"DomainTranslator": translation.report, "ImageGenerator": generation.report}
    kinds.get(runs.estimator_of(runs.existing_folder(cfg.model)), cells.report)(cfg)


COMMANDS: dict[str, Callable[[DictConfig], None]] = {
    "demo": demo,
    "fit": cells.fit,
    "interpolate": cells.interpolate,
    "velocity": cells.velocity,
    "fate": cells.fate,
    "translate": translation.translate,
    "generate": generation.generate,
    "distill": distillation.distill,
    "report": report,
}


def _run(command: str, overrides: list[str]) -> int:
    """Let hydra compose the configuration and call the command, once or for every job of a sweep."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    asked: list[tuple[DictConfig, list[str]]] = []
    failed: list[BaseException] = []

    def task(cfg: DictConfig) -> None:
        asked.append((cfg, list(HydraConfig.get().overrides.task)))
        try:
            _require(cfg, command)
            COMMANDS[command](cfg)
        except (*EXPECTED, OmegaConfBaseException, HydraException) as error:
            if os.environ.get(FULL_ERROR) == "1":
                raise
            print(f"cellflow {command}: {_sentence(error)}", file=sys.stderr)  # noqa: T201
            failed.append(error)

    previous, handler = sys.argv, logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say  # type: ignore[assignment]
            # Flags first: hydra's parser does not find them between settings.
            words = sorted(modern_words(overrides), key=lambda word: not word.startswith("-"))
            sys.argv = [f"cellflow {command}", *words, *QUIET]
            hydra.main(version_base="1.3", config_path=str(configs_folder()), config_name=command)(task)()
    except KeyboardInterrupt as stop:
        print(f"\n{_goodbye(stop, command, *asked[-1]) if asked else 'Stopped.'}", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except SystemExit as stop:  # hydra has said what it did not understand
        print(f"`cellflow {command} --help` lists every setting.", file=sys.stderr)  # noqa: T201
        return int(stop.code or 0)
    finally:
        sys.argv = previous
        log.removeHandler(handler)
    return 1 if failed else 0


def _say(message: Warning | str, *_: object) -> None:
    """Show a warning as one sentence, without the line of code that it comes from."""
    log.warning("warning: %s", message)


def _goodbye(stop: KeyboardInterrupt, command: str, cfg: DictConfig, overrides: list[str]) -> str:
    """Return a message on what was saved, with the command that resumes."""
    said = str(stop) or "Stopped."
    if command == "distill" and (distillation.state_of(cfg) / STATE).exists():
        return f"{said} On the command line:\n  {_again(command, overrides)}"
    out = OmegaConf.select(cfg, "out")
    if out is not None and (Path(out) / DESCRIPTION).exists():
        return f"Stopped; the fitted model is in {out}. Its report: cellflow report model={out}"
    if out is None or not (Path(out) / STATE).exists():
        return "Stopped; nothing was saved yet."
    return f"{said} On the command line:\n  {_again(command, overrides, f'out={out}')}"


def _again(command: str, overrides: list[str], *more: str) -> str:
    """Return the command that goes on from where this one was stopped."""
    kept = [word for word in overrides if not word.startswith(("out=", "resume="))]
    return shlex.join(["cellflow", command, *kept, *more, "resume=true"])


def _require(cfg: DictConfig, command: str) -> None:
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        wanted = " ".join(f"{key}=..." for key in missing)
        raise ValueError(f"missing {wanted}. `cellflow {command} --help` explains every setting.")


def _sentence(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
    return str(cause.args[0]) if isinstance(cause, KeyError) and cause.args else str(cause)
