"""The command line: ``cellflow demo | fit | interpolate | velocity | report``. The only file that knows hydra."""

import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cellflow import runs
from cellflow.data.snapshots import leave_out, to_numbers
from cellflow.help import describe, overview

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

log = logging.getLogger("cellflow")

QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none")
"""Hydra's own log files are not written; ours goes to the terminal."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
FULL_ERROR = "HYDRA_FULL_ERROR"
"""Environment variable: 1 shows the whole traceback of an error."""
EXPECTED = (ValueError, TypeError, KeyError, OSError, ImportError, RuntimeError, FloatingPointError)
"""What a user can cause, and is told in one sentence."""


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
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "configs"


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

    # Flags first: hydra's parser does not find them between settings.
    words = sorted(overrides, key=lambda word: not word.startswith("-"))
    previous, sys.argv = sys.argv, [f"cellflow {command}", *words, *QUIET]
    handler = logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
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


def _goodbye(stop: KeyboardInterrupt, command: str, cfg: DictConfig, overrides: list[str]) -> str:
    """Say what was saved, and the command that goes on from there."""
    out = OmegaConf.select(cfg, "out")
    if out is not None and (Path(out) / runs.DESCRIPTION).exists():
        return f"Stopped; the fitted model is in {out}. Its report: cellflow report model={out}"
    if out is None or not (Path(out) / runs.STATE).exists():
        return "Stopped; nothing was saved yet."
    kept = [word for word in overrides if not word.startswith(("out=", "resume="))]
    return f"{stop} On the command line:\n  {shlex.join(['cellflow', command, *kept, f'out={out}', 'resume=true'])}"


def _require(cfg: DictConfig, command: str) -> None:
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        wanted = " ".join(f"{key}=..." for key in missing)
        raise ValueError(f"missing {wanted}. `cellflow {command} --help` explains every setting.")


def _sentence(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
    return str(cause.args[0]) if isinstance(cause, KeyError) and cause.args else str(cause)


def fit(cfg: DictConfig) -> None:
    """Fit a flow, and write its run folder."""
    adata = read_cells(cfg.data.path)
    OmegaConf.update(cfg, "data.path", str(Path(cfg.data.path).resolve()))
    folder = _new_folder(cfg, "fit")
    _fit_into(folder, adata, cfg, "fit")


def demo(cfg: DictConfig) -> None:
    """Run the main job on the data in the package: PCA, fit, predict what was left out, report."""
    import scanpy as sc

    from cellflow import datasets, tl

    folder = _new_folder(cfg, "demo")
    adata = datasets.hsmm()
    sc.pp.pca(adata, n_comps=cfg.components, random_state=cfg.seed)
    adata.write_h5ad(folder / runs.CELLS)
    flow = _fit_into(folder, adata, cfg, "demo", genes=list(cfg.markers))
    predicted = tl.interpolate(adata, flow, at=list(cfg.data.holdout))
    predicted.write_h5ad(folder / "predicted.h5ad")
    log.info("open %s", folder / runs.REPORT)


def interpolate(cfg: DictConfig) -> None:
    """Write predicted cells of a fitted run, and a figure of them."""
    from cellflow import pl, tl

    folder, flow, adata = _read_run(cfg)
    times = _times(cfg.at, "at")
    name = "interpolated-" + "-".join(f"{time:.12g}" for time in times)
    out = _free(cfg.out, folder / f"{name}.h5ad")
    found = tl.interpolate(adata, flow, at=times, origin=cfg.origin, extrapolate=cfg.extrapolate)
    found.write_h5ad(out)
    log.info("%d cells at %s: %s", found.n_obs, times, out)
    _keep(pl.interpolation(adata, found, time_key=flow.time_key, basis=flow.rep), folder, name)


def velocity(cfg: DictConfig) -> None:
    """Write the velocity of every cell of a fitted run, and a figure of it."""
    from cellflow import pl, tl

    folder, flow, adata = _read_run(cfg)
    out = _free(cfg.out, folder / "velocity.h5ad")
    tl.velocity(adata, flow, genes=cfg.genes, extrapolate=cfg.extrapolate)
    adata.write_h5ad(out)
    log.info("velocities per unit of %s: %s", flow.time_key, out)
    kind = "cell" if flow.n_features_in_ == 1 else "stream"
    _keep(pl.velocity(adata, basis=cfg.basis or flow.rep, kind=kind), folder, "velocity")


def report(cfg: DictConfig) -> None:
    """Write the report of a fitted run again."""
    folder, flow, adata = _read_run(cfg)
    if cfg.validate:
        _validate(folder, adata, flow)
    _report(folder, adata, flow)
    log.info("open %s", folder / runs.REPORT)


COMMANDS: dict[str, Callable[[DictConfig], None]] = {
    "demo": demo,
    "fit": fit,
    "interpolate": interpolate,
    "velocity": velocity,
    "report": report,
}


def read_cells(path: str | Path) -> "AnnData":
    """Read an ``.h5ad`` file or a ``.zarr`` folder.

    Raises
    ------
    FileNotFoundError, ValueError
        When it is not there, or is neither.
    """
    import anndata

    if not Path(path).exists():
        raise FileNotFoundError(f"No file {path}. Name an .h5ad file or a .zarr folder with `data.path=`.")
    if Path(path).suffix == ".h5ad":
        return anndata.read_h5ad(path)
    if Path(path).suffix == ".zarr":
        return anndata.read_zarr(path)
    raise ValueError(f"Expected an .h5ad file or a .zarr folder; found {path}.")


def make_flow(cfg: DictConfig) -> "SnapshotFlow":
    """Return the unfitted flow that a configuration describes."""
    from hydra.utils import instantiate

    from cellflow.estimators import SnapshotFlow

    return SnapshotFlow(
        time_key=cfg.data.time_key,
        rep=cfg.data.rep,
        path=instantiate(cfg.path),
        coupling=instantiate(cfg.coupling),
        steps=cfg.steps,
        batch_size=cfg.batch_size,
        network=instantiate(cfg.network),
        score=cfg.score,
        growth=cfg.growth,
        masses=_plain(cfg)["masses"],
        bend=cfg.bend,
        recipe=instantiate(cfg.recipe),
        standardize=cfg.standardize,
        ot_batch_size=cfg.ot_batch_size,
        seed=cfg.seed,
        device=cfg.device,
        progress=cfg.progress,
    )


def _new_folder(cfg: DictConfig, command: str) -> Path:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    job = HydraConfig.get().job.num if HydraConfig.get().mode == RunMode.MULTIRUN else None
    folder = runs.new_folder(cfg.out, command=command, resume=cfg.resume, job=job)
    cfg.out = str(folder)
    if cfg.resume:
        runs.refuse_changes(folder, _plain(cfg))
    return folder


def _fit_into(
    folder: Path, adata: "AnnData", cfg: DictConfig, command: str, genes: Sequence[str] = ()
) -> "SnapshotFlow":
    """Fit, validate, and write everything that a run folder holds."""
    import torch

    torch.set_num_threads(cfg.threads)
    runs.write_settings(folder, _plain(cfg))
    flow, watch = make_flow(cfg), runs.Stopwatch()
    flow.fit(
        leave_out(adata, flow.time_key, _times(cfg.data.holdout, "data.holdout")), folder=folder, resume=cfg.resume
    )
    seconds = {"fit": watch.seconds()}
    flow.save(folder, overwrite=cfg.resume)
    flow.history_.to_csv(folder / runs.HISTORY)
    facts = {"command": command, "seed": cfg.seed, "device": str(next(flow.field_.parameters()).device)}
    runs.write_facts(folder, **facts, seconds=seconds)
    if cfg.validate:
        _validate(folder, adata, flow)
    seconds["all"] = watch.seconds()
    runs.write_facts(folder, **facts, seconds=seconds)
    _report(folder, adata, flow, genes)
    log.info("fitted in %.1f s; the report is %s", seconds["fit"], folder / runs.REPORT)
    return flow


def _times(given: Any, name: str) -> list[float]:
    """Return one time, or a list of them, as numbers."""
    return to_numbers(list(given) if OmegaConf.is_list(given) else [given], what=f"`{name}`").tolist()


def _plain(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved settings as plain values."""
    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))


