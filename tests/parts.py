"""Every part that can be chosen, in one list for each kind: what is exported and missing here fails `test_parts.py`."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

import cellflow as cf
from cellflow.cells import Conditions
from cellflow.couplings import (
    Custom,
    Euclidean,
    Exact,
    Given,
    Hierarchical,
    Independent,
    Relative,
    Sinkhorn,
    SquaredEuclidean,
    UnbalancedSinkhorn,
    Within,
)
from cellflow.integrate import TABLES, Adaptive, Fixed, Jumps, Noisy, Table
from cellflow.networks import (
    MLP,
    DiffusersField,
    EndGuess,
    EndPoints,
    FlowMap,
    GuessedVelocity,
    Heads,
    Standardized,
    UNet,
    VelocityGuess,
)
from cellflow.objectives import (
    BridgeMatching,
    EndPointMatching,
    EulerianMatching,
    FlowMapMatching,
    GrowthMatching,
    LagrangianMatching,
    MeanVelocityMatching,
    NoiseMatching,
    PathEnergy,
    SemigroupMatching,
    TrajectoryMatching,
    VelocityMatching,
)
from cellflow.pairing import Mean, Spline, Straight
from cellflow.paths import BrownianBridge, Linear, LogitNormal, Stratified, Trigonometric, Uniform, VariancePreserving
from cellflow.training import Geodesics, MarkovianFitting, Recipe, Reflow, Run

ALL_PATHS = [Linear(), Linear(0.3), Trigonometric(), Trigonometric(0.2), VariancePreserving(), BrownianBridge(0.7)]
ALL_TIME_LAWS = [Uniform(), Stratified(), LogitNormal()]

TIGHT = 1e-12
ALL_COUPLINGS = {
    "independent": Independent(),
    "exact": Exact(),
    "exact euclidean": Exact(cost=Euclidean()),
    "hierarchical": Hierarchical(),
    "sinkhorn": Sinkhorn(epsilon=0.5, tolerance=TIGHT),
    "unbalanced": UnbalancedSinkhorn(epsilon=0.5, relaxation=2.0, tolerance=TIGHT),
    "semi-relaxed": UnbalancedSinkhorn(epsilon=0.5, relaxation=(math.inf, 1.0), tolerance=TIGHT),
    "auto": UnbalancedSinkhorn(),
    "relative": UnbalancedSinkhorn(Relative(0.1), (Relative(2.0), math.inf), tolerance=TIGHT),
    "relative sinkhorn": Sinkhorn(Relative(0.1), tolerance=TIGHT),
    "barely relaxed": UnbalancedSinkhorn(epsilon=0.5, relaxation=math.inf, tolerance=TIGHT),
}
"""Those that match clouds of any sizes."""
COUPLINGS_OF_THEIR_OWN_POINTS = [
    Given(),
    Given({(0.0, 1.0): [[0.5, 0.0], [0.2, 0.3]]}),
    Within("exact", [0, 1, 1], [1, 0, 1]),
    Custom(torch.dist),
]
ALL_COSTS = [SquaredEuclidean(), Euclidean()]

FLOW_MAP_OBJECTIVES = [
    LagrangianMatching(),
    EulerianMatching(),
    MeanVelocityMatching(adaptive=0.0),
    SemigroupMatching(),
    FlowMapMatching(),
]
ALL_OBJECTIVES = [
    VelocityMatching(),
    VelocityMatching(BrownianBridge(0.5)),
    NoiseMatching(),
    BridgeMatching(),
    BridgeMatching(growth_weight=2.0),
    EndPointMatching(),
    GrowthMatching(),
    TrajectoryMatching(),
    PathEnergy(lambda x: 1 + x.square().sum(dim=1)),
    *FLOW_MAP_OBJECTIVES,
]

RALSTON = Table(a=((), (2 / 3,)), b=(1 / 4, 3 / 4), c=(0.0, 2 / 3), order=2)
ALL_TABLES = {**TABLES, "ralston": RALSTON}
ALL_SOLVERS = [
    Fixed(), Fixed("euler", steps=3), Fixed(RALSTON, steps=4), Adaptive(rtol=1e-6), Jumps(2), Noisy(7),
    Noisy(7, power=2.0, denoise=True),
]  # fmt: skip

ALL_CONDITIONS = [
    Conditions("drug"),
    Conditions(("drug1", "drug2"), ("dose1", "dose2"), control="DMSO", categories=("donor",), numbers=("age",)),
    Conditions("gene", embeddings={"gene": {"A": [1.0, 0.5], "B": (0.0, 1.0)}}, separator=None),
    Conditions(dose="tgfb"),
]

ALL_CURVES = [Straight(), Mean(), Mean("natural"), Spline(), Spline(0.5), Geodesics(centres=10, steps=20)]
ALL_MODEL_COUPLINGS = [Reflow(), Reflow(both_ends=True), MarkovianFitting(0.5)]
ALL_RECIPES = [Recipe(), Recipe(learning_rate=1e-3, precision="64")]
ALL_RUNS = [Run(), Run("runs/first", resume=True, save_every=5, save_minutes=None)]


def standardized():
    ones = torch.ones(2)
    return Standardized(MLP(dim=2, width=8), shift=ones, scale=2 * ones, speed=ones)


def growing_map():
    return FlowMap(Heads(MLP(dim=2, width=8, heads=2, times=2), growth="shared"), growth=True)


class Decay(torch.nn.Module):
    """As networks of diffusers are called."""

    def forward(self, sample, timestep, class_labels=None):
        return SimpleNamespace(sample=-sample)


ALL_NETWORKS = {
    "mlp": (lambda: MLP(dim=2, width=8), (5, 2)),
    "unet": (lambda: UNet(2, width=8, multipliers=(1,)), (5, 2, 4, 4)),
    "heads": (lambda: Heads(MLP(dim=2, width=8, heads=3), score="shared", growth="shared"), (5, 2)),
    "ends": (lambda: EndPoints(MLP(dim=2, width=8, heads=2)), (5, 2)),
    "ends from a guess": (
        lambda: EndPoints(UNet(2, width=8, multipliers=(1,), heads=2), EndGuess((2, 4, 6), 0.3)),
        (5, 2, 4, 6),
    ),
    "velocity from a guess": (
        lambda: GuessedVelocity(UNet(2, width=8, multipliers=(1,)), VelocityGuess((2, 4, 6))),
        (5, 2, 4, 6),
    ),
    "standardized": (standardized, (5, 2)),
    "flow map": (lambda: FlowMap(MLP(dim=2, width=8, times=2)), (5, 2)),
    "flow map with growth": (growing_map, (5, 2)),
    "diffusers": (lambda: DiffusersField(Decay()), (5, 2, 4, 4)),
}
"""Networks without a condition, and a shape of states."""

X, Y = torch.randn(2, 30, 3, generator=cf.generator(seed=5))
IMAGES, OTHERS = torch.rand(2, 12, 1, 12, 12, generator=cf.generator(seed=5))
WEIGHT = torch.rand(30, generator=cf.generator(seed=6))
RNG = partial(cf.generator, 0)
LABELS = ["a", "b", "c"] * 10
FATES = pd.DataFrame(np.full((30, 3), 1 / 3), columns=["a", "b", "c"])
ALL_METRICS = {
    "wasserstein": lambda m: m.wasserstein(X, Y, weights_x=WEIGHT),
    "population_distance": lambda m: m.population_distance(X, Y, weights_x=WEIGHT, generator=RNG()),
    "thinned": lambda m: m.thinned(X, WEIGHT, 10, generator=RNG())[0].sum(),
    "sliced_wasserstein": lambda m: m.sliced_wasserstein(X, Y, generator=RNG()),
    "maximum_mean_discrepancy": lambda m: m.maximum_mean_discrepancy(X, Y),
    "energy_distance": lambda m: m.energy_distance(X, Y),
    "split_half_floor": lambda m: m.split_half_floor(X, generator=RNG()),
    "features_of": lambda m: m.features_of(IMAGES, lambda images: images.flatten(1)),
    "feature_distance": lambda m: m.feature_distance(
        torch.rand(6, 1, 32, 32, generator=RNG()), torch.rand(6, 1, 32, 32, generator=RNG()) / 2,
        m.feature_network("silhouettes"),
    ).value,
    "feature_network": lambda m: len(m.feature_network("silhouettes").classes),
    "frechet_distance": lambda m: m.frechet_distance(X, Y),
    "kernel_distance": lambda m: m.kernel_distance(X, Y, subset_size=20, generator=RNG()).mean,
    "label_persistence": lambda m: m.label_persistence(X, LABELS, Y, LABELS),
    "label_shares": lambda m: m.label_shares(X, LABELS, Y, LABELS)[0],
    "clone_agreement": lambda m: m.clone_agreement(X, LABELS, Y, LABELS).mean(),
    "fate_overlap": lambda m: m.fate_overlap(FATES, LABELS, LABELS, LABELS[::-1], LABELS).nansum(),
    "standard_error": lambda m: m.standard_error(
        lambda rows: X[rows].mean(), len(X), generator=RNG(), repeats=3, most=20
    ),
    "neighbours": lambda m: torch.tensor(m.neighbours(X, Y)),
    "bootstrap": lambda m: m.bootstrap(torch.mean, X, generator=RNG()).high,
    "real_floor": lambda m: m.real_floor(m.frechet_distance, X, n=15, generator=RNG()).value,
    "transport_cost": lambda m: m.transport_cost(IMAGES, OTHERS),
    "structural_similarity": lambda m: m.structural_similarity(IMAGES, OTHERS),
    "high_frequency_ratio": lambda m: m.high_frequency_ratio(2 * IMAGES - 1, 2 * OTHERS - 1),
    "spoiled": lambda m: m.spoiled(2 * IMAGES - 1, generator=RNG())["blurred"],
    "blind_to": lambda m: len(m.blind_to(1.0, {"noise": 0.5})),
    "mask_dice": lambda m: m.mask_dice(IMAGES > 0.5, OTHERS > 0.5),
    "foreground": lambda m: m.foreground(2 * IMAGES - 1),
    "target_accuracy": lambda m: m.target_accuracy(IMAGES, lambda images: images.flatten(1), target=1),
    "against_shuffled": lambda m: m.against_shuffled(m.transport_cost, IMAGES, OTHERS, generator=RNG()).sd,
}  # fmt: skip
"""Exported functions by name, called on data that are not to be changed; `fid` needs a file of weights."""
