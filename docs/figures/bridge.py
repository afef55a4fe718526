"""Forward and backward through a Schrödinger bridge, drawn: ``python -m docs.figures.bridge``."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cellflow as cf
from benchmarks import page
from benchmarks.toys.methods import BATCH, RECIPE, Clouds, clouds, field_of
from cellflow.seeds import seeded

SIGMA, PATHS, FRAMES, STEPS = 1.6, 200, 101, 4000
MODES = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#9c6b4e")
MOONS = ("#2f5d8a", "#d1495b")


def draw(seed: int = 42, steps: int = STEPS) -> Any:
    """Train a bridge from eight Gaussians to two moons, and draw it both ways."""
    data, rng = clouds("8gaussians->moons", seed), cf.generator(seed=seed)
    field = bridge(data, rng, steps)
    ways = ((data.test0, 0.0), (data.test1, 1.0))
    figure, axes = page.figure(1, 2, size=(10, 5), sharex=True, sharey=True)
    for axis, (x, start) in zip(axes[0], ways, strict=True):
        found = cf.integrate.sde(
            field, x[:PATHS], sigma=SIGMA, solver=200, save=FRAMES, generator=rng, start=start, stop=1 - start
        )
        _panel(axis, found.x, data, forward=start == 0)
    axes[0, 0].set_ylabel("$x_2$")
    return figure


def bridge(data: Clouds, rng: torch.Generator, steps: int) -> torch.nn.Module:
    """Train velocity and score of a Brownian bridge between the clouds, paired by Sinkhorn's plan."""
    scale = float(data.x1.std())
    with seeded(rng):
        networks = [cf.networks.MLP(2, width=96) for _ in range(2)]
    field = field_of(data, networks)
    objective = cf.objectives.BridgeMatching(cf.paths.BrownianBridge(SIGMA), unit=scale)
    batches = cf.pairing.paired_batches(
        data.x0, data.x1, coupling=cf.couplings.Sinkhorn(2 * SIGMA**2, tolerance=1e-3), batch_size=BATCH,
        generator=rng, ot_batch_size=2 * BATCH,
    )  # fmt: skip
    cf.training.fit(field, objective, batches, steps=steps, generator=rng, recipe=RECIPE)
    return field


def _panel(axis: Any, found: Tensor, data: Clouds, *, forward: bool) -> None:
    """Draw paths over both clouds; where a path starts gives it its colour."""
    colours = [MODES[k] for k in _mode(found[0])] if forward else [MOONS[k] for k in _moon(found[0])]
    for cloud in (data.test0, data.test1):
        axis.scatter(*cloud[:3000].T, s=2.5, c="#dfe2e7", linewidths=0, rasterized=True, zorder=0)
    for k, colour in enumerate(colours):
        axis.plot(*found[:, k].T, color=colour, alpha=0.35, linewidth=0.7, zorder=1)
    axis.scatter(*found[0].T, s=10, c="white", edgecolors=colours, linewidths=0.7, zorder=2, label="start")
    axis.scatter(*found[-1].T, s=20, c=colours, edgecolors="white", linewidths=0.5, zorder=3, label="end")
    axis.set(xlabel="$x_1$", aspect="equal", xlim=(-18, 19), ylim=(-17, 17), xticks=range(-15, 16, 5))
    axis.set_title(
        "forward: eight Gaussians to moons" if forward else "backward: moons to eight Gaussians", fontsize=12
    )
    axis.spines[["top", "right"]].set_visible(False)
    legend = axis.legend(loc="upper right", frameon=False, fontsize=9, handletextpad=0.2)
    for handle, face in zip(legend.legend_handles, ("white", "#555555"), strict=True):
        handle.set(facecolor=face, edgecolor="#555555")


def _mode(x: Tensor) -> list[int]:
    """Return the number of the Gaussian in whose sector each point ``(n, 2)`` lies."""
    angle = torch.atan2(x[:, 1], x[:, 0])
    return ((angle / (torch.pi / 4)).round().long() % 8).tolist()


def _moon(x: Tensor) -> list[int]:
    """Return 0 for points of the upper moon, 1 for those of the lower, by the nearer of both curves."""
    angle = torch.linspace(0, torch.pi, 100)
    upper = torch.stack([angle.cos(), angle.sin()], dim=1)
    curves = torch.stack([upper, torch.tensor([1.0, 0.5]) - upper])
    curves = 7 * (curves - curves.mean()) / curves.std()
    distances = torch.stack([torch.cdist(x, curve).amin(dim=1) for curve in curves])
    return distances.argmin(dim=0).tolist()


if __name__ == "__main__":
    page.save(draw(), Path(__file__).with_suffix(".png"))
