"""Commands on control and treated cells: fit a flow between them, and predict with it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow.cells.treatments import coded
from cellflow.cli import runs, shared
from cellflow.cli.beforehand import check_solver
from cellflow.cli.built import conditions_of, load_run, run_of, settings_of, solver_of
from cellflow.cli.cells import lasting, read_cells
from cellflow.cli.kept import kept_settings
from cellflow.cli.settings import Settings, file_words, free, plain
from cellflow.errors import unknown
from cellflow.estimators.perturbation_verbs import WAY
from cellflow.lock import A_SAVE, locked

if TYPE_CHECKING:
    from anndata import AnnData
    from lightning_fabric import Fabric

    from cellflow.estimators import PerturbationFlow

log = logging.getLogger("cellflow")
RESPONSE = "response.csv"
"""The table of measured and predicted changes."""


def perturb(cfg: Settings) -> None:
    """Fit a flow from controls to treated cells, or predict cells with a fitted one."""
    if cfg.model is not None:
        return _predict(cfg)
    if cfg.data.path is None:
        raise ValueError("missing data.path=..., to fit, or model=..., to predict. `--help` explains every setting.")
    fabric = shared.join(cfg)
    flow, adata = make_flow(cfg), read_cells(cfg.data.path, rep=cfg.data.rep)
    check_solver(cfg, noisy=False)
    cfg.data.path = lasting(cfg.data.path)
    with shared.run_folder(cfg, "perturb", fabric) as folder:
        _fit(folder, flow, adata, cfg, fabric)
    return None


def report(cfg: Settings) -> None:
    """Write the report of a fitted flow from controls to treated cells again."""
    folder, flow, adata = _read_run(cfg)
    write_report(folder, flow, adata, measured=cfg.validate or kept_settings(folder, "perturb").validate)


def make_flow(cfg: Settings) -> "PerturbationFlow":
    """Return the unfitted flow that a configuration describes.

    Raises
    ------
    ValueError
        When it names no column of conditions.
    """
    from cellflow.estimators import PerturbationFlow

    conditions = conditions_of(cfg)
    if conditions is None:
        raise ValueError(
            "missing conditions.treatment=..., the column of obs with treatments. `--help` explains every setting."
        )
    return PerturbationFlow(**settings_of(PerturbationFlow, cfg, rep=cfg.data.rep, conditions=conditions))


def write_report(folder: Path, flow: "PerturbationFlow", adata: "AnnData", *, measured: bool) -> None:
    """Write the report of a run folder and, if requested, the table of what treatments change."""
    from cellflow import report, tl

    if measured:
        tl.response(adata, flow)
        runs.write_table(adata.uns["response"], folder / RESPONSE)
    with locked(folder, wait=A_SAVE):
        report.write_perturbation(folder, adata, flow, title=folder.name, details=runs.details(folder))
    log.info("open %s", folder / runs.REPORT)


def _fit(
    folder: Path, flow: "PerturbationFlow", adata: "AnnData", cfg: Settings, fabric: "Fabric | None" = None
) -> None:
    """Fit; the first process writes the whole run folder."""
    import torch

    seen = adata if cfg.data.holdout is None else adata[~_held_out(adata, flow, cfg.data.holdout)]
    torch.set_num_threads(cfg.threads)
    run = run_of(cfg, folder, fabric=fabric)
    if run.leads:
        runs.write_settings(folder, plain(cfg))
    watch = runs.Stopwatch()
    flow.fit(seen, run=run)
    if not run.leads:
        return
    flow.save(folder, overwrite=cfg.resume)
    flow.history_.to_csv(folder / runs.HISTORY)
    device = shared.device_of(flow.field_, fabric)
    runs.write_facts(folder, command="perturb", seed=cfg.seed, device=device, seconds={"fit": watch.seconds()})
    write_report(folder, flow, adata, measured=cfg.validate)
    log.info("fitted in %.1f s", watch.seconds())


def _predict(cfg: Settings) -> None:
    """Write predicted cells of a fitted run."""
    from cellflow import tl

    folder, flow, adata = _read_run(cfg)
    out = free(cfg.out, folder / f"{'-'.join(['perturbed', *file_words(cfg.condition)])}.h5ad")
    if isinstance(cfg.cells, Mapping):
        adata = adata[having(adata, cfg.cells, setting="cells")]
    found = tl.perturb(
        adata,
        flow,
        condition=cfg.condition,
        cells=adata.obs_names if cfg.cells == "all" else None,
        genes=cfg.genes,
        solver=solver_of(cfg, default=WAY),
        progress=cfg.progress,
    )
    runs.write_cells(found, out)
    log.info("%d cells: %s", found.n_obs, out)


def _read_run(cfg: Settings) -> tuple[Path, "PerturbationFlow", "AnnData"]:
    """Return the folder, the flow and the cells of a finished run."""
    from cellflow.estimators import PerturbationFlow

    folder = runs.existing_folder(cfg.model)
    flow = load_run(PerturbationFlow, folder, cfg)
    known = cfg.data.path or kept_settings(folder, "perturb").data.path
    if known is None:
        raise ValueError(f"missing data.path=...: {folder} does not say which cells it was fitted on.")
    return folder, flow, read_cells(known, rep=flow.rep)


def _held_out(adata: "AnnData", flow: "PerturbationFlow", wanted: Mapping[str, str]) -> np.ndarray:
    """Return which cells to hold out: the treated ones with the given values."""
    chosen = having(adata, wanted, setting="data.holdout")
    table = flow._conditions().fit(adata.obs, adata.uns).read(adata.obs)
    held = chosen & ~table.is_control[table.index]
    if not held.any():
        raise ValueError(f"No treated cells have {dict(wanted)}, to hold out as `data.holdout`: all are controls.")
    groups = {str(k): pd.factorize(adata.obs[name])[0] for k, name in enumerate(flow._groups())}
    arms = pd.DataFrame(groups | {"condition": table.index}).groupby([*groups, "condition"]).ngroup().to_numpy()
    if np.isin(arms[held], arms[~held]).any():
        log.warning(
            "data.holdout holds out only some cells of some conditions, which count as seen. Hold out a whole "
            "condition, or a group, see `within`"
        )
    return np.asarray(held)


def having(adata: "AnnData", wanted: Mapping[str, str], *, setting: str) -> np.ndarray:
    """Return which cells have given values in columns of ``obs``, as they are printed, ``(n,)``.

    Parameters
    ----------
    adata
        The cells.
    wanted
        A value for each column.
    setting
        The setting, for the message.

    Raises
    ------
    KeyError, ValueError
        When a column or value does not exist, or no cell has all of them.

    Examples
    --------
    >>> import cellflow as cf
    >>> int(having(cf.datasets.hsmm(), {"hours": "24"}, setting="cells").sum())
    74
    """
    found = np.ones(adata.n_obs, dtype=bool)
    for name, value in wanted.items():
        if name not in adata.obs:
            raise KeyError(f"No `adata.obs[{name!r}]` for `{setting}`. Available: {list(adata.obs.columns)}.")
        codes, values = coded(adata.obs[name])
        if value not in values:
            raise ValueError(
                unknown(f"value of {name!r} in `{setting}`", value, [each for each in values if each][:20])
            )
        found &= codes == values.index(value)
    if not found.any():
        raise ValueError(f"No cell has all of {dict(wanted)}, as `{setting}` requires.")
    return found
