"""Calls of what reads AnnData: snapshots, the estimator on them, tools, plots and reports."""

import tempfile
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch

import cellflow as cf
from fuzz.annotated import small
from fuzz.calls import CLOUD, CLOUD_OF_OTHERS, GENERATOR, Call, count, flag, number, other, plain, tensor, text, using
from fuzz.oddities import Argument

ADATA = Argument("adata", small)
X = tensor(5, 3)
FLAT = {"device": "cpu", "steps": 1, "batch_size": 4, "time_key": "day"}

DRUGS = {"device": "cpu", "steps": 1, "batch_size": 4, "conditions": "kind", "control": "a"}


@cache
def fitted() -> cf.SnapshotFlow:
    return cf.SnapshotFlow(**FLAT, coupling="exact").fit(small())


@cache
def growing() -> cf.SnapshotFlow:
    return cf.SnapshotFlow(**FLAT).fit(small())


def with_components() -> Any:
    """Cells whose components are those of their genes."""
    import scanpy as sc

    adata = small()
    sc.pp.pca(adata, n_comps=3)
    return adata


@cache
def in_a_file() -> str:
    path = f"{tempfile.mkdtemp()}/cells.h5ad"
    small().write_h5ad(path)
    return path


@cache
def on_components() -> cf.SnapshotFlow:
    return cf.SnapshotFlow(**FLAT, coupling="exact").fit(with_components())


def with_fates() -> Any:
    adata = small()
    cf.tl.fate(adata, growing(), groupby="kind", n_samples=2, solver=1, n_neighbors=3)
    adata.obsm["fate"]["a"] = adata.obs["rate"].where(adata.obs["day"] < 3.0) / 2  # of so few cells all may be alike
    return adata


@cache
def several() -> cf.SnapshotFlow:
    return cf.SnapshotFlow(**FLAT, ensemble=2).fit(small())


@cache
def stochastic() -> cf.SnapshotFlow:
    return cf.SnapshotFlow(**FLAT, coupling="exact", stochastic=True, path=cf.paths.BrownianBridge(0.5)).fit(small())


@cache
def conditioned() -> cf.SnapshotFlow:
    return cf.SnapshotFlow(**FLAT, coupling="exact", conditions=cf.Conditions("kind", control="a")).fit(small())


@cache
def perturbing() -> cf.PerturbationFlow:
    return cf.PerturbationFlow(**DRUGS, stochastic=True, path=cf.paths.BrownianBridge(0.5)).fit(small())


def treated(adata: Any = None, **given: Any) -> Any:
    flow = cf.PerturbationFlow(**(DRUGS | given)).fit(small() if adata is None else adata)
    return [flow.history_.columns, flow.transport(X.make(), condition={"kind": "b"}, solver=1).x]


def flowing(adata: Any = None, **given: Any) -> Any:
    flow = cf.SnapshotFlow(**(FLAT | given)).fit(small() if adata is None else adata)
    return [flow.history_.columns, flow.velocity(X.make()[:, : flow.n_features_in_], 1.0)]


def prepared() -> Any:
    """Cells with everything that the tools write, for the plots."""
    adata = small()
    cf.tl.velocity(adata, growing())
    cf.tl.growth(adata, growing())
    cf.tl.trajectories(adata, growing(), n=3, n_times=4)
    cf.tl.fate(adata, growing(), groupby="kind", n_samples=2, solver=1, n_neighbors=3)
    cf.tl.trends(adata, growing(), genes=["MCM5", "PCNA"], decode=decoder(), n_times=4, n_bootstrap=3)
    cf.tl.drivers(fated := with_fates(), growing(), fate="a")
    adata.uns |= {name: fated.uns[name] for name in ("drivers", "drivers_about")}
    cf.tl.response(adata, perturbing(), max_cells=9)
    adata.varm["response_predicted"] = adata.varm["response"] / 2
    adata.uns["response"] = adata.uns["response"].assign(correlation_flow=1.0, correlation_shift=0.5)
    cf.tl.push(adata, growing(), cells=adata.obs["day"] == 0, at=3.0, groupby="kind", n_neighbors=3)
    adata.uns["validation"] = cf.tl.validate(small(), fitted(), times=1.0, max_cells=9, copy=True).uns["validation"]
    return adata


