"""Commands on cells: fit a flow through snapshots, predict, and report."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from cellflow.cells.clock import distinct_times
from cellflow.cells.columns import read_labels
from cellflow.cells.snapshots import leave_out, time_labels_of
from cellflow.cells.store_files import Stored, are_several, files_of
from cellflow.cli import runs, shared
from cellflow.cli.beforehand import check_figures
from cellflow.cli.built import conditions_of, load_run, run_of, settings_of, solver_of
from cellflow.cli.kept import kept_settings
from cellflow.cli.settings import Settings, file_words, free, plain
from cellflow.errors import CheckpointError
from cellflow.files import committed
from cellflow.integrate import Fixed
from cellflow.lock import A_SAVE, locked

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from lightning_fabric import Fabric

    from cellflow.estimators import SnapshotFlow

log = logging.getLogger("cellflow")


def fit(cfg: Settings) -> None:
    """Fit a flow, and write its run folder."""
    fabric = shared.join(cfg)
    adata = read_cells(cfg.data.path, rep=cfg.data.rep)
    cfg.data.path = lasting(cfg.data.path)
    with shared.run_folder(cfg, "fit", fabric) as folder:
        _fit_into(folder, adata, cfg, "fit", fabric, genes=list(cfg.data.genes))


def demo(cfg: Settings) -> None:
    """Run an example on data in the package: fit, prediction of held-out data, report."""
    fabric = shared.join(cfg)
    with shared.run_folder(cfg, "demo", fabric) as folder:
        _demo_into(folder, cfg, fabric)


def _demo_into(folder: Path, cfg: Settings, fabric: "Fabric | None") -> None:
    import scanpy as sc

    from cellflow import datasets, tl

    adata = getattr(datasets, cfg.dataset)()
    if cfg.components is not None:
        if cfg.components >= min(adata.shape):
            raise ValueError(f"Expected fewer `components` than {min(adata.shape):,}; found {cfg.components:,}.")
        sc.pp.pca(adata, n_comps=cfg.components, random_state=cfg.seed % 2**32)
    leads = fabric is None or fabric.is_global_zero
    if leads:
        runs.write_cells(adata, folder / runs.CELLS)
    flow = _fit_into(folder, adata, cfg, "demo", fabric, genes=list(cfg.markers), setting="markers")
    if not leads:
        return
    if cfg.data.holdout:
        like = time_labels_of(adata, flow.time_key)
        predicted = tl.interpolate(adata, flow, at=_times(cfg.data.holdout, "data.holdout", like))
        runs.write_cells(predicted, folder / "predicted.h5ad")
    if cfg.report:
        log.info("open %s", folder / runs.REPORT)


def interpolate(cfg: Settings) -> None:
    """Write predicted cells of a fitted run, and a figure of them."""
    from cellflow import pl, tl

    folder, flow, adata = read_run(cfg)
    check_figures(adata, cfg.basis, rep=flow.rep)
    times = _times(cfg.at, "at", time_labels_of(adata, flow.time_key))
    name = "interpolated-" + "-".join([*(f"{time:.12g}" for time in times), *file_words(cfg.condition)])
    out = free(cfg.out, folder / f"{name}.h5ad")
    solver = solver_of(cfg, default=Fixed())
    asked = {"condition": cfg.condition, "origin": cfg.origin, "extrapolate": cfg.extrapolate}
    found = tl.interpolate(adata, flow, at=times, solver=solver, **asked)
    runs.write_cells(found, out)
    log.info("%d cells at %s: %s", found.n_obs, times, out)
    _keep(pl.interpolation(adata, found, time_key=flow.time_key, basis=cfg.basis), folder, name)


def velocity(cfg: Settings) -> None:
    """Write the velocity of every cell of a fitted run, and a figure of it."""
    from cellflow import pl, tl

    folder, flow, adata = read_run(cfg)
    check_figures(adata, cfg.basis, rep=flow.rep)
    name = "-".join(["velocity", *file_words(cfg.condition)])
    out = free(cfg.out, folder / f"{name}.h5ad")
    tl.velocity(adata, flow, condition=cfg.condition, genes=cfg.genes, extrapolate=cfg.extrapolate)
    runs.write_cells(adata, out)
    log.info("velocities per unit of %s: %s", flow.time_key, out)
    kind = "cell" if flow.n_features_in_ == 1 else "stream"
    _keep(pl.velocity(adata, basis=cfg.basis, kind=kind), folder, name)


def fate(cfg: Settings) -> None:
    """Write the fates of all cells of a fitted run, and a figure of them."""
    from cellflow import pl, tl

    folder, flow, adata = read_run(cfg)
    check_figures(adata, cfg.basis, rep=flow.rep)
    name = "-".join(["fate", *file_words(cfg.condition)])
    out = free(cfg.out, folder / f"{name}.h5ad")
    asked = {name: cfg[name] for name in ("groupby", "terminal", "at", "condition", "n_samples", "seed", "progress")}
    tl.fate(adata, flow, solver=solver_of(cfg, default=None), **asked)
    runs.write_cells(adata, out)
    log.info("fates in %s: %s", ", ".join(map(str, adata.uns["fate"]["groups"])), out)
    _keep(pl.fate(adata, basis=cfg.basis), folder, name)


def report(cfg: Settings) -> None:
    """Write the report of a fitted run again."""
    folder, flow, adata = read_run(cfg)
    genes = list(cfg.data.genes) or list(kept_settings(folder, "fit").data.get("genes") or [])
    check_figures(adata, cfg.data.basis, rep=flow.rep, genes=genes)
    if cfg.validate:
        _validate(folder, adata, flow, cfg)
    _add_fates(folder, adata)
    write_report(folder, adata, flow, genes, asked=cfg)
    log.info("open %s", folder / runs.REPORT)


def read_cells(path: Stored, *, rep: str = "X_pca") -> "AnnData":
    """Read an ``.h5ad`` file or a ``.zarr`` folder; several files, or a pattern of names, without their expression.

    Raises
    ------
    FileNotFoundError, ValueError
        When one does not exist, or is neither.
    """
    from cellflow.cells.h5ad import read_adata
    from cellflow.cells.stores import read_stores

    if are_several(path):
        return read_stores(path, rep=rep, beside=None)
    path = Path(cast("str | Path", path))
    if not path.exists():
        raise FileNotFoundError(f"No file {path}. Name an .h5ad file or a .zarr folder with `data.path=`.")
    return read_adata(path)


def lasting(path: Stored) -> str | list[str]:
    """Return the absolute path of the cells, or of each of several files."""
    if are_several(path):
        return [str(file.absolute()) for file in files_of(path)]  # links stay: their names are those of the files
    return str(Path(cast("str | Path", path)).resolve())


def make_flow(cfg: Settings) -> "SnapshotFlow":
    """Return the unfitted flow that a configuration describes."""
    from cellflow.estimators import SnapshotFlow

    columns = {"time_key": cfg.data.time_key, "rep": cfg.data.rep}
    if "conditions" in cfg:  # a demo has none
        columns["conditions"] = conditions_of(cfg)
    if columns.get("conditions") is not None and cfg.data.lineage_key is not None:
        raise ValueError(
            "Comparing clones with fates under conditions is not supported yet. Leave out `data.lineage_key`."
        )
    return SnapshotFlow(**settings_of(SnapshotFlow, cfg, **columns))


def _fit_into(
    folder: Path,
    adata: "AnnData",
    cfg: Settings,
    command: str,
    fabric: "Fabric | None" = None,
    genes: Sequence[str] = (),
    setting: str = "data.genes",
) -> "SnapshotFlow":
    """Fit; and in the first process validate, and write everything that a run folder holds."""
    import torch

    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    run = run_of(cfg, folder, fabric=fabric)
    if run.leads:
        runs.write_settings(folder, plain(cfg))
    flow, watch = make_flow(cfg), runs.Stopwatch()
    like = time_labels_of(adata, flow.time_key)
    seen = leave_out(adata, flow.time_key, _times(cfg.data.holdout, "data.holdout", like, none=True))
    for column in ("groupby", "lineage_key"):
        if cfg.data[column] is not None:
            read_labels(adata, cfg.data[column], setting=column)
    check_figures(adata, cfg.data.get("basis"), rep=cfg.data.rep, genes=genes, setting=setting)
    flow.fit(seen, run=run)
    if not run.leads:
        return flow
    seconds = {"fit": watch.seconds()}
    flow.save(folder, overwrite=cfg.resume)
    flow.history_.to_csv(folder / runs.HISTORY)
    facts = {"command": command, "seed": cfg.seed, "device": shared.device_of(flow.field_, fabric)}
    runs.write_facts(folder, **facts, seconds=seconds)
    if cfg.validate:
        _validate(folder, adata, flow, cfg)
    seconds["all"] = watch.seconds()
    runs.write_facts(folder, **facts, seconds=seconds)
    if cfg.get("report", True):
        write_report(folder, adata, flow, genes)
        log.info("fitted in %.1f s; the report is %s", seconds["fit"], folder / runs.REPORT)
    else:
        log.info("fitted in %.1f s; `cellflow report model=%s` writes the report", seconds["fit"], folder)
    return flow


def _times(
    given: Any, name: str, like: Mapping[str, float] = MappingProxyType({}), *, none: bool = False
) -> list[float]:
    """Return one time, or a list of them, as numbers."""
    several = given if isinstance(given, str) or not isinstance(given, Sequence) else list(given)
    times = distinct_times(several, what=f"`{name}`", none=none, like=like)
    found: list[float] = times.tolist()
    return found


def _validate(folder: Path, adata: "AnnData", flow: "SnapshotFlow", cfg: Settings) -> None:
    """Compare predictions with cells that the flow has not seen, and keep the tables."""
    from cellflow import tl

    if flow.conditions_ is not None:
        log.info("flows with conditions are not validated: hold some out of the fit, and compare them yourself")
        return
    groupby, lineage_key = (_column(folder, cfg, name) for name in ("groupby", "lineage_key"))
    if not (tl.testable_times(adata, flow) or cfg.keep_aside or groupby or lineage_key):
        log.info("nothing to validate: no snapshot lies between two others that the flow may see")
        return
    tl.validate(adata, flow, keep_aside=cfg.keep_aside, n_seeds=cfg.n_seeds, groupby=groupby, lineage_key=lineage_key)
    for key in runs.VALIDATION:
        (folder / f"{key}.csv").unlink(missing_ok=True)
        if key in adata.uns:
            runs.write_table(adata.uns[key], folder / f"{key}.csv")


def _column(folder: Path, asked: Settings | None, name: str) -> str | None:
    """Return a column, or a basis, that is named in the configuration, or was for the run."""
    named: str | None = asked.data.get(name) if asked is not None else None
    kept: str | None = kept_settings(folder, "fit").data.get(name)
    return named or kept


def read_run(cfg: Settings) -> tuple[Path, "SnapshotFlow", "AnnData"]:
    """Return the folder, the flow and the cells of a finished run."""
    from cellflow.estimators import SnapshotFlow

    folder = runs.existing_folder(cfg.model)
    flow = load_run(SnapshotFlow, folder, cfg)  # first: settings of another kind of run are other settings
    known = cfg.data.path or kept_settings(folder, "fit").data.path or folder / runs.CELLS
    return folder, flow, read_cells(known, rep=flow.rep)


def _keep(figure: Any, folder: Path, name: str) -> None:
    """Save a figure in the run folder."""
    with committed(folder / "figures" / f"{name}.png") as partial:
        getattr(figure, "figure", figure).savefig(partial, dpi=150)


def _add_fates(folder: Path, adata: "AnnData") -> None:
    """Take the fates that `cellflow fate` wrote for these cells, where there are any, so that the report has them."""
    file = folder / "fate.h5ad"
    if not file.exists() or "fate" in adata.obsm:
        return
    found = read_cells(file)
    if "fate" in found.obsm and "fate" in found.uns and found.obs_names.equals(adata.obs_names):
        adata.obsm["fate"], adata.uns["fate"] = found.obsm["fate"], found.uns["fate"]


def write_report(
    folder: Path, adata: "AnnData", flow: "SnapshotFlow", genes: Sequence[str] = (), asked: Settings | None = None
) -> None:
    """Write the report of a run folder, with its stored validation, and the columns of its settings."""
    from cellflow import report

    for key in runs.VALIDATION:
        kept = folder / f"{key}.csv"
        if kept.exists():
            adata.uns[key] = _table(kept)
    columns = {name: _column(folder, asked, name) for name in ("groupby", "lineage_key", "basis")}
    with locked(folder, wait=A_SAVE):
        report.write(folder, adata, flow, title=folder.name, details=runs.details(folder), genes=genes, **columns)


def _table(file: Path) -> "pd.DataFrame":
    """Return a table that was kept with a run."""
    import pandas as pd

    try:
        return pd.read_csv(file)
    except ValueError as error:  # of pandas, on what is no CSV
        raise CheckpointError(f"{file} is damaged. Write it again with `cellflow report ... validate=true`.") from error
