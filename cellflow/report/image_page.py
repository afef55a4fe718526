"""The pages of image runs: what was made, beside what it was made from and the nearest real images, with scores."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cellflow import pl
from cellflow.images import ImageSet, ImageStream
from cellflow.report import few_steps, html, image_words
from cellflow.report.grids import course_figure, nearest, rows_figure
from cellflow.report.html import Drawing
from cellflow.report.image_scores import ImageScores, score_images

if TYPE_CHECKING:
    from cellflow.estimators import DomainTranslator, ImageGenerator

PAGE, FIGURES, SCORES = "report.html", "figures", "scores.csv"
SHOWN, COURSES = 12, 5
"""Images in a row, and courses drawn."""
READ = 1000
"""Images of each part that are read into memory, where they were left in their files."""
_TITLES = {
    "fitted": "What was fitted",
    "images": "The images",
    "scores": "How good they are",
    "courses": "On the way",
    "training": "Training",
    "steps": "How many steps it takes",
    "use": "How to use this model",
    "run": "The run",
}
_CAUTION = (
    "Distances fall as images become more, so only those of one column are to be compared. The intervals come from "
    "drawing the images again (bootstrap), which makes them lie a little high and may leave out the value itself. "
    "One fit and one seed."
)


class Held(NamedTuple):
    """Images that a model was fitted on, and others of the same kind that it never saw."""

    seen: ImageSet | ImageStream
    unseen: ImageSet | ImageStream

    def in_memory(self) -> "InMemory":
        """Return all of them, or ``READ`` of each part, evenly spaced, where they are in files."""
        return InMemory(*(_read(images) for images in self))


class InMemory(NamedTuple):
    """What a page shows and measures of `Held`."""

    seen: ImageSet
    unseen: ImageSet


def write_translation(
    folder: str | Path,
    model: "DomainTranslator",
    source: Held,
    target: Held,
    *,
    title: str,
    details: Mapping[str, str],
    judge: str | None = None,
    target_class: str | None = None,
    steps: int = 20,
    noise: bool = True,
) -> ImageScores:
    """Write the report of a translation: ``report.html``, ``scores.csv`` and ``figures/``, replaced where they are.

    Everything is measured on source images that the model never saw. Of images that are left in their files, at most
    1000 that it saw and 1000 that it did not are read.

    Parameters
    ----------
    folder
        The folder of the run.
    model
        The fitted translator, of images.
    source, target
        Images of both domains, those that the model saw and those that it did not.
    title
        Name of the run.
    details
        What else is known about the run.
    judge
        Network of `cellflow.metrics.feature_network` that compares images; None for principal components.
    target_class
        The class of that network that the target has.
    steps
        Solver steps.
    noise
        Whether images are simulated with noise, where a score was learned.

    Examples
    --------
    >>> import tempfile, cellflow as cf
    >>> from functools import partial
    >>> rng = cf.generator(seed=0)
    >>> twos, threes = (Held(*cf.datasets.digits().only(name).split(0.8, generator=rng)) for name in "23")
    >>> network = partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)
    >>> model = cf.DomainTranslator(network=network, steps=2, batch_size=8).fit(twos.seen, threes.seen)
    >>> scores = write_translation(tempfile.mkdtemp(), model, twos, threes, title="2 to 3", details={}, steps=2)
    >>> scores.n, scores.n_reference
    (35, 37)
    """
    model._check_fitted()
    noisy = noise and model.score is not None
    carry = model.simulate if noisy else model.translate
    inputs, targets = source.in_memory(), target.in_memory()
    made = carry(inputs.unseen, steps=steps)
    scores = score_images(
        made.scaled(),
        targets.seen.scaled(),
        targets.unseen.scaled(),
        inputs=inputs.unseen.scaled(),
        judge=judge,
        target=target_class,
        seed=int(model.seed),
    )
    lead = (
        f"Images translated, fitted on {len(source.seen):,} source and {len(target.seen):,} target images of "
        f"{_size(model.shape_)}, with nothing said about which belong together."
    )
    drawings = _of_translation(model, inputs, targets, made, seed=0 if noisy else None)
    page = _Page(Path(folder), title, lead, scores, details)
    use = _use("DomainTranslator", f"{carry.__name__}(images)", "translate", "input=FOLDER out=TRANSLATED", page.folder)
    page.write(model, drawings, fitted=_sizes(source, target), use=use)
    return scores


def write_generation(
    folder: str | Path,
    model: "ImageGenerator",
    images: Held,
    *,
    title: str,
    details: Mapping[str, str],
    judge: str | None = None,
    steps: int = 50,
) -> ImageScores:
    """Write the report of a generator: ``report.html``, ``scores.csv`` and ``figures/``, replaced where they are.

    Parameters
    ----------
    folder, title, details, judge, steps
        As for `write_translation`.
    model
        The fitted generator.
    images
        Those that the model saw, and others.

    Examples
    --------
    >>> import tempfile, cellflow as cf
    >>> from functools import partial
    >>> images = Held(*cf.datasets.digits().only("2").split(0.8, generator=cf.generator(seed=0)))
    >>> network = partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)
    >>> model = cf.ImageGenerator(network=network, steps=2, batch_size=8).fit(images.seen)
    >>> write_generation(tempfile.mkdtemp(), model, images, title="Twos", details={}, steps=2).n
    35
    """
    model._check_fitted()
    real = images.in_memory()
    made = _as_many(model, real.unseen, steps)
    scores = score_images(made.scaled(), real.seen.scaled(), real.unseen.scaled(), judge=judge, seed=int(model.seed))
    lead = f"Images made from noise, fitted on {len(images.seen):,} images of {_size(model.shape_)}."
    page = _Page(Path(folder), title, lead, scores, details)
    use = _use("ImageGenerator", "generate(64)", "generate", "n=64 out=GENERATED", page.folder)
    page.write(model, _of_generation(model, real, made), fitted=_sizes(images), use=use)
    return scores


class _Page(NamedTuple):
    folder: Path
    title: str
    lead: str
    scores: ImageScores
    details: Mapping[str, str]

    def write(
        self,
        model: "DomainTranslator | ImageGenerator",
        drawings: Iterator[Drawing],
        *,
        fitted: list[tuple[str, str]],
        use: tuple[str, str],
    ) -> None:
        figures = self.folder / FIGURES
        figures.mkdir(parents=True, exist_ok=True)
        self.scores.to_frame().to_csv(self.folder / SCORES, index=False)
        python, shell = use
        sections = {
            "fitted": html.table(None, [*fitted, *_settings(model)]),
            "images": "",
            "scores": html.table(
                ("Compared", self.scores.name, "Interval"), image_words.table(self.scores), numbers=(1,)
            )
            + html.paragraph(_CAUTION, style="note"),
            "courses": "",
            "training": "",
            "steps": few_steps.section(self.folder, figures) if model.distilled else "",
            "use": html.paragraph("In Python:")
            + html.listing(python, style="python")
            + html.paragraph("On the command line:")
            + html.listing(shell, style="shell"),
            "run": html.table(None, self.details.items()),
        }
        for drawing in drawings:
            sections[drawing.section] += html.figure(drawing, figures)
        said = html.paragraph(image_words.headline(self.scores)) + html.bullets(image_words.sentences(self.scores))
        text = html.page(self.title, self.lead, said, sections, _TITLES)
        (self.folder / PAGE).write_text(text, encoding="utf-8")


def _use(estimator: str, call: str, command: str, rest: str, folder: Path) -> tuple[str, str]:
    """Return how to use a saved model in Python, and on the command line."""
    lines = ("import cellflow as cf", "", f"model = cf.{estimator}.load({str(folder)!r})")
    python = "\n".join([*lines, f"found = model.{call}  # an ImageSet"])
    return python, f"cellflow {command} {shlex.quote(f'model={folder}')} {rest}"


def _of_translation(
    model: "DomainTranslator", source: InMemory, target: InMemory, made: ImageSet, *, seed: int | None
) -> Iterator[Drawing]:
    inputs, outputs = source.unseen.scaled()[:SHOWN], made.scaled()[:SHOWN]
    rows = [
        ("source", inputs),
        ("translated", outputs),
        ("nearest\ntarget", nearest(outputs, target.seen.scaled())),
        ("targets\nat random", target.unseen.scaled()[:SHOWN]),
    ]
    yield Drawing(
        "images", "translated", rows_figure(rows),
        "Source images that the model never saw, what it made of each, and the target image nearest to that by pixels "
        f"of {len(target.seen):,} that it was fitted on: a copy would show. The last row is not paired with the "
        "others.",
    )  # fmt: skip
    course = model.trajectory(source.unseen.take(range(min(COURSES, len(source.unseen)))), seed=seed)
    yield Drawing(
        "courses", "courses", course_figure(course),
        "Images on the way from the source (t = 0) to the target (t = 1).",
    )  # fmt: skip
    yield _loss(model)


def _of_generation(model: "ImageGenerator", images: InMemory, made: ImageSet) -> Iterator[Drawing]:
    outputs = made.scaled()[:SHOWN]
    rows = [
        ("generated", outputs),
        ("nearest\nseen", nearest(outputs, images.seen.scaled())),
        ("real at\nrandom", images.unseen.scaled()[:SHOWN]),
    ]
    yield Drawing(
        "images", "generated", rows_figure(rows),
        f"Generated images, and below each the nearest by pixels of {len(images.seen):,} that the model was fitted "
        "on: a copy would show. The last row is not paired with the others.",
    )  # fmt: skip
    label = None if model.classes_ is None else [k % len(model.classes_) for k in range(COURSES)]
    yield Drawing(
        "courses", "courses", course_figure(model.trajectory(COURSES, label=label)),
        "From noise (t = 0) to an image (t = 1).",
    )  # fmt: skip
    yield _loss(model)


def _loss(model: "DomainTranslator | ImageGenerator") -> Drawing:
    figure = html.blank(7.2, 3.6)
    pl.loss(model.history_, ax=figure.subplots())
    return Drawing(
        "training", "loss", figure,
        "Training loss. It should fall and level off; it does not fall to zero, since many paths cross at each point.",
    )  # fmt: skip


def _read(images: ImageSet | ImageStream) -> ImageSet:
    if isinstance(images, ImageSet):
        return images
    n = min(READ, len(images))
    return images.take([k * len(images) // n for k in range(n)]).read()


def _as_many(model: "ImageGenerator", unseen: ImageSet, steps: int) -> ImageSet:
    """Generate as many images as there are, of the same classes where the model knows classes."""
    label = unseen.labels if model.classes_ is not None else None
    return model.generate(len(unseen), label=None if label is None else label.tolist(), steps=steps)


def _size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{height} x {width} pixels, {channels} channel{'' if channels == 1 else 's'}"


def _sizes(*held: Held) -> list[tuple[str, str]]:
    names = ("Source images", "Target images") if len(held) == 2 else ("Images",)
    return [
        (name, f"{len(one.seen):,} fitted, {len(one.unseen):,} left out for the scores" + _measured(one))
        for name, one in zip(names, held, strict=True)
    ]


def _measured(held: Held) -> str:
    """Say where a page shows and measures part of the images only."""
    large = any(isinstance(images, ImageStream) and len(images) > READ for images in held)
    return f"; read from files, at most {READ:,} of each for this page" if large else ""


def _settings(model: "DomainTranslator | ImageGenerator") -> list[tuple[str, str]]:
    """Return what the model was made of."""
    parameters = sum(weights.numel() for weights in model.field_.parameters())
    return [
        ("Path", repr(model.path)),
        ("Coupling", repr(model.coupling)),
        ("Network", f"{parameters:,} parameters"),
        ("Training", f"{len(model.history_):,} steps of {model.batch_size:,} pairs"),
        ("Seed", str(model.seed)),
    ]
