"""Every entry point says so when the estimator it is given was never fitted."""

import inspect

import matplotlib.pyplot as plt
import pytest
import torch

import cellflow as cf
from cellflow.errors import NotFittedError
from cellflow.report import few_steps
from conftest import make_cells, make_treated

FLOW = cf.SnapshotFlow(time_key="day")
TRANSLATOR, GENERATOR = cf.DomainTranslator(), cf.ImageGenerator()
CELLS = make_cells()
CELLS.obs["kind"] = "one"
X = CELLS.obsm["X_pca"]
TREATED, PERTURBATION = make_treated(), cf.PerturbationFlow(conditions="drug")
IMAGES = cf.datasets.digits().take(range(12))
SOME = {"cells": CELLS.obs["day"] == 0.0, "at": 5.0}
REPORT = {"title": "None", "details": {}}

# What may be asked of an estimator before `fit`.
FREE = {"fit", "suggest", "suggest_sigma", "load"}
VERBS = {
    "read": lambda: FLOW.read(CELLS),
    "velocity": lambda: FLOW.velocity(X, 1.0),
    "transport": lambda: FLOW.transport(X, start=0, stop=1),
    "simulate": lambda: FLOW.simulate(X, start=0, stop=1),
    "grow": lambda: FLOW.grow(X, start=0, stop=1),
    "growth_rate": lambda: FLOW.growth_rate(X, 1.0),
    "score": lambda: FLOW.score(CELLS),
    "distill": lambda: FLOW.distill(CELLS),
    "DomainTranslator translate": lambda: TRANSLATOR.translate(X),
    "DomainTranslator simulate": lambda: TRANSLATOR.simulate(X),
    "DomainTranslator trajectory": lambda: TRANSLATOR.trajectory(X),
    "DomainTranslator refine": lambda: TRANSLATOR.refine(X, X + 1, rounds=1),
    "DomainTranslator distill": lambda: TRANSLATOR.distill(X, X + 1),
    "PerturbationFlow read": lambda: PERTURBATION.read(TREATED),
    "PerturbationFlow transport": lambda: PERTURBATION.transport(X, condition={"drug": "A"}),
    "PerturbationFlow simulate": lambda: PERTURBATION.simulate(X, condition={"drug": "A"}),
    "PerturbationFlow velocity": lambda: PERTURBATION.velocity(X, condition={"drug": "A"}),
    "PerturbationFlow score": lambda: PERTURBATION.score(TREATED),
    "PerturbationFlow distill": lambda: PERTURBATION.distill(TREATED),
    "ImageGenerator generate": lambda: GENERATOR.generate(3),
    "ImageGenerator trajectory": lambda: GENERATOR.trajectory(3),
    "ImageGenerator translate": lambda: GENERATOR.translate(IMAGES, strength=0.5),
    "ImageGenerator refine": lambda: GENERATOR.refine(IMAGES, rounds=1),
    "ImageGenerator distill": lambda: GENERATOR.distill(IMAGES),
}
TOOLS = {
    "velocity": lambda: cf.tl.velocity(CELLS, FLOW),
    "growth": lambda: cf.tl.growth(CELLS, FLOW),
    "interpolate": lambda: cf.tl.interpolate(CELLS, FLOW, at=2.0),
    "push": lambda: cf.tl.push(CELLS, FLOW, **SOME),
    "pull": lambda: cf.tl.pull(CELLS, FLOW, **SOME),
    "trajectories": lambda: cf.tl.trajectories(CELLS, FLOW),
    "perturb": lambda: cf.tl.perturb(TREATED, PERTURBATION),
    "response": lambda: cf.tl.response(TREATED, PERTURBATION),
    "fate": lambda: cf.tl.fate(CELLS, FLOW, groupby="kind"),
    "drivers": lambda: cf.tl.drivers(CELLS, FLOW, fate="one"),
    "perturb_genes": lambda: cf.tl.perturb_genes(CELLS, FLOW, genes={"a": "up"}, groupby="kind"),
    "trends": lambda: cf.tl.trends(CELLS, FLOW, genes=["a"]),
}
DOORS = {
    "to_cellrank": lambda: cf.doors.to_cellrank(CELLS, FLOW),
    "to_scvelo": lambda: cf.doors.to_scvelo(CELLS, FLOW),
}
PLOTS = {
    "velocity": lambda: cf.pl.velocity(CELLS, FLOW),
    "trajectories": lambda: cf.pl.trajectories(CELLS, FLOW),
    "loss": lambda: cf.pl.loss(FLOW),
    "descendants": lambda: cf.pl.descendants(CELLS, FLOW, groupby="kind"),
    "movie": lambda: cf.pl.movie(CELLS, FLOW, path="never.gif"),
}
REPORTS = {
    "write": lambda folder: cf.report.write(folder, CELLS, FLOW, **REPORT),
    "write_translation": lambda folder: cf.report.write_translation(folder, TRANSLATOR, seen(), seen(), **REPORT),
    "write_perturbation": lambda folder: cf.report.write_perturbation(folder, TREATED, PERTURBATION, **REPORT),
    "write_generation": lambda folder: cf.report.write_generation(folder, GENERATOR, seen(), **REPORT),
    "few steps of cells": lambda folder: few_steps.compare_cells(CELLS, FLOW),
    "few steps, translated": lambda folder: few_steps.compare_translated(
        TRANSLATOR, seen(), seen(), feature_network=None
    ),
    "few steps, made": lambda folder: few_steps.compare_generated(GENERATOR, seen(), feature_network=None),
}


