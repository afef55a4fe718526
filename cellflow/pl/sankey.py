"""Ribbons from group to group."""

from typing import TYPE_CHECKING

import numpy as np

from cellflow.pl.canvas import INK, literal
from cellflow.pl.chain import Chain
from cellflow.pl.labels import time_label
from cellflow.pl.marks import wrapped
from cellflow.pl.names import SIZE, on_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = 0.025
"""Room between two groups, in shares of a snapshot."""
WIDTH = 0.09
"""Width of the bar of a snapshot, in intervals."""
RARE = 0.005
"""Share below which a group is not named."""
THIN = 1e-3
"""Mass below which no ribbon is drawn."""


def draw_sankey(ax: "Axes", chain: Chain, colors: tuple[str, ...], unit: str) -> None:
    """Draw the groups of each snapshot as bars, and where they go as ribbons.

    A ribbon is as wide on the left as the share of the group that leaves by it, and on the right as the share of the
    group that arrives by it: where it widens, there is growth, or another sample.

    Parameters
    ----------
    ax
        The axes.
    chain
        Groups and where they go.
    colors
        A colour for each group.
    unit
        Unit of time.
    """
    bottoms = np.stack([_bottoms(shares) for shares in chain.shares])
    for k, link in enumerate(chain.links):
        left = bottoms[k][:, None] + _stacked(link, chain.shares[k], axis=1)
        right = bottoms[k + 1][None, :] + _stacked(link, chain.shares[k + 1], axis=0)
        wide = _widths(link, chain.shares[k], axis=1), _widths(link, chain.shares[k + 1], axis=0)
        for g, h in np.argwhere(link > THIN):
            _ribbon(
                ax,
                (k + WIDTH / 2, k + 1 - WIDTH / 2),
                (left[g, h], right[g, h]),
                (wide[0][g, h], wide[1][g, h]),
                colors[g],
            )
    for k, shares in enumerate(chain.shares):
        seen = shares > 0
        ax.bar(
            np.full(seen.sum(), float(k)), shares[seen], bottom=bottoms[k][seen], width=WIDTH,
            color=[color for color, there in zip(colors, seen, strict=True) if there], zorder=3,
        )  # fmt: skip
    for k, side in ((0, "right"), (len(chain.times) - 1, "left")):
        _names(ax, chain, bottoms[k], k, side)
    for k, group in _within(chain).items():
        _names(ax, chain, bottoms[k], k, "left", np.array(group))
    ax.set_xticks(range(len(chain.times)), [literal(time_label(time, unit)) for time in chain.times])
    ax.set(yticks=[], xlim=(-WIDTH, len(chain.times) - 1 + WIDTH), ylim=(-GAP, max(_top(chain, bottoms)) + GAP))
    ax.spines[["top", "right", "left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)


def _within(chain: Chain) -> dict[int, list[int]]:
    """Return the groups that no end names, under the snapshot in which each is largest."""
    found: dict[int, list[int]] = {}
    for group in np.flatnonzero((chain.shares[[0, -1]] < RARE).all(axis=0)):
        if chain.shares[:, group].max() >= RARE:
            found.setdefault(int(chain.shares[:, group].argmax()), []).append(int(group))
    return found


def _top(chain: Chain, bottoms: np.ndarray) -> np.ndarray:
    found: np.ndarray = (bottoms + chain.shares).max(axis=1)
    return found


def _bottoms(shares: np.ndarray) -> np.ndarray:
    """Return where the bar of each group begins: the first group on top."""
    under = np.cumsum((shares + GAP * (shares > 0))[::-1])[::-1]
    found: np.ndarray = under - shares - GAP * (shares > 0)
    return found


def _widths(link: np.ndarray, shares: np.ndarray, *, axis: int) -> np.ndarray:
    """Return the widths of ribbons at one end, which fill the bars of their groups, ``(groups, groups)``."""
    whole = link.sum(axis=axis, keepdims=True)
    room = shares[:, None] if axis == 1 else shares[None, :]
    found: np.ndarray = link / np.where(whole > 0, whole, 1) * room
    return found


def _stacked(link: np.ndarray, shares: np.ndarray, *, axis: int) -> np.ndarray:
    """Return where each ribbon begins above the bottom of its bar, the first group on top."""
    wide = _widths(link, shares, axis=axis)
    above = np.cumsum(np.flip(wide, axis=axis), axis=axis)
    found: np.ndarray = np.flip(above, axis=axis) - wide
    return found


def _ribbon(
    ax: "Axes", x: tuple[float, float], bottom: tuple[float, float], wide: tuple[float, float], color: str
) -> None:
    t = np.linspace(0, 1, 40)
    bend = t * t * (3 - 2 * t)
    low = bottom[0] + (bottom[1] - bottom[0]) * bend
    high = low + wide[0] + (wide[1] - wide[0]) * bend
    ax.fill_between(x[0] + (x[1] - x[0]) * t, low, high, color=color, alpha=0.4, linewidth=0, zorder=1)


def _names(
    ax: "Axes", chain: Chain, bottoms: np.ndarray, column: int, side: str, only: "np.ndarray | None" = None
) -> None:
    """Write names of the groups of one snapshot, or of some, beside it, apart from each other; rare ones have none."""
    shares = chain.shares[column]
    seen = np.flatnonzero(shares >= RARE)
    seen = seen if only is None else np.intersect1d(seen, only)
    if not len(seen):
        return
    texts = [wrapped(f"{wrapped(chain.groups[k], 60)} ({shares[k]:.0%})", 22) for k in seen]
    middles = bottoms[seen] + shares[seen] / 2
    height = 1.0 + GAP * len(seen)
    line = height * 1.3 * SIZE / 72 / max(ax.get_window_extent().height / ax.figure.dpi, 1.0)
    heights = np.array([line * (text.count("\n") + 1) for text in texts])
    x = column + (-1 if side == "right" else 1) * WIDTH
    for text, y in zip(texts, spread(middles, heights), strict=True):
        style = {"fontsize": SIZE} if only is None else on_cells() | {"fontsize": SIZE, "fontweight": "normal"}
        ax.text(x, y, literal(text), ha=side, va="center", color=INK, clip_on=False, zorder=4, **style)


def spread(middles: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return positions near the given ones at which texts of these heights do not overlap; the first is the highest.

    Texts that would overlap form a block around the mean of their given positions.

    Examples
    --------
    >>> spread(np.array([3.0, 1.1, 1.0]), np.array([1.0, 1.0, 1.0]))
    array([3.  , 1.55, 0.55])
    """
    blocks: list[list[int]] = []
    for k in range(len(middles)):
        blocks.append([k])
        while len(blocks) > 1 and _ends(blocks[-1], middles, heights)[1] > _ends(blocks[-2], middles, heights)[0]:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    found = np.empty(len(middles))
    for block in blocks:
        top = _ends(block, middles, heights)[1]
        for k in block:
            found[k] = top - heights[k] / 2
            top -= heights[k]
    return found


def _ends(block: list[int], middles: np.ndarray, heights: np.ndarray) -> tuple[float, float]:
    """Return the lower and upper end of texts that stand below each other."""
    centre, half = float(middles[block].mean()), float(heights[block].sum()) / 2
    return centre - half, centre + half