def _validate(folder: Path, adata: "AnnData", flow: "SnapshotFlow") -> None:
    """Compare predictions with snapshots that the flow has not seen, where there are snapshots between others."""
    from cellflow import tl

    if not tl.testable_times(adata, flow):
        log.info("nothing to validate: no snapshot lies between two others that the flow may see")
        return
    tl.validate(adata, flow)
    adata.uns["validation"].to_csv(folder / runs.VALIDATION, index=False)


def _read_run(cfg: DictConfig) -> tuple[Path, "SnapshotFlow", "AnnData"]:
    """Return the folder, the flow and the cells of a finished run."""
    from cellflow.estimators import SnapshotFlow

    folder = runs.existing_folder(cfg.model)
    known = runs.read_settings(folder)["data"].get("path", folder / runs.CELLS)
    return folder, SnapshotFlow.load(folder), read_cells(OmegaConf.select(cfg, "data.path") or known)


def _free(out: str | None, default: Path) -> Path:
    """Return the file to write, and refuse to write over one."""
    path = default if out is None else Path(out)
    if path.exists():
        raise FileExistsError(f"{path} exists. Choose another file with `out=`.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _keep(figure: Any, folder: Path, name: str) -> None:
    """Save a figure in the run folder."""
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    getattr(figure, "figure", figure).savefig(figures / f"{name}.png", dpi=150)


def _report(folder: Path, adata: "AnnData", flow: "SnapshotFlow", genes: Sequence[str] = ()) -> None:
    """Write the report of a run folder, with the validation that was kept in it."""
    import pandas as pd

    from cellflow import report

    kept = folder / runs.VALIDATION
    if kept.exists():
        adata.uns["validation"] = pd.read_csv(kept)
    report.write(folder, adata, flow, title=folder.name, details=runs.details(folder), genes=genes)
