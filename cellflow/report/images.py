"""The reports of image models: their images, beside the inputs and the nearest real images, with scores."""

import shlex
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellflow import couplings, paths
from cellflow.files import committed
from cellflow.images import ImageSet, ImageStream
from cellflow.integrate import Adaptive, Fixed, Jumps, Noisy, Solver
from cellflow.renamed import Rules, renamed
from cellflow.report import estimator, few_steps, html, image_scores
from cellflow.report.grids import legend, nearest, rows_figure, trajectory_figure
from cellflow.report.html import Drawing
from cellflow.report.image_conditions import condition_rows, in_turn
from cellflow.report.image_scores import ImageScores, Split, score_images

if TYPE_CHECKING:
    from cellflow.estimators import DomainTranslator, ImageGenerator

PAGE, FIGURES, SCORES = "report.html", "figures", "scores.csv"
SHOWN, TRAJECTORIES = 12, 5
"""Images in a row, and trajectories drawn."""
_TITLES = {
    "fitted": "What was fitted",
    "images": "The images",
    "scores": "How good they are",
    "trajectories": "From start to end",
    "training": "Training",
    "steps": "How many steps it takes",
    "use": "How to use this model",
    "run": "The run",
}
FORMER: Rules = {"judge": lambda name: {"feature_network": name}}
"""The former name of the network whose features compare images, see `cellflow.renamed.renamed`."""
_CAUTION = (
    "Distances fall with the number of images: compare within a column only. The intervals come from "
    "a bootstrap, which biases them upwards, so that they may exclude the value itself. "
    "High frequencies: energy in structures of less than four pixels, relative to the held-out real images; more than "
    "1 is grain, less is blur. Controls are the real images of the floor, deliberately degraded: a distance that puts "
    "one of them no farther away does not see the difference. One fit and one seed."
)


def write_translation(
    folder: str | Path,
    model: "DomainTranslator",
    source: Split[Any],
    target: Split[Any],
    *,
    title: str,
    details: Mapping[str, str],
    feature_network: str | None = None,
    target_class: str | None = None,
    solver: Solver | None = None,
    reading: Mapping[str, Any] | None = None,
    **old: Any,
) -> ImageScores:
    """Write the report of a translation: ``report.html``, ``scores.csv`` and ``figures/``, replaced where they are.

    Everything is measured on held-out source images. If images are left in their files, at most 1000 fitted and 1000
    held-out ones are read.

    Parameters
    ----------
    folder
        The folder of the run.
    model
        The fitted translator, of images.
    source, target
        Images of both domains, fitted and held out.
    title
        Name of the run.
    details
        What else is known about the run.
    feature_network
        Network of `cellflow.metrics.feature_network` that compares images; ``None`` for principal components.
    target_class
        The class of the target, as that network numbers it.
    solver
        How images are translated, with noise or without; ``None`` for 20 steps, with noise if a score was learned.
    reading
        How images were read, as arguments of `cellflow.images.read_images`: the report shows how to read others.

    Examples
    --------
    >>> import tempfile, cellflow as cf
    >>> from functools import partial
    >>> rng = cf.generator(seed=0)
    >>> twos, threes = (Split(*cf.datasets.digits().only(name).split(0.8, generator=rng)) for name in "23")
    >>> network = partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)
    >>> model = cf.DomainTranslator(network=network, steps=2, batch_size=8).fit(twos.fitted, threes.fitted)
    >>> folder, solver = tempfile.mkdtemp(), cf.integrate.Fixed(steps=2)
    >>> scores = write_translation(folder, model, twos, threes, title="2 to 3", details={}, solver=solver)
    >>> scores.n, scores.n_reference
    (35, 37)
    """
    feature_network = renamed("write_translation", old, FORMER).get("feature_network", feature_network)
    model._check_fitted()
    if solver is None:
        solver = Noisy(20) if model.stochastic else Fixed("midpoint", steps=20)
    carry: Any = model.simulate if isinstance(solver, Noisy) else model.translate
    inputs, targets = source.in_memory(), target.in_memory()
    made = carry(inputs.held_out, solver=solver, **in_turn(model, targets.held_out, len(inputs.held_out)))
    scores = score_images(
        made.scaled(),
        targets.fitted.scaled(),
        targets.held_out.scaled(),
        inputs=inputs.held_out.scaled(),
        feature_network=feature_network,
        target=target_class,
        seed=int(model.seed),
    )
    lead = (
        f"Images translated, fitted on {len(source.fitted):,} source and {len(target.fitted):,} target images of "
        f"{_size(model.shape_)}, without pairs. {_colours(model)}"
    )
    drawings = _of_translation(model, inputs, targets, made, noisy=isinstance(solver, Noisy))
    known = reading or {}
    fields = known.get("fit") == "tiles" and not isinstance(solver, Noisy)
    overlap = f"overlap={max(min(model.shape_[1:]) // 4, 1)}" if fields else ""
    use = _use(
        "DomainTranslator",
        f"{carry.__name__}(images{overlap and f', {overlap}'}{_asking(model)})",
        "translate",
        _words(model, " ".join(["input=FOLDER out=TRANSLATED", *_again(known, overlap)])),
        folder,
        read=_read(model, known, fields=fields),
    )
    _write(folder, model, drawings, scores, title, lead, details, fitted=_sizes(source, target), use=use)
    return scores


