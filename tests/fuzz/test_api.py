"""A few inputs of every kind in the default run, always the same; and no public name without strategies."""

import importlib
import inspect

import matplotlib.pyplot as plt
import pytest
from hypothesis import given

import cellflow as cf
from fuzz.calls import LEFT_OUT
from fuzz.inputs import Input, calls, ending, inputs, quiet
from fuzz.judge import holds_nan
from fuzz.oddities import ODDITIES, value_of
from fuzz.profile import API_EXAMPLES, by_default

ROOMS = [name for name in cf.__all__ if inspect.ismodule(getattr(cf, name))]
RECORDS = {
    "cells.ConditionTable",
    "cells.FittedConditions",
    "cells.States",
    "couplings.Plan",
    "doors.CellRankKernels",
    "integrate.Trajectory",
    "metrics.FeatureDistance",
    "metrics.InceptionDistance",
    "metrics.Interval",
    "metrics.KernelDistance",
    "metrics.Neighbours",
    "metrics.Preservation",
    "objectives.FlowMapObjective",
    "pairing.ImageBatches",
    "pairing.LegBatches",
    "pairing.PairedBatches",
    "paths.GaussianPath",
    "paths.PathPoint",
    "paths.TimeLaw",
    "report.Split",
    "training.TrajectoryBatches",
}
"""What is abstract, or made by cellflow and handed to users: they are reached through what makes them."""
WITHOUT_ARGUMENTS = {
    "datasets.cell_silhouettes", "datasets.cite", "datasets.digits", "datasets.embryoid_body", "datasets.hematopoiesis",
    "datasets.hsmm", "datasets.inception_weights", "datasets.kang", "datasets.norman",
}  # fmt: skip
SLOW = {"report.write", "report.write_generation", "report.write_perturbation", "report.write_translation"}
"""Seconds for each input; their arguments are checked in `test_report.py`."""

FORMERLY = [
    Input("pairing.ConditionLeg", 0, {"source": "sparse"}),
    Input("pairing.leg_batches", 0, {"masses": "a tuple"}),
    Input("pairing.leg_batches", 0, {"legs": "an array"}),
    Input("cells.scvi_decoder", 0, {"batch": "its words"}),
    Input("cells.suggest_sigma", 0, {"snapshots": "a tensor"}),
    Input("cells.read_stores", 0, {"rep": "None"}),
    Input("training.refit", 0, {"objective": "a function"}),
    Input("couplings.DensePlan", 1, {"mass": "no columns", "points": "no columns"}),
    Input("paths.VariancePreserving", 0, {"beta_min": "0", "beta_max": "=4.7e-114"}),
    Input("pairing.image_batches", 0, {"features": "numpy"}),
    Input("pairing.leg_batches", 0, {"points": "one minus", "conditions": "one nan"}),
    Input("networks.Heads", 1, {"growth": "None", "velocity": "a function"}),
    Input("integrate.Table", 0, {"a": "a column"}),
    Input("datasets.eight_gaussians", 0, {"radius": "1e+300"}),
    Input("cells.suggest_sigma", 0, {"snapshots": "a frame"}),
    Input("tl.growth_prior", 0, {"cell_cycle": "a column"}),
    Input("pairing.snapshot_batches", 0, {"snapshots": "a frame", "weights": "a frame"}),
    Input("objectives.DampedVelocity", 0, {"damping": "1e+300"}),
    Input("metrics.feature_distance", 0, {"images": "double"}),
    Input("pairing.rbf_metric", 0, {"points": "huge"}),
    Input("couplings.SparsePlan", 0, {"potentials": "a column"}),
    Input("pairing.image_batches", 0, {"features": "a class"}),
    Input("networks.FlowMap", 2, {"t": "an axis more"}),
    Input("cells.Clock", 1, {"time": "nan"}),
    Input("tl.response", 1, {"conditions": "a column"}),
    Input("training.EarlyStopping", 0, {"judge": "a class", "leaving": "a tuple"}),
    Input("pl.genes", 0, {"predicted": "weights zero"}),
    Input("pl.genes", 0, {"predicted": "weights of text"}),
    Input("metrics.label_persistence", 0, {"x_next": "no axes", "moved": "no axes"}),
    Input("PerturbationFlow", 6, {"adata": "no cells"}),
    Input("images.Conversion", 0, {"background": "a class"}),
    Input("training.refit", 0, {"at_once": "=-3"}),
    Input("pairing.rbf_metric", 0, {"spread": "=1.1125369292536007e-308"}),
    Input("metrics.against_shuffled", 0, {"outputs": "huge", "inputs": "one minus"}),
    Input("objectives.PathEnergy", 0, {"metric": "a function"}),
    Input("metrics.structural_similarity", 0, {"outputs": "huge"}),
    Input("datasets.perturbations", 0, {"treatments": "a column"}),
]
"""Inputs that once ended badly."""


