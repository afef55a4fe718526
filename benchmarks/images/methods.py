"""Sizes of network and training; methods, each a row of parts: coupling, objective, loop, sampler; pictures."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

import cellflow as cf
from benchmarks.command import Several, Words, options
from benchmarks.images.underway import NOWHERE, Underway
from benchmarks.page import save
from cellflow.estimators import guesses
from cellflow.estimators.translation import DAMPING
from cellflow.images import ImageSet
from cellflow.integrate import Fixed, Noisy
from cellflow.networks import EndGuess, EndPoints, GuessedVelocity, Heads, VelocityGuess
from cellflow.objectives import BridgeMatching, EndPointMatching, NoiseMatching, Objective, VelocityMatching
from cellflow.report.grids import rows_figure
from cellflow.seeds import seeded
from cellflow.shapes import per_sample


@dataclass(frozen=True)
class Size:
    """Network, training and scoring of one size."""

    width: int
    multipliers: tuple[int, ...]  # of the levels of the U-Net; those that a picture cannot be halved for are left out
    blocks: int
    dropout: float
    patch: int  # side of the squares of pixels that become channels: 2 makes the network four times cheaper
    batch: int
    steps: int
    recipe: cf.training.Recipe
    images: int  # translated or generated for the scores, at most
    solver: tuple[int, ...]  # numbers of solver steps that are compared
    simulated: int  # images that are paired anew, or whose trajectories are followed
    flow_steps: int = 0  # of the flow that few-step methods start from
    device: str = "cpu"

    def network(
        self, shape: tuple[int, int, int], *, heads: int = 1, condition_dim: int = 0, generator: torch.Generator
    ) -> nn.Module:
        """Return a fresh network for images of this shape ``(c, h, w)``."""
        with seeded(generator):
            return unet(shape[0], heads=heads, condition_dim=condition_dim, **self.shape(shape)).to(self.device)

    def shape(self, shape: tuple[int, int, int]) -> dict[str, Any]:
        """Return the settings of `unet` for images of this shape: the levels that they can be halved for."""
        _, height, width = shape
        levels = len(self.multipliers)
        while levels > 1 and (height % (self.patch << levels - 1) or width % (self.patch << levels - 1)):
            levels -= 1
        return {
            "patch": self.patch, "width": self.width, "multipliers": self.multipliers[:levels], "blocks": self.blocks,
            "dropout": self.dropout,
        }  # fmt: skip


def unet(channels: int, *, patch: int, **settings: Any) -> nn.Module:
    """Return a U-Net of images; it sees squares of ``patch`` pixels as channels."""
    net = cf.networks.UNet(channels * patch**2, **settings)
    return net if patch == 1 else Patches(net, patch)


class Patches(nn.Module):
    """A network ``network(t, x, condition)`` that sees squares of ``side`` pixels as channels."""

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return pixel_shuffle(self.network(t, pixel_unshuffle(x, self.side), condition), self.side)


CPU = Size(
    width=24, multipliers=(1, 2), blocks=1, dropout=0.0, patch=2, batch=32, steps=3000, images=256, solver=(1, 4, 16),
    simulated=512, recipe=cf.training.Recipe(learning_rate=2e-3, warmup=50, ema=0.995),
)  # fmt: skip
GPU = Size(
    width=128, multipliers=(1, 2, 2, 2), blocks=2, dropout=0.1, patch=1, batch=128, steps=100_000, images=2000,
    solver=(1, 4, 16, 64), simulated=20_000, device="cuda",
    recipe=cf.training.Recipe(learning_rate=2e-4, warmup=0.05, ema=0.9999, schedule="constant", precision="bf16"),
)  # fmt: skip
"""Network and optimiser of Tong et al. 2024 for CIFAR-10 (35.7 million parameters), with a fourth of its steps. The
learning rate rises over a share of them, 5000 of 100,000: a short training is to reach it too."""


def within(recipe: cf.training.Recipe, steps: int) -> cf.training.Recipe:
    """Return the recipe for a training of so many steps, of which the warm-up takes a fourth at most."""
    return replace(recipe, warmup=min(recipe.warmup_steps(steps), steps // 4))


def ending(size: str) -> str:
    """Return what a size adds to the names of its files: rows of two sizes, or of CPU and GPU, share no table."""
    return "" if size == "cpu" else f"_{size}"


def arguments(
    kind: str, about: str | None, tasks: Sequence[str], methods: Iterable[str], sizes: Mapping[str, Size], words: Words,
    **more: Any,
) -> argparse.Namespace:  # fmt: skip
    """Return what was asked for; ``sized`` is the size with all that was given instead of its own.

    ``more`` are options of one kind of benchmark.
    """
    found = options(
        f"images {kind}", about, words, task=Several(tasks, tasks[:1]), method=Several(methods), size=list(sizes),
        steps=int, flow_steps=int, batch=int, images=int, simulated=int, solver=(), device=str, **more,
    )  # fmt: skip
    changes = {field.name: getattr(found, field.name, None) for field in fields(Size)}
    found.sized = replace(sizes[found.size], **{name: value for name, value in changes.items() if value})
    return found


TIMES = cf.paths.Stratified()
VELOCITY = VelocityMatching(times=TIMES)
SIGMA = 0.3
"""Scale of the noise of bridges, in units where pixels run from -1 to 1."""
CYCLES, SIMULATION = 2, Noisy(16, power=2.0, denoise=True)
"""How often the pairs of a bridge's own are made anew, forward and backward each time; the solver of that simulation,
which leaves no noise in them."""


@dataclass(frozen=True)
class Method:
    """How images are paired, in which features and classes; what is learned, and how the model is sampled."""

    coupling: str
    objective: Objective = VELOCITY
    samplers: tuple[str, ...] = ("ODE",)
    cycles: int = 0
    guess: bool = False  # whether the network corrects a linear guess of the velocity
    on_features: bool = False
    within_labels: bool = False


BRIDGE: Mapping[str, Any] = {
    "objective": BridgeMatching(cf.paths.BrownianBridge(SIGMA), times=TIMES), "samplers": ("SDE", "ODE"),
}  # fmt: skip
BY_ENDS: Mapping[str, Any] = {
    "objective": EndPointMatching(cf.paths.BrownianBridge(SIGMA), times=TIMES, damping=DAMPING),
    "samplers": ("SDE", "ODE, midpoint"),
}  # fmt: skip
"""The same bridge from a network that predicts what guesses of its ends miss, see `cellflow.networks.EndGuess`."""
TRANSLATORS = {
    "I-CFM": Method("independent"),
    "OT-CFM": Method("exact"),
    "OT-CFM from a guess": Method("exact", guess=True),
    "[SF]2M": Method("exact", **BRIDGE),
    "DSBM": Method("independent", cycles=CYCLES, **BRIDGE),
    "[SF]2M by ends": Method("exact", **BY_ENDS),
    "DSBM by ends": Method("independent", cycles=CYCLES, **BY_ENDS),
    "OT-CFM on outlines": Method("exact", on_features=True),
    "OT-CFM in classes": Method("exact", within_labels=True),
}
"""[SF]2M by ends is the default of `cellflow.DomainTranslator` for bridges, OT-CFM from a guess has its ``guess=True``.
[SF]2M has the exact plan, the limit of the entropic one for noise as small as this; the last two match the outlines of
objects rather than pixels, or within classes, where a task has them."""
GENERATORS = {
    "FM": Method("independent", samplers=("euler",)),
    "OT-CFM": Method("exact", samplers=("euler",)),
    "diffusion": Method("independent", NoiseMatching(times=TIMES), ("ddim", "euler")),
}
"""Diffusion learns the noise on the variance-preserving path; its own sampler (DDIM) comes first."""


POWERS = {"SDE": 2.0, "SDE, equal steps": 1.0}
"""How much smaller the steps of a simulation become, see `cellflow.integrate.Noisy`."""
EVALUATIONS = {"euler": 1, "midpoint": 2}
"""Evaluations of a step of each method for the probability flow."""


class Model(NamedTuple):
    """A field, what it was trained for, the steps done and their seconds."""

    field: nn.Module
    objective: Objective
    steps: int = 0
    seconds: float = 0.0


def prepare(
    source: ImageSet | None, target: ImageSet, method: Method, size: Size, rng: torch.Generator, **pairing: Any
) -> tuple[Model, Any]:
    """Return an untrained model, and the batches to train it on; without a source, from noise."""
    bridge = bool(method.objective.heads)
    field = size.network(target.shape, heads=2 if bridge else 1, generator=rng)
    if isinstance(method.objective, EndPointMatching):
        field = EndPoints(field, EndGuess(target.shape, method.objective.path.sigma).to(size.device))
    elif bridge:
        field = Heads(field, score="shared")
    elif method.guess:
        field = GuessedVelocity(field, VelocityGuess(target.shape).to(size.device))
    guesses.measure(field, source, target)
    batches = cf.pairing.image_batches(
        source, target, coupling=method.coupling, batch_size=size.batch, generator=rng, **pairing
    )
    return Model(field, method.objective), batches


def fit_own_pairs(
    model: Model, ends: tuple[ImageSet, ImageSet], method: Method, size: Size, rng: torch.Generator,
    place: Underway = NOWHERE, part: str = "own pairs",
) -> float:  # fmt: skip
    """Train a bridge on pairs of its own: once simulated forward, once backward, from fresh images; return seconds."""
    x0, x1 = (end.scaled(torch.randperm(len(end), generator=rng)[: size.simulated].to(size.device)) for end in ends)
    steps = max(1, size.steps // (4 * method.cycles))  # of each round: half of all are taken beforehand
    _, seconds = place.timed(part, 2 * steps, lambda run: cf.training.refit(
        model.field, model.objective, x0, x1, rounds=2, steps=steps, generator=rng, batch_size=size.batch,
        coupling=cf.training.MarkovianFitting(SIGMA, solver=SIMULATION), recipe=within(size.recipe, steps), run=run,
    ))  # fmt: skip
    return seconds


@torch.no_grad()
def sample(
    model: Model, x: Tensor, *, sampler: str, steps: int, backward: bool = False, generator: torch.Generator
) -> Tensor:
    """Return images from noise, or translations of images ``(n, c, h, w)``, as bytes would have them.

    ``sampler`` is ``"ODE"`` or ``"euler"`` for the probability flow, ``"ODE, midpoint"`` for half as many steps of two
    evaluations each, ``"SDE"`` for a bridge with its noise, drawn by ``generator``, in steps that become smaller, or
    ``"SDE, equal steps"``, or ``"ddim"`` for diffusion; the network is evaluated ``steps`` times.
    """
    span: dict[str, Any] = {"start": 1.0, "stop": 0.0} if backward else {"start": 0.0, "stop": 1.0}
    parts = []
    for part in x.split(256):
        if sampler in POWERS:
            bridge: Any = model.objective
            noise, sigma = Noisy(steps, "euler_maruyama", power=POWERS[sampler], denoise=True), bridge.path.sigma
            found = cf.integrate.sde(model.field, part, sigma=sigma, solver=noise, generator=generator, **span)
            parts.append(found.x[-1])
        elif sampler == "ddim":
            parts.append(ddim(model.field, model.objective, part, steps=steps))
        else:
            velocity, method = model.objective.velocity(model.field), sampler.partition(", ")[2] or "euler"
            solver = Fixed(method, steps=max(1, steps // EVALUATIONS[method]))
            parts.append(cf.integrate.ode(velocity, part, solver=solver, **span).x[-1])
    return cf.images.scaled(cf.images.to_bytes(torch.cat(parts).cpu()))


def ddim(field: nn.Module, objective: Objective, x: Tensor, *, steps: int) -> Tensor:
    """Return images from noise by steps along which the predicted noise and image stay as they are.

    The predicted image is kept within -1 and 1, and the noise is what then remains of ``x``, as is customary: a network
    that has not trained for long predicts far outside at first, where little of the image is in ``x``.

    Source: Song, Meng and Ermon 2021, equation 12 with sigma 0; Dhariwal and Nichol 2021 for the limits.
    """
    if not isinstance(objective, NoiseMatching):
        raise TypeError(f"Expected a model of the noise (NoiseMatching); found {objective}. Use sampler='euler'.")
    margin = objective.path.margin
    times = torch.linspace(margin, 1 - margin, steps + 1, device=x.device)
    for now, then in pairwise(times):
        (a, b, _), (a_then, b_then, _) = (objective.path.coefficients(t.expand(len(x))) for t in (now, then))
        predicted = field(now.expand(len(x)), x, None)
        image = ((x - per_sample(a, x) * predicted) / per_sample(b, x)).clamp(-1, 1)
        noise = (x - per_sample(b, x) * image) / per_sample(a, x)
        x = per_sample(a_then, x) * noise + per_sample(b_then, x) * image
    return x


SAMPLES = Path("runs") / "bench" / "samples"
SHOWN = 12


def keep_samples(folder: str, name: str, images: Tensor) -> None:
    """Keep the first images ``(n, c, h, w)`` from -1 to 1 under a name."""
    path = SAMPLES / folder / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, cf.images.to_bytes(images[:SHOWN]).numpy())


def draw_samples(folder: str, names: Iterable[str], path: Path, **titles: str) -> None:
    """Draw what is kept under these names, one below the other; ``titles`` rename rows.

    Where anything is missing, as it was made elsewhere, a picture that is there stays as it is.
    """
    files = {name: SAMPLES / folder / f"{name}.npy" for name in names}
    missing = [name for name, file in files.items() if not file.is_file()]
    if missing:
        print(f"{path.name} is not drawn: no samples are kept here of {', '.join(missing)}. Their rows are there.")
        return
    rows = [(titles.get(name, name), torch.from_numpy(np.load(file))) for name, file in files.items()]
    save(rows_figure(rows), path)
