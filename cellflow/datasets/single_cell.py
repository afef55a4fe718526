"""Real snapshots of differentiating cells."""

from importlib.resources import as_file, files
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData

from cellflow.datasets.public import PublicData

_STATE_COLORS = {
    "Baso": "#0072B2", "Ccr7_DC": "#009E73", "Eos": "#8C6D00", "Erythroid": "#C0392B", "Lymphoid": "#56B4E9",
    "Mast": "#CC79A7", "Meg": "#7B3FA0", "Monocyte": "#E69F00", "Neu_Mon": "#A6D854", "Neutrophil": "#D55E00",
    "pDC": "#00B7A8", "undiff": "#A8A8A8",
}  # fmt: skip


def hsmm() -> AnnData:
    """Human skeletal muscle myoblasts, 0, 24, 48 and 72 hours after the switch to low serum.

    271 cells by 2002 genes (the 2000 most variable protein-coding ones, and markers), shipped in the package.
    ``X`` is log(1 + FPKM), ready for `scanpy.pp.pca`; the FPKM as published are in ``layers["fpkm"]``.

    Returns
    -------
    adata
        ``obs``: hours (0, 24, 48, 72: 69, 74, 79 and 49 cells), media, mapped_fragments, and Monocle's
        pseudotime_monocle and state_monocle. ``uns["source"]`` is the attribution.

    Source
    ------
    Trapnell et al. 2014, "The dynamics and regulators of cell fate decisions are revealed by pseudotemporal
    ordering of single cells", Nature Biotechnology 32:381, GEO GSE52529; from Bioconductor's HSMMSingleCell 1.18
    (Artistic-2.0).

    Examples
    --------
    >>> adata = hsmm()
    >>> adata.shape, sorted(set(adata.obs["hours"]))
    ((271, 2002), [0, 24, 48, 72])
    """
    return _logged("hsmm", measured="fpkm")


def hematopoiesis() -> AnnData:
    """Mouse blood progenitors on days 2, 4 and 6 of differentiation, with clones that are followed over days.

    781 cells by 2481 genes, shipped in the package. A barcode names the clone of each cell, so that the later fate of
    its relatives is known: use clones to judge predictions, never to make them. ``X`` is log(1 + counts), with counts
    scaled to 10,000 in each cell; the scaled counts as published are in ``layers["counts"]``.

    Returns
    -------
    adata
        ``obs``: day (2, 4, 6: 34, 316 and 431 cells), state (12 cell types, "undiff" among them) and clone (339, of
        which 126 on several days). ``obsm``: X_pca (40 components) and X_emb (the published layout in the plane, made
        of many more cells), float32. ``uns["source"]`` is the attribution; ``uns["state_colors"]`` is for plots.

    Source
    ------
    Weinreb et al. 2020, "Lineage tracing on transcriptional landscapes links state to fate during differentiation",
    Science 367:eaaw3381, GEO GSE140802; the part of it that CoSpar tests with (Wang et al. 2022, Shou-Wen Wang, MIT).

    Examples
    --------
    >>> adata = hematopoiesis()
    >>> adata.shape, sorted(set(adata.obs["day"]))
    ((781, 2481), [2.0, 4.0, 6.0])
    """
    adata = _logged("hematopoiesis", measured="counts")
    adata.uns["state_colors"] = [_STATE_COLORS[state] for state in adata.obs["state"].cat.categories]
    return adata


def embryoid_body() -> AnnData:
    """Human embryonic stem cells differentiating as embryoid bodies over 27 days, in five snapshots.

    16 819 cells by 100 principal components on their raw scale; no genes. Standardising the first five
    components over all cells gives the array of the published five-dimensional benchmarks.

    The file is looked for as ``eb.h5ad`` in ``$CELLFLOW_DATA/single_cell``, ``$CELLFLOW_DATA`` and the cache
    (``$CELLFLOW_CACHE``, else ``~/.cache/cellflow``), and downloaded into the cache if it is in none of them.

    Returns
    -------
    adata
        ``obsm["X_pca"]``; ``obs``: day (the middle of each interval of collection: 1.5, 7.5, 13.5, 19.5, 25.5)
        and sample (0 to 4).

    Raises
    ------
    FileNotFoundError
        When it is not on this machine and cannot be downloaded; the message says which file to put where.
    ValueError
        When a file of that name holds other values.

    Source
    ------
    Moon et al. 2019, "Visualizing structure and transitions in high-dimensional biological data", Nature
    Biotechnology 37:1482, Mendeley v6n743h5ng (CC BY 4.0); components as distributed with TrajectoryNet (Tong et
    al. 2020).

    Examples
    --------
    >>> adata = embryoid_body()  # doctest: +SKIP
    >>> flow = cellflow.SnapshotFlow(time_key="day", rep="X_pca").fit(adata)  # doctest: +SKIP
    """
    return EMBRYOID_BODY.load()