def public():
    """Everything with arguments that a room exports, apart from protocols and aliases of types."""
    for room in ROOMS:
        found = importlib.import_module(f"cellflow.{room}")
        for name in getattr(found, "__all__", ["VelocityOf", "outputs"]):
            thing = getattr(found, name)
            ours = getattr(thing, "__module__", "").startswith("cellflow") and not getattr(thing, "_is_protocol", False)
            if ours and (inspect.isclass(thing) or inspect.isfunction(thing)):
                yield name if room == "estimators" else f"{room}.{name}"
    yield from ("generator", "Batch")


def test_every_public_name_is_drawn():
    """Whoever adds a name says in `calls_of_*.py` how it is called."""
    assert set(public()) - RECORDS - WITHOUT_ARGUMENTS - SLOW == set(calls())


@pytest.mark.parametrize("name", sorted(calls()))
def test_every_argument_is_drawn(name):
    """Together the calls of a name give each of its arguments, apart from old keywords."""
    thing = cf
    for part in name.split("."):
        thing = getattr(thing, part)
    given = {argument for call in calls()[name] for argument in call.arguments}
    parameters = inspect.signature(thing).parameters.values()
    named = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    assert named - given <= LEFT_OUT.get(name, set()) | WITHIN.get(name, set())


@pytest.mark.parametrize("name", sorted(calls()))
def test_the_right_arguments_are_right(name):
    """An input without oddities tests nothing if it is refused."""
    for which, call in enumerate(calls()[name]):
        if name in REFUSED or (name, which) in REFUSED:
            assert ending(Input(name, which)) is None
        else:
            with quiet():
                found = call.run(**{argument: value_of(made, None) for argument, made in call.arguments.items()})
            assert call.nan or not holds_nan(found)
    plt.close("all")


WITHIN = {"metrics.standard_error": {"score"}}
"""What a call gives by itself."""
REFUSED = {
    "datasets.mnist", "datasets.fashion_mnist", "datasets.cifar10", "datasets.nuclei", "datasets.wortmannin",
    "doors.to_cellrank", "metrics.fid", "tl.tuned",
    ("SnapshotFlow", 11), ("ImageGenerator", 6), ("DomainTranslator", 6),
}  # fmt: skip
"""What needs files or packages that are not there: what happens before they are looked for is tested."""


def test_every_kind_of_argument_has_oddities():
    kinds = {argument.kind for name in calls() for call in calls()[name] for argument in call.arguments.values()}
    assert kinds == {*ODDITIES, "adata"}


BEFORE = [
    Input("Batch", 0, {"stop": "two rows"}),
    Input("cells.suggest_relaxation", 1, {"first": "no axes"}),
    Input("couplings.Custom", 0, {"match": "None"}),
    Input("couplings.Euclidean", 0, {"x0": "all nan"}),
    Input("couplings.SquaredEuclidean", 0, {"x1": "turned"}),
    Input("couplings.Within", 1, {"source": "None"}),
    Input("datasets.Branching", 0, {"growth": "None"}),
    Input("generator", 0, {"device": "'auto'"}),
    Input("images.read_images", 1, {"source": repr("a" * 300)}),
    Input("integrate.Fixed", 0, {"method": "a set"}),
    Input("metrics.bootstrap", 0, {"sample": "True"}),
    Input("metrics.label_shares", 0, {"x_next": "a column more"}),
    Input("networks.MLP", 1, {"condition": "bytes"}),
    Input("networks.TimeEmbedding", 1, {"t": "None"}),
    Input("objectives.NoiseMatching", 1, {"x0": "a row more"}),
    Input("pairing.RBFMetric", 0, {"centres": "complex"}),
    Input("paths.VariancePreserving", 0, {"beta_min": "=1e300"}),
    Input("training.EarlyStopping", 0, {"seed": "numpy"}),
    Input("SnapshotFlow", 6, {"time": "its words", "x": "one inf"}),
    Input("SnapshotFlow", 8, {"adata": "None"}),
    *(
        Input("SnapshotFlow", 3, {"x": odd})
        for odd in ("one nan", "all nan", "sparse", "with gradient", "an array of text")
    ),
]
"""One of each kind that the first run found; ``python -m tests.fuzz`` finds others."""


@pytest.mark.parametrize("one", BEFORE, ids=str)
def test_an_input_that_ended_badly_before_does_so_no_more(one):
    assert one.odd.keys() <= one.call.arguments.keys(), "another call stands in its place: new ones go last"
    assert ending(one) is None


@by_default(API_EXAMPLES)
@given(inputs())
def test_an_input_has_an_answer_or_is_refused_in_words(one):
    assert ending(one) is None


@pytest.mark.parametrize("one", FORMERLY, ids=str)
def test_what_once_ended_badly_does_not(one):
    assert ending(one) is None