def write_generation(
    folder: str | Path,
    model: "ImageGenerator",
    images: Split[Any],
    *,
    title: str,
    details: Mapping[str, str],
    feature_network: str | None = None,
    solver: Fixed | Adaptive | Jumps | str | int = 50,
    **old: Any,
) -> ImageScores:
    """Write the report of a generator: ``report.html``, ``scores.csv`` and ``figures/``, replaced where they are.

    Parameters
    ----------
    folder, title, details, feature_network
        As for `write_translation`.
    model
        The fitted generator.
    images
        Fitted images, and held-out ones.
    solver
        As for `cellflow.ImageGenerator.generate`.

    Examples
    --------
    >>> import tempfile, cellflow as cf
    >>> from functools import partial
    >>> images = Split(*cf.datasets.digits().only("2").split(0.8, generator=cf.generator(seed=0)))
    >>> network = partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)
    >>> model = cf.ImageGenerator(network=network, steps=2, batch_size=8).fit(images.fitted)
    >>> write_generation(tempfile.mkdtemp(), model, images, title="Twos", details={}, solver=2).n
    35
    """
    feature_network = renamed("write_generation", old, FORMER).get("feature_network", feature_network)
    model._check_fitted()
    real = images.in_memory()
    made = _as_many(model, real.held_out, solver)
    scores = score_images(
        made.scaled(),
        real.fitted.scaled(),
        real.held_out.scaled(),
        feature_network=feature_network,
        seed=int(model.seed),
    )
    lead = (
        f"Images made from noise, fitted on {len(images.fitted):,} images of {_size(model.shape_)}. {_colours(model)}"
    )
    drawings = _of_generation(model, real, made)
    use = _use(
        "ImageGenerator", f"generate(64{_asking(model)})", "generate", _words(model, "n=64 out=GENERATED"), folder
    )
    _write(folder, model, drawings, scores, title, lead, details, fitted=_sizes(images), use=use)
    return scores


