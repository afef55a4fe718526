"""Cells at a sequence of times: what an animation shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.snapshots import read_rep, read_times
from cellflow.pl.basis import Basis

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Moving:
    """Cells at a sequence of times.

    Parameters
    ----------
    times
        The time of each frame, ``(frames,)``.
    places
        Where the cells are, ``(cells, 2)`` for each frame.
    origin
        The measured cell from which each came, by position, ``(cells,)`` for each frame; -1 for a missing one.
    weight
        Weight of each, with mean 1, ``(cells,)`` for each frame.
    same
        Whether all frames have the same cells.
    """

    times: np.ndarray
    places: list[np.ndarray]
    origin: list[np.ndarray]
    weight: list[np.ndarray]
    same: bool


def followed(names: pd.Index, found: Mapping[str, Any], picture: Basis, *, n: int, n_frames: int) -> Moving:
    """Return the cells that trajectories follow, at equally spaced times.

    Cells that start later, or end earlier, stay where they start or end. In a picture over time, each stays at its
    own time.

    Parameters
    ----------
    names
        Names of the measured cells.
    found
        What `cellflow.tl.trajectories` wrote.
    picture
        The basis.
    n
        Maximum number of cells to show, evenly spread over those available.
    n_frames
        Number of times.
    """
    x, time = np.asarray(found["x"], dtype=np.float64), np.asarray(found["time"], dtype=np.float64)
    some = np.unique(np.linspace(0, x.shape[1] - 1, min(n, x.shape[1])).round().astype(int))
    x, time, origin = x[:, some], time[:, some], names.get_indexer(np.asarray(found["origin"]).astype(str)[some])
    if time[0].min() > time[-1].max():  # into the past
        x, time = x[::-1], time[::-1]
    times = np.linspace(time.min(), time.max(), n_frames)
    states = np.stack([_at(x[:, k], time[:, k], times) for k in range(x.shape[1])], axis=1)
    at = np.clip(times[:, None], time.min(axis=0), time.max(axis=0))
    flat = picture.states(states.reshape(-1, x.shape[2]).astype(np.float32), at.reshape(-1))
    places = list(flat.reshape(n_frames, x.shape[1], 2))
    return Moving(times, places, [origin] * n_frames, [np.ones(x.shape[1])] * n_frames, same=True)


def interpolated(
    names: pd.Index, predicted: "AnnData", about: Mapping[str, Any], picture: Basis, time_key: str
) -> Moving:
    """Return the cells that `cellflow.tl.interpolate` predicted, with their weights.

    Raises
    ------
    ValueError
        When they are predicted at one time only.
    """
    at, x = read_times(predicted, time_key), read_rep(predicted, str(about["rep"]))
    times = np.unique(at)
    if len(times) < 2:
        raise ValueError(
            f"`predicted` holds one time, {times[0]:g}. Predict several: `cf.tl.interpolate(adata, flow, "
            "at=np.linspace(first, last, 40))`."
        )
    places = picture.states(x, at)
    column = "predicted_origin" if "predicted_origin" in predicted.obs else "origin"
    known = column in predicted.obs
    origin = names.get_indexer(predicted.obs[column].astype(str)) if known else np.full(len(at), -1)
    name = str(about.get("weight", "weight"))
    weight = predicted.obs[name].to_numpy(dtype=np.float64) if name in predicted.obs else np.ones(len(at))
    rows = [np.flatnonzero(at == time) for time in times]
    relative = [weight[each] / max(weight[each].mean(), np.finfo(float).tiny) for each in rows]
    return Moving(times, [places[each] for each in rows], [origin[each] for each in rows], relative, same=False)


def _at(x: np.ndarray, time: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return one trajectory ``(k, d)`` at other times."""
    found: np.ndarray = np.stack([np.interp(times, time, x[:, c]) for c in range(x.shape[1])], axis=1)
    return found