def cite() -> AnnData:
    """Human blood stem and progenitor cells (CITE-seq) on days 2, 3, 4 and 7 of differentiation.

    29 394 cells by 100 principal components of gene expression on their raw scale; no genes. This is not the
    single-donor array of 31 240 cells behind the published "Cite" tables; numbers do not compare.

    Looked for as ``cite.h5ad`` in the same places as `embryoid_body`.

    Returns
    -------
    adata
        ``obsm["X_pca"]`` and ``obs["day"]``.

    Raises
    ------
    FileNotFoundError
        When it is not on this machine and cannot be downloaded; the message says which file to put where.
    ValueError
        When a file of that name holds other values.

    Source
    ------
    Open Problems multimodal single-cell integration 2022; components as distributed with LightSB (Korotin et al.
    2024, MIT).

    Examples
    --------
    >>> adata = cite()  # doctest: +SKIP
    >>> flow = cellflow.SnapshotFlow(time_key="day", rep="X_pca").fit(adata)  # doctest: +SKIP
    """
    return CITE.load()


def shipped(name: str) -> AnnData:
    """Read a file of the package."""
    with as_file(files("cellflow.datasets") / "files" / f"{name}.h5ad") as path:
        return ad.read_h5ad(path)


def _logged(name: str, *, measured: str) -> AnnData:
    """Read a file of the package: ``X`` becomes its logarithm, and what was measured a layer of this name."""
    adata = shipped(name)
    adata.layers[measured] = adata.X.copy()
    adata.X = adata.X.log1p()
    adata.uns["log1p"] = {}  # where scanpy looks before it takes logarithms a second time
    return adata


def _embryoid_body_from(folder: Path) -> AnnData:
    # The labels beside the components may be pickled, and a download must not run code; the order is known.
    with np.load(folder / "eb_velocity_v5.npz", allow_pickle=False) as arrays:
        components = arrays["pcs"]
    sample = np.repeat(np.arange(5), [2381, 4163, 3278, 3665, 3332])
    adata = _cells("eb", components, days=1.5 + 6.0 * sample)
    adata.obs.insert(0, "sample", pd.Categorical(sample))
    adata.uns["source"] = (
        "Moon et al. 2019, Nature Biotechnology 37:1482; Mendeley v6n743h5ng, CC BY 4.0; 100 principal components as "
        "used by TrajectoryNet (eb_velocity_v5)"
    )
    return adata


def _cite_from(folder: Path) -> AnnData:
    days = (2, 3, 4, 7)
    parts = [np.load(folder / f"full_cite_pcas_100_day_{day}.npy", allow_pickle=False) for day in days]
    adata = _cells("cite", np.concatenate(parts), days=np.repeat(days, [len(part) for part in parts]))
    adata.uns["source"] = (
        "Open Problems multimodal single-cell integration (CITE-seq arm, human HSPC), 100 principal components per "
        "cell as distributed with LightSB (MIT); 29,394 cells"
    )
    return adata


def _cells(prefix: str, components: np.ndarray, *, days: np.ndarray) -> AnnData:
    names = [f"{prefix}{k}" for k in range(len(days))]
    obs = pd.DataFrame({"day": days.astype(float)}, index=names)
    return AnnData(obs=obs, obsm={"X_pca": components.astype(np.float32)})


_TRAJECTORYNET = "https://github.com/KrishnaswamyLab/TrajectoryNet/raw/master/data"
_LIGHTSB = "https://github.com/ngushchin/LightSB/raw/acb2e250c16b32252ab460358d354700be71385c/data"

EMBRYOID_BODY = PublicData(
    file="eb.h5ad",
    originals=(("eb_velocity_v5.npz", f"{_TRAJECTORYNET}/eb_velocity_v5.npz"),),
    convert=_embryoid_body_from,
    digest="a8e1f3311b4bd3087dfa45bf368f24cda6e80b97d6daa5cce4a559691093b0df",
)
CITE = PublicData(
    file="cite.h5ad",
    originals=tuple(
        (f"full_cite_pcas_100_day_{day}.npy", f"{_LIGHTSB}/full_cite_pcas_100_day_{day}.npy") for day in (2, 3, 4, 7)
    ),
    convert=_cite_from,
    digest="5bde4c0e5d87153a27b16b5ef7442126e8707a2597265217331f1025b7915d58",
)
