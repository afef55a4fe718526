"""The commands by name. The file of each is imported when it runs: torch and what it calls take seconds to load."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from cellflow.cli.settings import Settings


@dataclass(frozen=True)
class _In:
    """A command, by its file and its name in there."""

    file: str
    name: str

    def __call__(self, cfg: Settings) -> None:
        getattr(import_module(f"cellflow.cli.{self.file}"), self.name)(cfg)


def demo(cfg: Settings) -> None:
    """Run an example on data in the package: snapshots of cells, or a translation of images."""
    _In("translation" if cfg.task == "translation" else "cells", "demo")(cfg)


def report(cfg: Settings) -> None:
    """Write the report of any finished run again."""
    from cellflow.cli import runs

    files = {"DomainTranslator": "translation", "ImageGenerator": "generation", "PerturbationFlow": "perturbation"}
    _In(files.get(runs.estimator_of(runs.existing_folder(cfg.model)), "cells"), "report")(cfg)


COMMANDS: dict[str, Callable[[Settings], None]] = {
    "demo": demo,
    "fit": _In("cells", "fit"),
    "interpolate": _In("cells", "interpolate"),
    "velocity": _In("cells", "velocity"),
    "fate": _In("cells", "fate"),
    "perturb": _In("perturbation", "perturb"),
    "translate": _In("translation", "translate"),
    "generate": _In("generation", "generate"),
    "distill": _In("distillation", "distill"),
    "report": report,
}