def seen():
    return cf.report.Split(IMAGES.take(range(6)), IMAGES.take(range(6, 12)))


def taking_a_flow(room):
    """Return the public functions of a room that a flow is given to."""
    functions = {name: getattr(room, name) for name in room.__all__}
    return {name for name, function in functions.items() if "flow" in inspect.signature(function).parameters}


def test_the_lists_are_whole():
    verbs = {
        name if estimator == "SnapshotFlow" else f"{estimator} {name}"
        for estimator in ("SnapshotFlow", "DomainTranslator", "ImageGenerator", "PerturbationFlow")
        for name, method in inspect.getmembers(getattr(cf, estimator), inspect.isroutine)
        if not name.startswith("_") and getattr(method, "__module__", "").startswith("cellflow") and name not in FREE
    }
    assert verbs == set(VERBS) | {"save", "DomainTranslator save", "ImageGenerator save", "PerturbationFlow save"}
    assert taking_a_flow(cf.tl) == set(TOOLS) | {"validate", "testable_times", "tune", "tuned"}  # which fit copies
    assert taking_a_flow(cf.pl) == set(PLOTS)
    assert taking_a_flow(cf.doors) == set(DOORS)
    assert {name for name in cf.report.__all__ if name.startswith("write")} <= set(REPORTS)


ALL = {**VERBS} | {f"{room} {name}": use for room, uses in {"tl": TOOLS, "pl": PLOTS, "doors": DOORS}.items()
                   for name, use in uses.items()}  # fmt: skip


@pytest.mark.parametrize("use", ALL.values(), ids=ALL)
def test_an_unfitted_estimator_says_so(use):
    before = [*CELLS.obsm, *CELLS.obs, *CELLS.uns]
    with pytest.raises(NotFittedError, match="is not fitted|call `fit"):
        use()
    plt.close("all")
    assert [*CELLS.obsm, *CELLS.obs, *CELLS.uns] == before


@pytest.mark.parametrize(
    "estimator", [FLOW, TRANSLATOR, GENERATOR, PERTURBATION], ids=lambda estimator: type(estimator).__name__
)
def test_what_is_not_fitted_is_not_saved(estimator, tmp_path):
    with pytest.raises(NotFittedError, match="is not fitted"):
        estimator.save(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", REPORTS)
def test_there_is_no_report_before_a_fit(name, tmp_path):
    with pytest.raises(NotFittedError, match="is not fitted"):
        REPORTS[name](tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_reports_compare_images_by_has_another_name_now(tmp_path):
    for write, data in (
        (cf.report.write_translation, (TRANSLATOR, seen())),
        (cf.report.write_generation, (GENERATOR,)),
    ):
        with pytest.warns(FutureWarning, match="feature_network='mnist'"), pytest.raises(NotFittedError):
            write(tmp_path, *data, seen(), **REPORT, judge="mnist")


def test_growth_and_noise_are_asked_for_after_the_fit():
    """The message is about what is missing first."""
    flow = cf.SnapshotFlow(time_key="day", steps=1, coupling="exact", device="cpu").fit(CELLS)
    for use in (lambda: flow.grow(X, start=0, stop=1), lambda: flow.simulate(torch.tensor(X), start=0, stop=1)):
        with pytest.raises(TypeError, match="fitted without"):
            use()