def _write(
    folder: str | Path,
    model: "DomainTranslator | ImageGenerator",
    drawings: Iterator[Drawing],
    scores: ImageScores,
    title: str,
    lead: str,
    details: Mapping[str, str],
    *,
    fitted: list[tuple[str, str]],
    use: tuple[str, str],
) -> None:
    place = Path(folder)
    figures = place / FIGURES
    figures.mkdir(parents=True, exist_ok=True)
    with committed(place / SCORES) as partial:
        scores.to_frame().to_csv(partial, index=False)
    python, shell = use
    sections = {
        "fitted": html.table(None, [*fitted, *_settings(model)]),
        "images": "",
        "scores": html.table(
            ("Compared", scores.name, "Interval", "High frequencies"), image_scores.rows(scores), numbers=(1, 3)
        )
        + html.paragraph(_CAUTION, style="note"),
        "trajectories": "",
        "training": "",
        "steps": few_steps.section(place, figures) if model.distilled else "",
        "use": html.paragraph("In Python:")
        + html.listing(python, style="python")
        + html.paragraph("On the command line:")
        + html.listing(shell, style="shell"),
        "run": html.table(None, details.items()),
    }
    for drawing in drawings:
        sections[drawing.section] += html.figure(drawing, figures)
    said = html.paragraph(image_scores.headline(scores)) + html.bullets(image_scores.sentences(scores))
    text = html.page(title, lead, said, sections, _TITLES)
    with committed(place / PAGE) as partial:
        partial.write_text(text, encoding="utf-8")


def _colours(model: "DomainTranslator | ImageGenerator") -> str:
    levels = model.levels_[-1]
    return legend(model.shape_[0], None if levels is None else levels.channels)


def _read(model: "DomainTranslator", reading: Mapping[str, Any], *, fields: bool) -> str:
    """Return how images are read in Python for a translation: those of the size of the fit, or whole fields."""
    size = {} if fields else {"size": tuple(model.shape_[1:])}
    kept = {name: reading[name] for name in ("channels", "pages") if reading.get(name) is not None}
    given = [f"{name}={value!r}" for name, value in (size | kept).items()]
    levels = [] if model.levels_[0] is None else ["levels=model.levels_[0]"]
    source = "FIELD.tif" if fields else "FOLDER"
    return f"images = cf.images.read_images({', '.join([repr(source), *given, *levels])})"


def _again(reading: Mapping[str, Any], overlap: str) -> list[str]:
    """Return the words that a command needs again, as they say how files are read."""
    return [*([overlap] if overlap else []), *([f"pages={reading['pages']}"] if reading.get("pages") else [])]


def _use(
    estimator: str, call: str, command: str, rest: str, folder: str | Path, *, read: str | None = None
) -> tuple[str, str]:
    """Return how to use a saved model in Python, and on the command line."""
    lines = ("import cellflow as cf", "", f"model = cf.{estimator}.load({str(folder)!r})", *([read] if read else []))
    python = "\n".join([*lines, f"found = model.{call}  # an ImageSet"])
    return python, f"cellflow {command} {shlex.quote(f'model={folder}')} {rest}"


def _asking(model: "DomainTranslator | ImageGenerator") -> str:
    """Return how a condition is requested in Python."""
    if model.conditions_ is None:
        return ""
    return ", condition={" + ", ".join(f'"{name}": ...' for name in model.conditions_.columns) + "}"


def _words(model: "DomainTranslator | ImageGenerator", words: str) -> str:
    """Return the words of a command line, with one that requests a condition."""
    if model.conditions_ is None:
        return words
    return " ".join([words, *(f"condition.{name}=..." for name in model.conditions_.columns)])


def _of_translation(
    model: "DomainTranslator", source: Split[ImageSet], target: Split[ImageSet], made: ImageSet, *, noisy: bool
) -> Iterator[Drawing]:
    inputs, outputs = source.held_out.scaled()[:SHOWN], made.scaled()[:SHOWN]
    rows = [
        ("source", inputs),
        ("translated", outputs),
        ("nearest\ntarget", nearest(outputs, target.fitted.scaled())),
        ("targets\nat random", target.held_out.scaled()[: len(inputs)]),
    ]
    n = len(inputs)
    few = source.held_out.take(range(min(SHOWN, len(source.held_out))))
    carry: Any = partial(model.simulate, solver=Noisy(20)) if noisy else model.translate
    by_condition = condition_rows(
        model, lambda condition: carry(few, condition=condition).scaled(), target.held_out, shown=n
    )
    if by_condition:
        yield Drawing(
            "images", "conditions", rows_figure([("source", inputs), *by_condition]),
            "The same source images in each condition, and below them real images of that condition, which are not "
            "paired with them.",
        )  # fmt: skip
    yield Drawing(
        "images", "translated", rows_figure(rows),
        "Source images that the model never saw, what it made of each, and the target image nearest to that by pixels "
        f"of {len(target.fitted):,} that it was fitted on: a copy would show. The last row is not paired with the "
        "others.",
    )  # fmt: skip
    few = source.held_out.take(range(min(TRAJECTORIES, len(source.held_out))))
    solver = Noisy(24) if noisy else Fixed("midpoint", steps=24)
    followed = model.trajectory(few, solver=solver, **in_turn(model, target.held_out, len(few)))
    yield Drawing(
        "trajectories", "trajectories", trajectory_figure(followed),
        "Trajectories from the source (t = 0) to the target (t = 1).",
    )  # fmt: skip
    yield estimator.loss(model)