@cache
def kept() -> Any:
    return prepared()


def written(tool: Any, /, **given: Any) -> Any:
    """What a tool returns, or the arrays that it writes."""
    adata = given["adata"]
    found = tool(**given)
    return [found, {key: value for key, value in getattr(adata, "obsm", {}).items() if key not in ("X_pca", "X_umap")}]


def tool(function: Any, flow: Any = growing, **arguments: Argument) -> Any:
    return Call(
        lambda **given: written(function, **given),
        {"adata": ADATA, "flow": other(lambda: flow()), **arguments},
        nan=True,
    )


def drawn(function: Any, /, *, flow: bool = False, **arguments: Argument) -> Call:
    made = {"flow": other(lambda: growing())} if flow else {}
    return Call(
        lambda **given: function(**given) and None,
        {"adata": Argument("adata", lambda: kept().copy()), **made, **arguments},
    )


def trended(adata: Any, flow: Any, **given: Any) -> Any:
    """Trends toward fates, which are written first where that is possible."""
    cf.tl.fate(adata, flow, groupby="kind", n_neighbors=3)
    return cf.tl.trends(adata, flow, **given)


SOLVER, AT, SEED, COPY = count(1), number(2.0), count(0), flag(False)
KEYS = {"key_added": text("added"), "copy": COPY}
SOME = {"cells": other(lambda: small().obs["day"] == 0.0), "at": number(3.0)}
STEP = {"start": number(0.0), "stop": number(3.0), "solver": SOLVER}
WAY = {"condition": other({"kind": "b"}), "reverse": flag(False), "save": count(2)}
SPOT = {"basis": text("pca"), "components": other((0, 1))}

TREATED = pd.DataFrame({
    "drug": ["control", "A", "B", "A+B"] * 4,
    "dose": [0.0, 1.0, 1.0, 10.0] * 4,
    "donor": ["x"] * 8 + ["y"] * 8,
    "age": [1.0] * 8 + [2.0] * 8,
})  # fmt: skip


def cells_movie(path: Any) -> Any:
    """Return a path in a folder of its own, where it is one for a file."""
    named = isinstance(path, str) and path.endswith(".gif") and "/" not in path
    return f"{tempfile.mkdtemp()}/{path}" if named else path


def learned(conditions: cf.Conditions, obs: pd.DataFrame) -> Any:
    """What is learned of cells, and what a field sees of them."""
    fitted = conditions.fit(obs)
    return [fitted.record(), fitted.read(obs).vectors]


def decoder() -> cf.cells.Decoder:
    """Of two genes, from three numbers."""
    return cf.cells.Decoder(lambda x: x[:, :2], ["MCM5", "PCNA"])


def reference() -> Any:
    """Cells with components of their genes."""
    adata = small()
    _, _, loadings = np.linalg.svd(adata.X - adata.X.mean(axis=0), full_matrices=False)
    adata.varm["PCs"] = loadings[:3].T
    adata.obsm["X_pca"] = (adata.X - adata.X.mean(axis=0)) @ adata.varm["PCs"]
    return adata


def projected(new: Any, **given: Any) -> Any:
    found = cf.pp.project(new, **given)
    return (new if found is None else found).obsm[given["rep"]]


def model() -> Any:
    """What stands in for a model of scvi-tools: three genes, from three numbers."""
    module = torch.nn.Linear(3, 3)
    module.generative = lambda z, library, batch_index: {"px": SimpleNamespace(scale=module(z).softmax(-1))}
    return SimpleNamespace(module=module, adata=small()[:, :3])


DECODED = {"genes": flag(False), "layer": other(None), "use_raw": flag(False), "decode": other(lambda: decoder())}


