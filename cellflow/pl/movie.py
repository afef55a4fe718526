"""Cells that move between snapshots, as a GIF or an MP4."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellflow.cells.snapshots import read_times
from cellflow.files import committed, path_of
from cellflow.pl.basis import read_basis
from cellflow.pl.coloring import by_column, by_time
from cellflow.pl.frames import WRITERS, Frames, need_ffmpeg
from cellflow.pl.labels import unit_of_result
from cellflow.pl.look import look_of
from cellflow.pl.marks import legend_width
from cellflow.pl.moving import followed, interpolated
from cellflow.pl.noted import check_noted, width_of
from cellflow.pl.trajectories import follow, stored_courses
from cellflow.signature import checked

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure

    from cellflow.estimators import SnapshotFlow

MOST_FRAMES = 600


@checked
def movie(
    adata: "AnnData",
    flow: "SnapshotFlow | None" = None,
    *,
    path: str | Path,
    predicted: "AnnData | None" = None,
    basis: str | None = None,
    color: str | None = None,
    n: int = 300,
    n_frames: int = 60,
    fps: float = 12.0,
    dpi: int = 100,
    components: tuple[int, int] = (0, 1),
    key: str = "trajectories",
    figure: "Figure | None" = None,
    **look: Any,
) -> Path:
    """Write an animation of cells that move from the first snapshot to the last, over all measured cells in grey.

    Parameters
    ----------
    adata
        The cells.
    flow
        A fitted flow, to follow ``n`` cells of its first snapshot now; nothing is written into ``adata``. ``None`` for
        what `cellflow.tl.trajectories` wrote, or for ``predicted``.
    path
        The file: ``.gif``, or ``.mp4`` if ffmpeg is installed. It is replaced if it exists.
    predicted
        What `cellflow.tl.interpolate` returned for several times: each is a frame.
    basis
        Embedding to draw on: ``"pca"`` for ``obsm["X_pca"]``; ``None`` for a UMAP if there is one, else the flow's
        representation.
    color
        Column of ``obs``, or gene, that colours moving cells by their cell of origin; ``None`` for one colour.
    n
        Maximum number of moving cells.
    n_frames
        Frames between the first time and the last, at most 600.
    fps
        Frames per second.
    dpi
        Dots per inch: a new figure is 5.6 x 5 inches, wider with a legend.
    components
        Which two columns of the basis to show.
    key
        Name under which `cellflow.tl.trajectories` wrote.
    figure
        Figure to draw on; ``None`` for a new one.
    **look
        How cells are drawn: ``cmap``, ``palette``, ``size``, ``alpha``, ``legend_loc``, ``layer``, ``use_raw``,
        ``vmin``, ``vmax``, ``na_color``, ``frameon`` and ``title``, as for `cells`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    KeyError
        When there is nothing to draw, or the basis or column does not exist.
    ValueError
        When the path has another suffix, or a setting is invalid.
    MissingDependencyError
        For an MP4 without ffmpeg.

    Examples
    --------
    >>> import tempfile, cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> cf.pl.movie(adata, flow, path=tempfile.mkdtemp() + "/cells.gif", n=20, n_frames=5, dpi=40).name
    'cells.gif'
    """
    file = path_of(path, name="path")
    if file.suffix.lower() not in WRITERS:
        raise ValueError(f"Expected a path that ends in .gif or .mp4; found {str(path)[-60:]!r}.")
    if not 2 <= n_frames <= MOST_FRAMES or not 0 < fps <= 60 or not 20 <= dpi <= 600 or n < 1:
        raise ValueError(
            f"Expected 2 <= n_frames <= {MOST_FRAMES}, 0 < fps <= 60, 20 <= dpi <= 600 and n >= 1; found {n_frames}, "
            f"{fps:g}, {dpi} and {n}."
        )
    if file.suffix.lower() == ".mp4":
        need_ffmpeg()
    if flow is not None and predicted is not None:
        raise ValueError("Expected `flow` or `predicted`; found both. Give one of them.")
    from matplotlib.figure import Figure

    how = look_of("pl.movie", look)
    if predicted is not None:
        found = dict(predicted.uns.get("interpolation", {}))
        check_noted(adata, found)
        found.setdefault("rep", next(iter(predicted.obsm), "X"))
    else:
        found = stored_courses(adata, key) if flow is None else follow(adata, flow, n, n_times=n_frames)
    time_key, unit = str(found.get("time_key", "time")), unit_of_result(adata, found)
    time = read_times(adata, time_key)
    seen: dict[str, Any] = {"rep": str(found["rep"]), "n_pcs": width_of(found)}
    picture = read_basis(adata, basis, components=components, time=time, unit=unit, **seen)
    if predicted is None:
        moving = followed(adata.obs_names, found, picture, n=n, n_frames=n_frames)
    else:
        moving = interpolated(adata.obs_names, predicted, found, picture, time_key)
    coloring = None
    if color is not None:
        coloring = by_time(adata, time_key, unit) if color == time_key else by_column(adata, color, how)
    drawn = figure or Figure(figsize=(5.6 + max(0.0, legend_width(coloring, how) - 0.4), 5.0), layout="constrained")
    drawn.set_dpi(dpi)
    frames = Frames(drawn, picture, moving, coloring, how, unit)
    with committed(file) as temporary:
        WRITERS[file.suffix.lower()](frames, temporary, fps)
    return file