def _of_generation(model: "ImageGenerator", images: Split[ImageSet], made: ImageSet) -> Iterator[Drawing]:
    outputs = made.scaled()[:SHOWN]
    rows = [
        ("generated", outputs),
        ("nearest\nseen", nearest(outputs, images.fitted.scaled())),
        ("real at\nrandom", images.held_out.scaled()[:SHOWN]),
    ]
    by_condition = condition_rows(
        model,
        lambda condition: model.generate(SHOWN, condition=condition, solver=20).scaled(),
        images.held_out,
        shown=SHOWN,
    )
    if by_condition:
        yield Drawing(
            "images", "conditions", rows_figure(by_condition), "Images of each condition, and below it real ones."
        )  # fmt: skip
    yield Drawing(
        "images", "generated", rows_figure(rows),
        f"Generated images, and below each the nearest by pixels of {len(images.fitted):,} that the model was fitted "
        "on: a copy would show. The last row is not paired with the others.",
    )  # fmt: skip
    label = None if model.classes_ is None else [k % len(model.classes_) for k in range(TRAJECTORIES)]
    given = in_turn(model, images.held_out, TRAJECTORIES)
    yield Drawing(
        "trajectories", "trajectories", trajectory_figure(model.trajectory(TRAJECTORIES, label=label, **given)),
        "From noise (t = 0) to an image (t = 1).",
    )  # fmt: skip
    yield estimator.loss(model)


def _as_many(model: "ImageGenerator", unseen: ImageSet, solver: Any) -> ImageSet:
    """Generate as many images as are held out, of the same classes or conditions for a model of these."""
    label, given = unseen.labels if model.classes_ is not None else None, in_turn(model, unseen, len(unseen))
    return model.generate(len(unseen), label=None if label is None else label.tolist(), solver=solver, **given)


def _size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{height} x {width} pixels, {channels} channel{'' if channels == 1 else 's'}"


def _sizes(*splits: Split[Any]) -> list[tuple[str, str]]:
    names = ("Source images", "Target images") if len(splits) == 2 else ("Images",)
    return [
        (name, f"{len(one.fitted):,} fitted, {len(one.held_out):,} left out for the scores" + _measured(one))
        for name, one in zip(names, splits, strict=True)
    ]


def _measured(split: Split[Any]) -> str:
    """Return a note if the page shows and measures only some of the images."""
    large = any(isinstance(images, ImageStream) and len(images) > image_scores.READ for images in split)
    return f"; read from files, at most {image_scores.READ:,} of each for this page" if large else ""


def _settings(model: "DomainTranslator | ImageGenerator") -> list[tuple[str, str]]:
    """Return the parts of the model: the main ones, and every other setting that is not at its default."""
    return [
        ("Path", repr(paths.resolve(model.path))),
        ("Coupling", repr(couplings.resolve(model.coupling))),
        ("Network", estimator.parameters(model)),
        ("Training", f"{len(model.history_):,} steps of {model.batch_size:,} pairs"),
        ("Seed", str(model.seed)),
        *estimator.chosen(model, besides=("path", "coupling", "steps", "batch_size", "seed")),
    ]
