"""Calls of what comes after a loss: batches of pairs, training, metrics and simulated data."""

from typing import Any

import numpy as np
import pandas as pd
import torch

import cellflow as cf
from fuzz.calls import (
    CLOUD,
    CLOUD_OF_OTHERS,
    FIELD,
    GENERATOR,
    Call,
    batch,
    count,
    flag,
    function,
    number,
    other,
    plain,
    positive,
    tensor,
    text,
    using,
)
from fuzz.calls_of_vectors import LABELS, LABELS_OF_OTHERS, WEIGHTS, WEIGHTS_OF_OTHERS, jumping
from fuzz.oddities import Argument

C, N, P, M, T = cf.couplings, cf.networks, cf.pairing, cf.metrics, cf.training
RNG = cf.generator
PLAN = other(lambda: C.Exact()(CLOUD.make(), CLOUD_OF_OTHERS.make()))


CLOUDS = {"x": CLOUD, "y": CLOUD_OF_OTHERS}
WEIGHED = CLOUDS | {"weights_x": WEIGHTS, "weights_y": WEIGHTS_OF_OTHERS}
MOVED = {"x_next": CLOUD_OF_OTHERS, "weights": WEIGHTS}
SNAPSHOTS = {
    "snapshots": other(lambda: [CLOUD.make(), CLOUD_OF_OTHERS.make() + 1, CLOUD.make() + 2]),
    "times": other(lambda: [0.0, 1.0, 3.0]),
}
TRAINING = {
    "field": other(lambda: N.MLP(2, width=8)),
    "objective": other(cf.objectives.VelocityMatching()),
    "batches": other(lambda: [batch()] * 3),
    "steps": count(2),
    "generator": GENERATOR,
    "recipe": other(T.Recipe(warmup=1)),
    "run": other(None),
}


def trained(**given: Any) -> Any:
    history = T.fit(**given)
    return [history.columns, list(given["field"].parameters())]


def rows(start: int, stop: int) -> Argument:
    return Argument("tensor", lambda: torch.arange(start, stop))


def leg_batches(leg: cf.pairing.ConditionLeg) -> cf.pairing.LegBatches:
    return P.leg_batches(CLOUD.make(), [leg], torch.eye(1), batch_size=4, generator=RNG())


def drawn_from(batches: Any) -> Any:
    return next(batches.iterate(0))


def straight(curve: Any) -> Any:
    return next(
        P.snapshot_batches(
            **{name: part.make() for name, part in SNAPSHOTS.items()}, curve=curve, batch_size=4, generator=RNG()
        ).iterate(0)
    )