CALLS: dict[str, Any] = {
    "cells.as_states": Call(cf.cells.as_states, {"given": CLOUD, "what": text("`x`")}, nan=True),  # of any numbers
    "cells.Clock": [
        using(
            cf.cells.Clock,
            lambda clock: [clock.model(clock.times[0]), clock.times],
            times=other((0.0, 1.0, 3.0)),
            labels=other({"day 0": 0.0}),
        ),
        plain(lambda time: cf.cells.Clock((0.0, 1.0, 3.0)).model(time), time=number(2.0)),
        plain(lambda time: cf.cells.Clock((0.0, 1.0, 3.0)).around(time), time=number(2.0)),
    ],
    "cells.Decoder": Call(
        lambda x, **given: cf.cells.Decoder(**given).decode(x),
        {
            "x": other(lambda: X.make().numpy()),
            "function": other(lambda: lambda x: x),
            "genes": other(["a", "b", "c"]),
            "tensors": flag(False),
            "linear": flag(True),
            "width": count(3),
            "variance": other(None),
            "left": other(None),
            "chosen": other(None),
        },
    ),
    "cells.fit_decoder": Call(
        lambda **given: cf.cells.fit_decoder(**given).decode(X.make().numpy()),
        {
            "adata": ADATA,
            "rep": text("X_pca"),
            "n_pcs": other(None),
            "layer": other(None),
            "use_raw": flag(False),
        },
    ),
    "cells.read_stores": Call(
        lambda **given: list(cf.cells.read_stores(**given).obsm.values()),
        {"data": other(lambda: in_a_file()), "rep": text("X_pca"), "columns": other(None), "beside": other(())},
    ),
    "cells.scvi_decoder": Call(
        lambda **given: cf.cells.scvi_decoder(**given).decode(X.make().numpy()),
        {"model": other(lambda: model()), "batch": other(None), "target_sum": number(100.0)},
    ),
    "cells.Conditions": [
        using(
            cf.cells.Conditions,
            lambda conditions: learned(conditions, TREATED),
            treatment=text("drug"),
            dose=text("dose"),
            control=text("control"),
            categories=other(("donor",)),
            numbers=other(("age",)),
            embeddings=other({"drug": {"A": [1.0, 0.0], "B": [0.5, 0.5], "C": [0.0, 1.0]}}),
            separator=text("+"),
        ),
        plain(
            lambda **given: cf.Conditions("drug", "dose", numbers=("age",)).fit(TREATED).encode(given, 3),
            drug=text("A+B"),
            dose=number(1.0),
            age=other([1.0, 2.0, 3.0]),
        ),
    ],
    "cells.suggest_sigma": plain(
        cf.cells.suggest_sigma,
        snapshots=other(lambda: [CLOUD.make(), CLOUD_OF_OTHERS.make()]),
        times=other([0.0, 1.0]),
        share=number(0.05),
        generator=GENERATOR,
    ),
    "cells.suggest_relaxation": [
        plain(
            cf.cells.suggest_relaxation,
            snapshots=other(lambda: [CLOUD.make(), CLOUD_OF_OTHERS.make()]),
            factor=number(0.25),
        ),
        plain(lambda first: cf.cells.suggest_relaxation([first, CLOUD_OF_OTHERS.make()]), first=CLOUD),
    ],
    "SnapshotFlow": [
        Call(
            flowing,
            {
                "time_key": text("day"),
                "rep": text("X_pca"),
                "n_pcs": count(2),
                "path": text("linear"),
                "coupling": text("exact"),
                "steps": count(1),
                "batch_size": count(4),
                "network": text("mlp"),
                "stochastic": flag(False),
                "growth": flag(False),
                "heads": text("shared"),
                "masses": other(None),
                "weight_key": other(None),
                "prior_key": other(None),
                "curve": text("mean"),
                "within": other(None),
                "recipe": other(cf.training.Recipe()),
                "regularize": flag(False),
                "standardize": flag(True),
                "ot_batch_size": count(4),
                "ensemble": other(None),
                "replicate_key": other(None),
                "seed": SEED,
                "device": text("cpu"),
                "progress": flag(False),
            },
        ),
        plain(flowing, adata=ADATA),
        plain(
            flowing,
            adata=ADATA,
            weight_key=text("weight"),
            prior_key=text("rate"),
            within=text("kind"),
            coupling=text("auto"),
            masses=text("counts"),
        ),
        plain(lambda **given: growing().velocity(**given), x=X, time=number(1.0)),
        plain(lambda **given: growing().transport(**given), x=X, **STEP),
        plain(lambda **given: growing().grow(**given), x=X, **STEP),
        plain(lambda **given: growing().growth_rate(**given), x=X, time=number(1.0)),
        plain(
            lambda **given: stochastic().simulate(**given),
            x=X,
            start=number(0.0),
            stop=number(3.0),
            solver=count(2),
            seed=SEED,
        ),
        plain(lambda **given: len(fitted().read(**given)), adata=ADATA, cells=other(None)),
        plain(lambda **given: fitted().score(**given), adata=ADATA),
        plain(
            lambda folder, overwrite: fitted().save(folder, overwrite=overwrite),
            folder=other(lambda: tempfile.mkdtemp()),
            overwrite=flag(True),
        ),
        plain(cf.SnapshotFlow.load, folder=text("nowhere")),
        plain(lambda **given: conditioned().velocity(**given), x=X, time=number(1.0), condition=other({"kind": "b"})),
        plain(lambda **given: conditioned().transport(**given), x=X, condition=other({"kind": "b"}), **STEP),
        plain(
            lambda **given: conditioned().read(**given).condition,
            adata=ADATA,
            cells=other(None),
            condition=other({"kind": "b"}),
        ),
        plain(lambda **given: conditioned().score(**given), adata=ADATA),
        plain(lambda **given: fitted().suggest(**given).settings, adata=ADATA),
        plain(flowing, adata=ADATA, ensemble=count(2), replicate_key=text("kind")),
    ],
    "PerturbationFlow": [
        Call(
            treated,
            {
                "control": text("a"),
                "conditions": text("kind"),
                "within": other(None),
                "rep": text("X_pca"),
                "path": text("linear"),
                "coupling": text("exact"),
                "network": text("mlp"),
                "stochastic": flag(False),
                "heads": text("shared"),
                "steps": count(1),
                "batch_size": count(4),
                "recipe": other(cf.training.Recipe()),
                "regularize": flag(False),
                "standardize": flag(True),
                "ot_batch_size": count(4),
                "seed": SEED,
                "device": text("cpu"),
                "progress": flag(False),
            },
        ),
        plain(treated, adata=ADATA),
        plain(lambda **given: perturbing().transport(**given), x=X, **WAY, solver=SOLVER),
        plain(lambda **given: perturbing().simulate(**given), x=X, **WAY, solver=count(2), seed=SEED),
        plain(lambda **given: perturbing().velocity(**given), x=X, condition=other({"kind": "b"}), t=number(0.5)),
        plain(lambda **given: len(perturbing().read(**given)), adata=ADATA, cells=other(None), condition=other(None)),
        plain(lambda **given: perturbing().score(**given), adata=ADATA),
        plain(
            lambda **given: cf.PerturbationFlow(**DRUGS).fit(small()).distill(**given).map_history_.columns,
            adata=ADATA,
            steps=count(1),
            objective=text("trajectories"),
            teacher=flag(True),
        ),
    ],
    "tl.perturb": tool(
        cf.tl.perturb,
        perturbing,
        condition=other({"kind": "b"}),
        cells=other(None),
        **DECODED,
        solver=SOLVER,
        progress=flag(False),
    ),
    "tl.response": [
        tool(cf.tl.response, perturbing, genes=flag(True), max_cells=count(9), seed=SEED, **KEYS),
        Call(
            lambda **given: written(cf.tl.response, **given),
            {
                "adata": ADATA,
                "conditions": text("kind"),
                "control": text("a"),
                "within": other(None),
                "rep": text("X_pca"),
                "max_cells": count(9),
            },
            nan=True,
        ),
    ],
    "pl.drivers": drawn(cf.pl.drivers, n_genes=count(3), key=text("drivers"), figure=other(None)),
    "pl.response": drawn(
        cf.pl.response, treatment=text("b"), group=text("all"), genes=count(3), key=text("response"), ax=other(None)
    ),
    "pl.conditions": drawn(cf.pl.conditions, key=text("response"), ax=other(None)),
    "pp.project": Call(
        projected,
        {
            "new": ADATA,
            "reference": other(lambda: reference()),
            "rep": text("X_pca"),
            "layer": other(None),
            "use_raw": flag(False),
            "max_missing": number(0.3),
            "copy": flag(False),
        },
    ),
    "tl.velocity": [
        tool(cf.tl.velocity, **DECODED, extrapolate=flag(True), **KEYS),
        tool(cf.tl.velocity, conditioned, condition=other({"kind": "b"})),
        tool(cf.tl.velocity, several, confidence=number(0.9)),
    ],
    "tl.growth": [
        tool(cf.tl.growth, sensitivity=flag(False), extrapolate=flag(True), **KEYS),
        tool(cf.tl.growth, several, sensitivity=flag(False), confidence=number(0.9)),
    ],
    "tl.growth_prior": Call(
        lambda **given: written(cf.tl.growth_prior, **given),
        {
            "adata": ADATA,
            "unit": text("days"),
            "cell_cycle": other(("MCM5", "PCNA", "TYMS", "CDK1", "TOP2A")),
            "apoptosis": other(("BAX", "FAS", "CASP3", "CASP8", "TP53")),
        },
        nan=True,
    ),
    "tl.interpolate": [
        tool(cf.tl.interpolate, at=AT, solver=SOLVER, extrapolate=flag(False), **DECODED),
        tool(cf.tl.interpolate, conditioned, at=AT, solver=SOLVER, condition=other({"kind": "b"})),
        tool(cf.tl.interpolate, several, at=AT, confidence=number(0.9)),
    ],
    "tl.push": tool(
        cf.tl.push, **SOME, groupby=text("kind"), n_neighbors=count(2), solver=SOLVER, extrapolate=flag(False), **KEYS
    ),
    "tl.pull": tool(
        cf.tl.pull,
        cells=other(lambda: small().obs["day"] == 3.0),
        at=number(0.0),
        groupby=text("kind"),
        n_neighbors=count(2),
        solver=SOLVER,
        **KEYS,
    ),
    "tl.trajectories": tool(
        cf.tl.trajectories,
        cells=other(None),
        n=count(3),
        stop=number(3.0),
        n_times=count(3),
        solver=SOLVER,
        seed=SEED,
        **KEYS,
    ),
    "doors.to_cellrank": Call(
        cf.doors.to_cellrank,
        {
            "adata": ADATA,
            "flow": other(lambda: growing()),
            "condition": other(None),
            "plans": text("auto"),
            "keep": number(0.9),
            "n_neighbors": count(3),
            "conn_weight": number(0.2),
            "n_samples": count(1),
            "seed": SEED,
        },
    ),
    "doors.to_scvelo": Call(
        lambda **given: cf.doors.to_scvelo(**given).uns["velocity_graph"].sum(),
        {
            "adata": ADATA,
            "flow": other(lambda: growing()),
            "condition": other(None),
            "decode": other(None),
            "layer": other(None),
            "use_raw": flag(False),
            "n_neighbors": count(3),
        },
    ),
    "tl.fate": tool(
        cf.tl.fate,
        groupby=text("kind"),
        terminal=other(None),
        at=number(3.0),
        cells=other(None),
        n_samples=count(2),
        solver=SOLVER,
        n_neighbors=count(2),
        confidence=number(0.9),
        seed=SEED,
        **KEYS,
    ),
    "tl.trends": [
        tool(
            trended,
            genes=other(["MCM5", "PCNA"]),
            by=text("fate"),
            fates=text("a"),
            at=other([0.0, 2.0]),
            n_times=count(3),
            layer=other(None),
            use_raw=flag(False),
            decode=other(lambda: decoder()),
            n_samples=count(2),
            n_bootstrap=count(3),
            max_cells=count(9),
            solver=SOLVER,
            confidence=number(0.9),
            seed=SEED,
            progress=flag(False),
            **KEYS,
        ),
        tool(
            cf.tl.trends,
            conditioned,
            genes=text("MCM5"),
            decode=other(lambda: decoder()),
            by=other(None),
            condition=other({"kind": "b"}),
            n_bootstrap=count(3),
        ),
    ],
    "tl.drivers": Call(
        lambda **given: written(cf.tl.drivers, **given),
        {
            "adata": Argument("adata", with_fates),
            "flow": other(lambda: growing()),
            "fate": text("a"),
            "time": other(None),
            "given": other(["rate"]),
            "key": text("fate"),
            "seed": SEED,
            **KEYS,
        },
        nan=True,
    ),
    "tl.perturb_genes": Call(
        lambda **given: written(cf.tl.perturb_genes, **given),
        {
            "adata": Argument("adata", with_components),
            "flow": other(lambda: on_components()),
            "genes": other({"TP53": "up"}),
            "groupby": text("kind"),
            "at": number(3.0),
            "cells": other(None),
            "condition": other(None),
            "n_random": count(2),
            "n_samples": count(2),
            "max_cells": count(9),
            "lineage_key": text("clone"),
            "solver": SOLVER,
            "n_neighbors": count(3),
            "seed": SEED,
            **KEYS,
        },
        nan=True,
    ),
    "tl.validate": tool(
        cf.tl.validate,
        fitted,
        times=number(1.0),
        keep_aside=flag(False),
        groupby=text("kind"),
        lineage_key=text("clone"),
        n_seeds=count(1),
        max_cells=count(9),
        solver=SOLVER,
        **KEYS,
    ),
    "tl.testable_times": tool(cf.tl.testable_times, fitted),
    "tl.tune": tool(
        cf.tl.tune,
        fitted,
        grid=other(lambda: {"curve": ["straight", "mean"]}),
        by=text("auto"),
        n_seeds=count(1),
        max_cells=count(9),
        **KEYS,
    ),
    "tl.tuned": tool(cf.tl.tuned, fitted, grid=other(lambda: {"curve": ["straight", "mean"]}), key=text("tune")),
    "pl.velocity": drawn(
        cf.pl.velocity, kind=text("grid"), color=text("kind"), key=text("velocity"), rep=text("X_pca"), **SPOT
    ),
    "pl.cells": drawn(
        cf.pl.cells,
        color=text("kind"),
        by=text("kind"),
        time_key=text("day"),
        cmap=text("viridis"),
        size=number(4.0),
        alpha=number(0.5),
        legend_loc=text("on data"),
        vmin=number(0.0),
        vmax=number(1.0),
        na_color=text("grey"),
        palette=other(lambda: ["#0072B2", "#E69F00"]),
        title=text("cells"),
        **SPOT,
    ),
    "pl.growth": drawn(cf.pl.growth, groupby=text("kind"), key=text("growth"), **SPOT),
    "pl.movie": Call(
        lambda path="cells.gif", **given: cf.pl.movie(path=cells_movie(path), **given) and None,
        {
            "adata": Argument("adata", lambda: kept().copy()),
            "flow": other(None),
            "path": text("cells.gif"),
            "n_frames": count(2),
            "dpi": count(20),
            "n": count(3),
            "fps": number(5.0),
            "color": text("kind"),
            "key": text("trajectories"),
            **SPOT,
        },
    ),
    "pl.trajectories": drawn(
        cf.pl.trajectories, flow=True, color=text("kind"), n=count(3), solver=SOLVER, key=text("trajectories"), **SPOT
    ),
    "pl.trends": drawn(
        cf.pl.trends, genes=text("MCM5"), fates=text("a"), points=flag(True), key=text("trends"), figure=other(None)
    ),
    "pl.trends_heatmap": drawn(
        cf.pl.trends_heatmap,
        genes=other(["MCM5", "PCNA"]),
        fates=text("a"),
        order_by=text("a"),
        cmap=text("viridis"),
        key=text("trends"),
        figure=other(None),
    ),
    "pl.fate": drawn(cf.pl.fate, kind=text("simplex"), color=text("kind"), by=text("day"), key=text("fate"), **SPOT),
    "pl.descendants": drawn(
        cf.pl.descendants,
        flow=True,
        groupby=text("kind"),
        cells=other(None),
        reverse=flag(False),
        time_key=text("day"),
        key=text("push"),
    ),
    "pl.genes": drawn(
        cf.pl.genes,
        predicted=Argument("adata", lambda: kept()[:8].copy()),
        genes=text("MCM5"),
        time_key=text("day"),
        left_out=other(()),
    ),
    "pl.interpolation": drawn(
        cf.pl.interpolation, predicted=Argument("adata", lambda: kept()[:8].copy()), time_key=text("day"), **SPOT
    ),
    "pl.validation": drawn(cf.pl.validation, kind=text("times"), time_key=text("day"), key=text("validation")),
    "pl.loss": Call(
        lambda **given: cf.pl.loss(**given) and None, {"flow": other(lambda: growing()), "ax": other(None)}
    ),
}
