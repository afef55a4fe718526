"""Calls of everything below the estimators that has points: paths, couplings, networks, solvers, losses, metrics."""

from typing import Any

import torch

import cellflow as cf
from fuzz.calls import (
    BATCH_PARTS,
    CLOUD,
    CLOUD_OF_OTHERS,
    FIELD,
    GENERATOR,
    SAMPLES,
    TIMES,
    Call,
    batch,
    count,
    field,
    flag,
    forward,
    function,
    number,
    other,
    plain,
    positive,
    tensor,
    text,
    using,
)
from fuzz.oddities import Argument

C, N, P, M, T = cf.couplings, cf.networks, cf.pairing, cf.metrics, cf.training
RNG = cf.generator
LABELS = other(lambda: ["a", "b", "a", "b", "a", "a", "b", "b"])
LABELS_OF_OTHERS = other(lambda: ["a", "b", "a", "b", "a", "a", "b"])
WEIGHTS, WEIGHTS_OF_OTHERS = positive(8), positive(7)


def on_a_path(path: Any) -> Any:
    return path.sample(CLOUD.make(), CLOUD.make() + 1, TIMES.make(), generator=RNG())


def matched(coupling: Any) -> Any:
    plan = coupling(CLOUD.make(), CLOUD_OF_OTHERS.make())
    return [plan.sample(5, generator=RNG()), plan.marginals(), repr(plan)]


def given(coupling: Any) -> Any:
    return coupling(CLOUD.make(), CLOUD.make() + 1).marginals()


def joined(coupling: Any) -> Any:
    def couple(x0: Any, x1: Any, a: Any, b: Any) -> Any:
        plan = coupling(x0, x1, a, b)
        return [plan.sample(5, generator=RNG(), replace=False), plan.marginals(), plan.cost]

    return plain(couple, x0=CLOUD, x1=CLOUD_OF_OTHERS, a=WEIGHTS, b=WEIGHTS_OF_OTHERS)


def plan_verbs(make: Any, *arguments: Any) -> list[Any]:
    def verbs(n: Any, replace: Any, mass: Any, points: Any, alone: Any) -> Any:
        plan = make()
        drawn = plan.sample(n, generator=RNG(), replace=replace)
        return [
            drawn,
            plan.push(mass),
            plan.pull(points),
            plan.barycentric(points, alone=alone),
            plan.origins(mass, alone=alone),
        ]

    return [plain(verbs, n=count(3), replace=flag(True), mass=tensor(3, 2), points=tensor(2, 2), alone=number(0.0))]


def field_of(network: Any) -> Any:
    return network(TIMES.make(), CLOUD.make(), None)


def loss_of(objective: Any, make: Any = lambda: field, /, **parts: Any) -> Any:
    return {name: term.detach() for name, term in objective(make(), batch(**parts), generator=RNG()).items()}


def scored() -> Any:
    return N.Heads(N.MLP(2, width=8, heads=3), score="shared", growth="shared")


def ended() -> Any:
    return N.EndPoints(N.MLP(2, width=8, heads=2))


def jumping() -> Any:
    return N.FlowMap(N.MLP(2, width=8, times=2))


def losses(kind: Any, make: Any, masses: bool = False, /, **settings: Argument) -> list[Any]:
    """Calls that vary the settings of an objective, and calls that vary the batch."""
    mass = {"log_mass0": Argument("tensor", lambda: torch.zeros(8)), "log_mass1": tensor(8)} if masses else {}
    made = {name: argument.make() for name, argument in mass.items()}
    return [
        using(kind, lambda objective: loss_of(objective, make, **made), **settings),
        Call(  # a loss that is NaN is how a training finds numbers that are
            lambda field, generator, **parts: {
                name: term.detach() for name, term in kind()(field, cf.Batch(**parts), generator=generator).items()
            },
            {"field": Argument("function", make), "generator": GENERATOR, **BATCH_PARTS, **mass},
            nan=True,
        ),
    ]