CALLS: dict[str, Any] = {
    # pairing
    "pairing.paired_batches": plain(
        lambda **given: drawn_from(P.paired_batches(**given)),
        x0=CLOUD,
        x1=CLOUD_OF_OTHERS,
        coupling=text("exact"),
        batch_size=count(4),
        generator=GENERATOR,
        condition=other(None),
        ot_batch_size=count(4),
        masses=other((1.0, 2.0)),
        path=text("linear"),
    ),
    "pairing.snapshot_batches": [
        plain(
            lambda **given: drawn_from(P.snapshot_batches(**given)),
            **SNAPSHOTS,
            coupling=text("exact"),
            batch_size=count(4),
            generator=GENERATOR,
            masses=other([1.0, 2.0, 3.0]),
            weights=other(None),
            rates=other(None),
            within=other(None),
            curve=text("straight"),
            path=text("linear"),
        ),
        plain(
            lambda middle, **given: drawn_from(
                P.snapshot_batches([CLOUD.make(), middle, CLOUD.make()], [0, 1, 2], **given)
            ),
            middle=CLOUD_OF_OTHERS,
            coupling=text("auto"),
            curve=text("mean"),
            generator=GENERATOR,
        ),
    ],
    "pairing.ConditionLeg": Call(
        lambda **given: drawn_from(leg_batches(P.ConditionLeg(**given))),
        {
            "name": text("A"),
            "source": rows(0, 4),
            "target": rows(4, 8),
            "start": number(0.0),
            "stop": number(1.0),
            "condition": count(0),
        },
    ),
    "pairing.leg_batches": plain(
        lambda **given: drawn_from(P.leg_batches(**given)),
        points=CLOUD,
        legs=other(lambda: [P.ConditionLeg("A", torch.arange(4), torch.arange(4, 8))]),
        conditions=tensor(1, 2),
        coupling=text("exact"),
        batch_size=count(4),
        generator=GENERATOR,
        ot_batch_size=count(4),
        masses=other([(1.0, 2.0)]),
        weights=positive(8),
        rates=other(None),
        path=text("linear"),
        shares=other([1.0]),
    ),
    "pairing.Straight": using(P.Straight, straight),
    "pairing.Spline": using(P.Spline, straight, bend=number(1.0)),
    "pairing.Mean": using(P.Mean, straight, spline=text("auto")),
    "pairing.rbf_metric": plain(
        lambda at, **given: P.rbf_metric(**given)(at),
        points=CLOUD,
        centres=count(3),
        spread=number(1.0),
        floor=number(0.01),
        generator=GENERATOR,
        at=CLOUD_OF_OTHERS,
    ),
    "pairing.RBFMetric": plain(
        lambda at, **given: P.RBFMetric(**given)(at),
        centres=tensor(3, 2),
        radii=positive(3),
        weights=positive(3),
        floor=number(0.01),
        at=CLOUD,
    ),
    # training
    "training.fit": [
        plain(trained, **TRAINING),
        plain(
            lambda x0, x1: trained(
                **({name: part.make() for name, part in TRAINING.items()} | {"batches": [cf.Batch(x0, x1)]})
            ),
            x0=CLOUD,
            x1=tensor(8, 2, seed=1),
        ),
    ],
    "training.Recipe": using(
        T.Recipe,
        lambda recipe: trained(**({name: part.make() for name, part in TRAINING.items()} | {"recipe": recipe})),
        learning_rate=number(1e-3),
        schedule=text("cosine"),
        warmup=count(1),
        ema=number(0.9),
        clip=number(1.0),
        weight_decay=number(0.0),
        accumulate=count(1),
        precision=text("32"),
    ),
    "training.Run": using(
        T.Run,
        lambda run: run,
        folder=other(None),
        resume=flag(False),
        save_every=count(5),
        progress=flag(False),
        watch=other(None),
        watch_every=count(5),
        devices=other(None),
        num_nodes=other(None),
    ),
    "training.EarlyStopping": using(
        T.EarlyStopping,
        lambda stopping: stopping.measure(N.MLP(2, width=8), cf.objectives.VelocityMatching()),
        batches=other(lambda: [batch()]),
        seed=count(0),
    ),
    "training.History": [
        using(T.History, lambda history: history.columns, columns=other(lambda: {"loss": [1.0]})),
        plain(lambda row: T.History().append(row), row=other(lambda: {"step": 1.0, "loss": 2.0})),
    ],
    "training.Reflow": using(
        T.Reflow, lambda reflow: reflow, solver=other(cf.integrate.Fixed(steps=2)), both_ends=flag(False)
    ),
    "training.MarkovianFitting": using(T.MarkovianFitting, lambda fitting: fitting, sigma=number(0.5), solver=count(2)),
    "training.Geodesics": using(
        T.Geodesics,
        straight,
        centres=count(3),
        spread=number(1.0),
        floor=number(0.01),
        steps=count(1),
        learning_rate=number(1e-3),
    ),
    "training.LearnedBends": using(T.LearnedBends, lambda bends: bends, field=FIELD),
    "training.refit": plain(
        T.refit,
        field=TRAINING["field"],
        objective=TRAINING["objective"],
        x0=CLOUD,
        x1=CLOUD_OF_OTHERS,
        rounds=count(1),
        steps=count(1),
        generator=GENERATOR,
        coupling=other(T.Reflow(2)),
        batch_size=count(4),
        at_once=count(8),
        recipe=TRAINING["recipe"],
    ),
    "training.distill": plain(
        T.distill,
        flow_map=Argument("function", jumping),
        teacher=other(lambda: N.MLP(2, width=8)),
        batches=TRAINING["batches"],
        steps=count(1),
        generator=GENERATOR,
        objective=text("lagrangian"),
        path=other(cf.paths.Linear()),
        unit=number(1.0),
        recipe=TRAINING["recipe"],
    ),
    "training.trajectory_batches": plain(
        lambda **given: next(T.trajectory_batches(**given).iterate(0)),
        velocity=FIELD,
        **(SNAPSHOTS | {"times": other(lambda: [0.0, 0.5, 1.0])}),
        batch_size=count(4),
        generator=GENERATOR,
        both=flag(True),
        growth=flag(False),
        n_times=count(3),
    ),
    "training.fit_unmemorised": plain(
        T.fit_unmemorised, parts=function(lambda: lambda: None), searching=GENERATOR, **TRAINING
    ),
    # metrics
    "metrics.wasserstein": plain(M.wasserstein, **WEIGHED, order=count(1)),
    "metrics.population_distance": plain(M.population_distance, **WEIGHED, most=count(5), generator=GENERATOR),
    "metrics.thinned": plain(M.thinned, x=CLOUD, weights=WEIGHTS, most=count(5), generator=GENERATOR),
    "metrics.sliced_wasserstein": plain(
        M.sliced_wasserstein, **WEIGHED, order=count(1), n_projections=count(3), generator=GENERATOR
    ),
    "metrics.maximum_mean_discrepancy": plain(M.maximum_mean_discrepancy, **WEIGHED),
    "metrics.energy_distance": plain(M.energy_distance, **WEIGHED),
    "metrics.split_half_floor": plain(
        M.split_half_floor, x=CLOUD, generator=GENERATOR, order=count(1), repeats=count(2), weights=WEIGHTS
    ),
    "metrics.frechet_distance": plain(M.frechet_distance, **CLOUDS),
    "metrics.kernel_distance": plain(
        M.kernel_distance, **CLOUDS, generator=GENERATOR, subset_size=count(4), subsets=count(3)
    ),
    "metrics.neighbours": plain(M.neighbours, generated=CLOUD, real=CLOUD_OF_OTHERS, k=count(2)),
    "metrics.label_persistence": plain(
        M.label_persistence, moved=CLOUD, labels=LABELS, labels_next=LABELS_OF_OTHERS, **MOVED, n_neighbors=count(2)
    ),
    "metrics.label_shares": [
        plain(M.label_shares, moved=CLOUD, labels=LABELS, labels_next=LABELS_OF_OTHERS, **MOVED, n_neighbors=count(2)),
        plain(M.label_shares, moved=PLAN, labels=LABELS, labels_next=LABELS_OF_OTHERS, **MOVED, n_neighbors=count(2)),
    ],
    "metrics.clone_agreement": plain(
        M.clone_agreement, moved=CLOUD, clones=LABELS, clones_next=LABELS_OF_OTHERS, **MOVED
    ),
    "metrics.fate_overlap": plain(
        M.fate_overlap,
        fates=other(lambda: pd.DataFrame(np.full((8, 2), 0.5), columns=["a", "b"])),
        labels=LABELS,
        clones=other(lambda: list("xxyyxxyy")),
        labels_next=LABELS_OF_OTHERS,
        clones_next=other(lambda: list("xxyyxxy")),
    ),
    "metrics.standard_error": plain(
        lambda size, **given: M.standard_error(lambda rows: CLOUD.make()[rows].mean(), size, **given),
        size=count(8),
        generator=GENERATOR,
        repeats=count(3),
        most=count(5),
    ),
    "metrics.bootstrap": plain(
        lambda sample, **given: M.bootstrap(given.pop("score"), sample, **given),
        score=function(lambda: torch.mean),
        sample=CLOUD,
        generator=GENERATOR,
        repeats=count(3),
        level=number(0.9),
        paired=flag(False),
    ),
    "metrics.real_floor": plain(
        M.real_floor,
        distance=function(lambda: M.energy_distance),
        real=CLOUD,
        n=count(4),
        generator=GENERATOR,
        repeats=count(2),
    ),
    # data sets of points
    "datasets.eight_gaussians": plain(
        cf.datasets.eight_gaussians,
        n=count(9),
        radius=number(4.0),
        spread=number(0.1),
        generator=GENERATOR,
        even=flag(True),
    ),
    "datasets.moons": plain(cf.datasets.moons, n=count(9), noise=number(0.1), generator=GENERATOR),
    "datasets.s_curve": plain(cf.datasets.s_curve, n=count(9), noise=number(0.1), generator=GENERATOR),
    "datasets.Branching": using(
        cf.datasets.Branching,
        lambda law: [
            law.velocity(np.ones((3, 2))),
            law.log_weight(np.ones((3, 2)), 0.5),
            law.snapshot(5, 1.0, np.random.default_rng(0)),
        ],
        speed=number(1.0),
        split=number(1.5),
        spread=number(0.2),
        growth=other((0.0, 0.5)),
    ),
    "datasets.Perturbations": using(
        cf.datasets.Perturbations,
        lambda law: [law.shift("A+B", 0.5, 1), law.mean(1)],
        drugs=other(("A", "B")),
        n_donors=count(2),
        n_genes=count(5),
        strength=number(1.0),
        sensitivity=number(0.1),
        donor_spread=number(0.5),
        spread=number(0.5),
        seed=count(0),
    ),
    "datasets.perturbations": plain(
        lambda **given: cf.datasets.perturbations(**given).X,
        n_cells=count(3),
        treatments=other(["A", "A+B"]),
        doses=other([1.0, 2.0]),
        seed=count(0),
    ),
    "datasets.planted_drivers": plain(
        lambda **given: cf.datasets.planted_drivers(**given).X,
        n_cells=count(5),
        n_genes=count(7),
        n_drivers=count(2),
        correlation=number(0.3),
        dropout=number(0.5),
        times=other([0.0, 1.0]),
        seed=count(0),
    ),
    "datasets.branching": plain(
        lambda **given: cf.datasets.branching(**given).obsm,
        n_cells=count(5),
        times=other([0.0, 1.0, 2.0]),
        held_out=other([1.0]),
        n_genes=count(4),
        noise=number(0.1),
        seed=count(0),
    ),
}
