"""The methods, each a row of parts: coupling, objective, loop; and how their models translate."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

import cellflow as cf
from benchmarks.images.sizes import Size
from benchmarks.translation.task import Task
from cellflow.fields import two_heads
from cellflow.networks import TwoHeads
from cellflow.shapes import per_sample

SIGMA = 0.3
"""Scale of the noise of bridges, in units where pixels run from -1 to 1."""
CYCLES = 2
"""How often the pairs of a bridge's own are made anew, forward and backward each time."""
SIMULATION_STEPS = 8


@dataclass(frozen=True)
class Method:
    """Which images are paired, in which features and classes, and whether a score is learned and pairs made anew."""

    coupling: str
    bridge: bool = False
    cycles: int = 0
    on_features: bool = False
    within_labels: bool = False

    def suits(self, task: Task) -> bool:
        """Say whether the task has the features or the classes that the method needs."""
        classes = task.directions[0].same_class
        return (task.features is not None or not self.on_features) and (classes or not self.within_labels)


METHODS = {
    "I-CFM": Method("independent"),
    "OT-CFM": Method("exact"),
    "[SF]2M": Method("exact", bridge=True),
    "DSBM": Method("independent", bridge=True, cycles=CYCLES),
    "OT-CFM on outlines": Method("exact", on_features=True),
    "OT-CFM in classes": Method("exact", within_labels=True),
}
"""The rows: [SF]2M with the exact plan, the limit of the entropic one for noise as small as this; the last two match
the outlines of objects rather than pixels, or within classes, where a task has them."""


class Model(NamedTuple):
    """A trained field, what it was trained for, and the scale of its noise: None for a flow."""

    field: nn.Module
    objective: cf.objectives.Objective
    sigma: float | None


def train(task: Task, method: Method, size: Size, seed: int) -> Model:
    """Return a model of the task."""
    rng = cf.generator(seed=seed)
    source, target = (end.to(size.device) for end in task.train)
    field = size.network(source.shape, heads=2 if method.bridge else 1, generator=rng)
    objective: cf.objectives.Objective = cf.objectives.VelocityMatching(times=cf.paths.Stratified())
    if method.bridge:
        field = TwoHeads(field)
        objective = cf.objectives.BridgeMatching(cf.paths.BrownianBridge(SIGMA), times=cf.paths.Stratified())
    features: tuple[Tensor, Tensor] | None = None
    if method.on_features and task.features is not None:
        features = task.features[0](source.scaled()).flatten(1), task.features[1](target.scaled()).flatten(1)
    batches = cf.pairing.image_batches(
        source, target, coupling=method.coupling, batch_size=size.batch, generator=rng, flip=task.flip,
        features=features, within_labels=method.within_labels,
    )  # fmt: skip
    first = size.steps // 2 if method.cycles else size.steps
    cf.training.fit(field, objective, batches, steps=max(1, first), generator=rng, recipe=size.recipe)
    model = Model(field, objective, SIGMA if method.bridge else None)
    for _ in range(method.cycles):
        _fit_again(model, task, method, size, rng)
    field.eval()
    return model


def _fit_again(model: Model, task: Task, method: Method, size: Size, rng: torch.Generator) -> None:
    """Train on pairs of the model's own: once simulated forward, once backward, from fresh images."""
    x0, x1 = (
        end.to(size.device).scaled(torch.randperm(len(end), generator=rng)[: size.simulated].to(size.device))
        for end in task.train
    )
    rounds = 2
    steps = max(1, size.steps // 2 // (rounds * method.cycles))
    cf.training.refit(
        model.field, model.objective, x0, x1, rounds=rounds, steps=steps, generator=rng, batch_size=size.batch,
        repairing=cf.training.MarkovianFitting(SIGMA, steps=SIMULATION_STEPS),
        recipe=replace(size.recipe, warmup=min(size.recipe.warmup, steps // 4)),
    )  # fmt: skip


@torch.no_grad()
def translate(
    model: Model, x: Tensor, *, steps: int, noisy: bool, backward: bool, generator: torch.Generator
) -> Tensor:
    """Return the translations of images, as bytes would have them.

    Parameters
    ----------
    model
        From `train`.
    x
        Images ``(n, c, h, w)`` from -1 to 1.
    steps
        Of Euler, or Euler-Maruyama; each evaluates the network once.
    noisy
        Whether a bridge is run with its noise.
    backward
        Whether to go from target to source.
    generator
        Draws the noise.
    """
    start, stop = (1.0, 0.0) if backward else (0.0, 1.0)
    parts = []
    for part in x.split(256):
        if noisy:
            parts.append(_diffused(model, part, steps, start, stop, generator))
        else:
            velocity = model.objective.velocity(model.field)
            parts.append(cf.integrate.ode(velocity, part, steps=steps, start=start, stop=stop, method="euler").x[-1])
    return cf.images.scaled(cf.images.to_bytes(torch.cat(parts)))


def _diffused(model: Model, x: Tensor, steps: int, start: float, stop: float, generator: torch.Generator) -> Tensor:
    """Simulate the bridge, and take the last step without noise: to the mean of what is expected there."""
    last = stop + (start - stop) / steps
    if steps > 1 and model.sigma is not None:
        x = cf.integrate.sde(
            model.field, x, sigma=model.sigma, steps=steps - 1, start=start, stop=last, generator=generator,
            method="euler_maruyama",
        ).x[-1]  # fmt: skip
    heads = two_heads(model.field(x.new_full((len(x),), last), x))
    dt = x.new_full((len(x),), stop - last)
    return x + per_sample(dt, x) * heads.velocity + per_sample(dt.abs(), x) * heads.score_drift