def both_ways() -> Any:
    return N.FlowMap(N.MLP(2, width=8, times=2), spans="both")


def growing() -> Any:
    return N.Heads(N.MLP(2, width=8), growth=N.MLP(2, width=8))


SPAN = {"start": number(0.0), "stop": number(1.0), "condition": other(None), "save": count(2), "gradient": flag(False)}
PAIRS = {"path": other(cf.paths.Linear()), "times": other(cf.paths.Uniform()), "unit": number(1.0)}
MAPS = PAIRS | {"teacher": other(None), "diagonal": number(0.5), "adaptive": number(0.0)}

CALLS: dict[str, Any] = {
    "generator": plain(cf.generator, seed=count(3), device=text("cpu")),
    "Batch": Call(lambda **parts: cf.Batch(**parts).span(), BATCH_PARTS, nan=True),
    # paths
    "paths.Linear": using(cf.paths.Linear, on_a_path, sigma=number(0.1)),
    "paths.Trigonometric": using(cf.paths.Trigonometric, on_a_path, sigma=number(0.1)),
    "paths.VariancePreserving": using(
        cf.paths.VariancePreserving, on_a_path, sigma=number(0.1), beta_min=number(0.1), beta_max=number(20.0)
    ),
    "paths.BrownianBridge": [  # within a training, which finds what is not a number by its loss
        using(cf.paths.BrownianBridge, on_a_path, sigma=number(0.3)),
        Call(
            lambda **given: cf.paths.BrownianBridge(0.3).sample(**given),
            {
                "x0": CLOUD,
                "x1": tensor(8, 2, seed=1),
                "t": TIMES,
                "generator": GENERATOR,
                "duration": positive(8),
            },
            nan=True,
        ),
        Call(
            lambda s, generator, **parts: cf.paths.BrownianBridge(0.3).between(
                cf.Batch(**parts), s, generator=generator
            ),
            {"s": TIMES, "generator": GENERATOR, **BATCH_PARTS},
            nan=True,
        ),
    ],
    "paths.Uniform": plain(
        lambda **given: cf.paths.Uniform().sample(**given), n=count(4), generator=GENERATOR, like=SAMPLES
    ),
    "paths.Stratified": plain(
        lambda **given: cf.paths.Stratified().sample(**given), n=count(4), generator=GENERATOR, like=SAMPLES
    ),
    "paths.LogitNormal": using(
        cf.paths.LogitNormal,
        lambda law: law.sample(4, generator=RNG(), like=torch.zeros(1)),
        location=number(0.0),
        scale=number(1.0),
    ),
    "paths.resolve": plain(cf.paths.resolve, path=text("linear")),
    # fields
    "fields.outputs": forward(cf.fields.outputs, found=CLOUD, score=flag(False), growth=flag(False)),
    "fields.VelocityOf": using(cf.fields.VelocityOf, field_of, field=FIELD),
    # couplings
    "couplings.Given": [
        using(C.Given, given),
        plain(lambda **parts: C.Given()(**parts).marginals(), x0=CLOUD, x1=tensor(8, 2, seed=1), a=WEIGHTS, b=WEIGHTS),
        using(C.Given, matched, plans=other(lambda: {(0.0, 1.0): torch.full((8, 7), 0.1)})),
    ],
    "couplings.Independent": joined(C.Independent()),
    "couplings.Exact": [
        joined(C.Exact()),
        using(C.Exact, matched, cost=function(C.Euclidean()), max_iterations=count(1000)),
    ],
    "couplings.Hierarchical": [
        joined(C.Hierarchical(block=3)),
        using(
            C.Hierarchical,
            matched,
            block=count(4),
            tolerance=number(1e-3),
            passes=count(2),
            cost=function(C.Euclidean()),
        ),
    ],
    "couplings.Sinkhorn": [
        joined(C.Sinkhorn(1.0)),
        using(
            C.Sinkhorn,
            matched,
            epsilon=number(1.0),
            cost=function(C.SquaredEuclidean()),
            tolerance=number(1e-3),
            max_iterations=count(1000),
            kernel_bytes=count(1000),
        ),
        using(lambda **span: C.Sinkhorn("path").over(**span), matched, duration=number(0.5), sigma=number(0.5)),
    ],
    "couplings.UnbalancedSinkhorn": [
        joined(C.UnbalancedSinkhorn()),
        joined(C.UnbalancedSinkhorn(1.0, 1.0)),
        using(
            C.UnbalancedSinkhorn,
            matched,
            epsilon=number(1.0),
            relaxation=number(1.0),
            cost=function(C.SquaredEuclidean()),
            tolerance=number(1e-3),
            max_iterations=count(1000),
            kernel_bytes=count(1000),
            free_motion=flag(False),
        ),
    ],
    "couplings.Within": [
        joined(C.Within("exact", LABELS.make(), LABELS_OF_OTHERS.make())),
        using(C.Within, matched, coupling=text("exact"), source=LABELS, target=LABELS_OF_OTHERS),
    ],
    "couplings.Custom": using(C.Custom, matched, match=function(lambda: C.Exact())),
    "couplings.Relative": using(
        lambda **given: C.Sinkhorn(C.Relative(**given)), matched, factor=number(0.5), least=number(0.0)
    ),
    "couplings.SquaredEuclidean": plain(C.SquaredEuclidean(), x0=CLOUD, x1=CLOUD_OF_OTHERS),
    "couplings.Euclidean": plain(C.Euclidean(), x0=CLOUD, x1=CLOUD_OF_OTHERS),
    "couplings.DensePlan": [
        using(
            C.DensePlan,
            lambda plan: [plan.marginals(), plan.cost, repr(plan)],
            matrix=positive(3, 2),
            cost=number(1.0),
            iterations=count(3),
            error=number(0.1),
        ),
        *plan_verbs(lambda: C.DensePlan(torch.rand(3, 2) + 0.1)),
    ],
    "couplings.SparsePlan": [
        using(
            C.SparsePlan,
            lambda plan: [plan.dense(), plan.marginals(), repr(plan)],
            i=Argument("tensor", lambda: torch.tensor([0, 1, 2])),
            j=Argument("tensor", lambda: torch.tensor([0, 1, 1])),
            masses=positive(3),
            shape=other((3, 2)),
            cost=number(1.0),
            potentials=other(lambda: (torch.zeros(3), torch.zeros(2))),
        ),
        *plan_verbs(
            lambda: C.SparsePlan(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]), torch.ones(3), shape=(3, 2))
        ),
    ],
    "couplings.PotentialsPlan": [
        using(
            C.PotentialsPlan,
            lambda plan: [plan.dense(), plan.marginals(), repr(plan)],
            x0=CLOUD,
            x1=CLOUD_OF_OTHERS,
            potentials=other(lambda: (torch.zeros(8), torch.ones(len(CLOUD_OF_OTHERS.make())))),
            a=WEIGHTS,
            b=other(None),
            epsilon=number(1.0),
            by=function(C.SquaredEuclidean()),
            iterations=count(3),
            error=number(0.1),
        ),
        *plan_verbs(
            lambda: C.PotentialsPlan(torch.rand(3, 2), torch.rand(2, 2), (torch.zeros(3), torch.ones(2)), epsilon=1.0)
        ),
    ],
    "couplings.ProductPlan": [
        using(C.ProductPlan, lambda plan: [plan.marginals(), repr(plan)], a=positive(3), b=positive(2)),
        *plan_verbs(lambda: C.ProductPlan(torch.ones(3), torch.ones(2))),
    ],
    "couplings.resolve": plain(C.resolve, coupling=text("exact")),
    # networks
    "networks.MLP": [
        using(
            N.MLP,
            field_of,
            dim=count(2),
            width=count(8),
            depth=count(1),
            condition_dim=count(0),
            harmonics=count(2),
            heads=count(1),
            times=count(1),
        ),
        forward(lambda **given: N.MLP(2, width=8)(**given), t=TIMES, x=CLOUD, condition=other(None)),
        forward(lambda **given: N.MLP(2, width=8, condition_dim=3)(**given), t=TIMES, x=CLOUD, condition=tensor(8, 3)),
    ],
    "networks.TimeEmbedding": [
        using(
            N.TimeEmbedding,
            lambda embedding: embedding(TIMES.make()),
            width=count(8),
            harmonics=count(2),
            times=count(1),
        ),
        forward(lambda t: N.TimeEmbedding(8)(t), t=TIMES),
    ],
    "networks.Heads": [
        using(
            lambda heads, **given: N.Heads(N.MLP(2, width=8, heads=heads), **given),
            field_of,
            heads=count(3),
            score=text("shared"),
            growth=text("shared"),
        ),
        using(N.Heads, field_of, velocity=other(lambda: N.MLP(2, width=8)), score=other(None), growth=other(None)),
        forward(lambda **given: scored()(**given), t=TIMES, x=CLOUD, condition=other(None)),
    ],
    "networks.EndPoints": [
        using(lambda heads: N.EndPoints(N.MLP(2, width=8, heads=heads)), field_of, heads=count(2)),
        using(N.EndPoints, field_of, network=other(lambda: N.MLP(2, width=8, heads=2)), guess=other(None)),
        forward(lambda **given: ended()(**given), t=TIMES, x=CLOUD, condition=other(None)),
    ],
    "networks.FlowMap": [
        using(
            N.FlowMap,
            field_of,
            network=other(lambda: N.MLP(2, width=8, times=2)),
            spans=text("forward"),
            growth=flag(False),
        ),
        using(
            N.FlowMap.of, field_of, field=other(lambda: N.MLP(2, width=8)), spans=text("forward"), growth=flag(False)
        ),
        forward(lambda **given: jumping()(**given), t=TIMES, x=CLOUD, condition=other(None)),
    ],
    "networks.Standardized": [
        using(N.Standardized, field_of, network=FIELD, shift=tensor(2), scale=positive(2), speed=positive(2)),
        forward(
            lambda **given: N.Standardized(field, shift=torch.ones(2), scale=torch.ones(2), speed=torch.ones(2))(
                **given
            ),
            t=TIMES,
            x=CLOUD,
            condition=other(None),
        ),
    ],
    "networks.resolve": plain(lambda network: N.resolve(network)(2), network=text("mlp")),
    # integrate
    "integrate.ode": [
        plain(cf.integrate.ode, field=FIELD, x=CLOUD, solver=other(cf.integrate.Fixed("euler", steps=2)), **SPAN),
        plain(
            cf.integrate.ode,
            field=FIELD,
            x=CLOUD,
            solver=text("rk4"),
            start=Argument("tensor", lambda: torch.zeros(8)),
            stop=TIMES,
        ),
    ],
    "integrate.sde": plain(
        cf.integrate.sde,
        field=Argument("function", scored),
        x=CLOUD,
        sigma=number(0.5),
        solver=count(2),
        generator=GENERATOR,
        start=number(0.0),
        stop=number(1.0),
    ),
    "integrate.jump": plain(
        cf.integrate.jump, flow_map=Argument("function", jumping), x=CLOUD, start=number(0.0), stop=number(1.0)
    ),
    "integrate.grow": plain(
        cf.integrate.grow,
        field=Argument("function", growing),
        x=CLOUD,
        solver=count(2),
        log_weight=tensor(8),
        start=number(0.0),
        stop=number(1.0),
    ),
    "integrate.log_density": plain(
        cf.integrate.log_density,
        field=FIELD,
        x=CLOUD,
        base_log_density=function(lambda: lambda x: -x.square().sum(dim=1) / 2),
        solver=count(2),
        start=number(0.0),
        stop=number(1.0),
        n_probes=count(2),
        generator=GENERATOR,
    ),
    "integrate.Fixed": using(
        lambda **given: cf.integrate.Fixed(**given),
        lambda solver: cf.integrate.ode(field, CLOUD.make(), solver=solver),
        method=text("rk4"),
        steps=count(2),
    ),
    "integrate.Adaptive": using(
        lambda **given: cf.integrate.Adaptive(**given),
        lambda solver: cf.integrate.ode(field, CLOUD.make(), solver=solver),
        method=text("bosh3"),
        rtol=number(1e-2),
        atol=number(1e-2),
    ),
    "integrate.Noisy": using(
        lambda **given: cf.integrate.Noisy(**given),
        lambda solver: cf.integrate.sde(scored(), CLOUD.make(), sigma=0.5, solver=solver, generator=RNG()),
        steps=count(2),
        method=text("heun"),
        power=number(2.0),
        denoise=flag(True),
    ),
    "integrate.Jumps": using(cf.integrate.Jumps, lambda solver: solver, steps=count(1)),
    "integrate.Table": using(
        cf.integrate.Table,
        lambda table: cf.integrate.ode(field, CLOUD.make(), solver=cf.integrate.Fixed(table, steps=2)),
        a=other(((), (1.0,))),
        b=other((0.5, 0.5)),
        c=other((0.0, 1.0)),
        order=count(2),
    ),
    "integrate.resolve": plain(
        cf.integrate.resolve, solver=text("rk4"), default=other(cf.integrate.Fixed()), verb=text("ode")
    ),
    # objectives
    "objectives.VelocityMatching": losses(cf.objectives.VelocityMatching, lambda: field, **PAIRS),
    "objectives.NoiseMatching": losses(
        cf.objectives.NoiseMatching, lambda: field, path=other(cf.paths.VariancePreserving()), times=PAIRS["times"]
    ),
    "objectives.BridgeMatching": losses(
        cf.objectives.BridgeMatching,
        scored,
        **(PAIRS | {"path": other(cf.paths.BrownianBridge(0.5))}),
        score_weight=number(1.0),
        growth_weight=other(None),
    ),
    "objectives.EndPointMatching": losses(
        cf.objectives.EndPointMatching,
        ended,
        **(PAIRS | {"path": other(cf.paths.BrownianBridge(0.5))}),
        damping=number(0.1),
    ),
    "objectives.DampedVelocity": using(
        cf.objectives.DampedVelocity, field_of, field=function(lambda: ended()), damping=number(0.1)
    ),
    "objectives.GrowthMatching": losses(cf.objectives.GrowthMatching, growing, True, **PAIRS),
    "objectives.PathEnergy": losses(
        lambda metric=lambda x: 1 + x.square().sum(dim=1), **given: cf.objectives.PathEnergy(metric, **given),
        lambda: field,
        metric=function(lambda: lambda x: 1 + x.square().sum(dim=1)),
    ),
    "objectives.LagrangianMatching": losses(
        cf.objectives.LagrangianMatching, jumping, **MAPS, stop_gradient=flag(True)
    ),
    "objectives.EulerianMatching": losses(cf.objectives.EulerianMatching, jumping, **MAPS, stop_gradient=flag(True)),
    "objectives.MeanVelocityMatching": losses(cf.objectives.MeanVelocityMatching, jumping, **MAPS),
    "objectives.SemigroupMatching": losses(cf.objectives.SemigroupMatching, jumping, **MAPS),
    "objectives.FlowMapMatching": losses(cf.objectives.FlowMapMatching, both_ways, **MAPS),
    "objectives.TrajectoryMatching": losses(cf.objectives.TrajectoryMatching, jumping),
    "objectives.VelocityFromNoise": using(
        cf.objectives.VelocityFromNoise, field_of, field=FIELD, path=other(cf.paths.VariancePreserving())
    ),
}
