"""Scores of the images of a model, beside doing nothing, real images and shuffled inputs; and their meaning."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from cellflow.images import ImageSet, ImageStream
from cellflow.metrics import (
    Interval,
    Preservation,
    against_shuffled,
    blind_to,
    bootstrap,
    feature_network,
    features_of,
    frechet_distance,
    high_frequency_ratio,
    spoiled,
    structural_similarity,
    target_accuracy,
    transport_cost,
)
from cellflow.seeds import generator

if TYPE_CHECKING:
    import pandas as pd

READ = 1000
"""Maximum number of images of each part to read into memory, if they were left in their files."""
COMPONENTS = 32
REPEATS = 50
MADE, STILL, REAL = "made", "source as it is", "real target"
SIMILARITY, COST = "structural similarity", "transport cost"
OWN, SHUFFLED = "own input", "input of another"
SHARPNESS = "high-frequency ratio"
CONTROL = "real target with "
"""Prefix of the names of deliberately degraded real images."""
GRAINY, BLURRY = 1.25, 0.8
"""Ratios beyond which the page mentions grain or blur."""
NAMES = {MADE: "Made by the model", STILL: "Source images as they are", REAL: "Other real target images (floor)"}

Kind = TypeVar("Kind", bound=ImageSet | ImageStream)


class Split(NamedTuple, Generic[Kind]):
    """Fitted images, and held-out images of the same kind."""

    fitted: Kind
    held_out: Kind

    def in_memory(self) -> "Split[ImageSet]":
        """Return all of them; for images in files, ``READ`` of each part, evenly spaced."""
        return Split(_read(self.fitted), _read(self.held_out))


class Features(NamedTuple):
    """The features by which images are compared.

    Parameters
    ----------
    name
        Name of the distance.
    features
        Images ``(n, c, h, w)`` to features ``(n, d)``.
    """

    name: str
    features: Callable[[Tensor], Tensor]


def keeps(measure: str, found: Preservation) -> bool:
    """Return whether outputs match their own inputs better than those of others, beyond chance.

    Examples
    --------
    >>> keeps(SIMILARITY, Preservation(0.9, 0.5, 0.01)), keeps(COST, Preservation(0.9, 0.5, 0.01))
    (True, False)
    """
    better = found.value < found.shuffled if measure == COST else found.value > found.shuffled
    return better and not found.ignores_input


class ImageScores(NamedTuple):
    """All measured scores.

    Parameters
    ----------
    name
        Name of the distance.
    distances
        To the held-out real images, by what is compared: an interval each.
    kept
        How much images keep of their input, by measure; empty for generated images.
    accuracy
        Fraction of images that a classifier assigns to the target class, by what is compared; empty without one.
    n, n_reference
        Images that are compared, and real ones that they are compared with.
    sharpness
        Energy in high frequencies, relative to the held-out real images, by what is compared; empty where these are
        even.
    """

    name: str
    distances: dict[str, Interval]
    kept: dict[str, Preservation]
    accuracy: dict[str, float]
    n: int
    n_reference: int
    sharpness: dict[str, float]

    @property
    def blind_spots(self) -> tuple[str, ...]:
        """What the distance puts no farther from real images than real ones: degraded ones, or the unchanged source."""
        others = {what: found.value for what, found in self.distances.items() if what not in (MADE, REAL)}
        return blind_to(self.distances[REAL].value, others)

    @property
    def ignores_input(self) -> bool:
        """Whether no measure matches outputs better with their own inputs than with others."""
        return bool(self.kept) and not any(keeps(measure, found) for measure, found in self.kept.items())

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each number."""
        import pandas as pd

        rows: list[tuple[str, str, float, float | None, float | None]] = [
            (self.name, what, one.value, one.low, one.high) for what, one in self.distances.items()
        ]
        for measure, found in self.kept.items():
            low, high = (found.shuffled + sign * found.sd for sign in (-1, 1))
            rows += [(measure, OWN, found.value, None, None), (measure, SHUFFLED, found.shuffled, low, high)]
        rows += [("target accuracy", what, value, None, None) for what, value in self.accuracy.items()]
        rows += [(SHARPNESS, what, value, None, None) for what, value in self.sharpness.items()]
        return pd.DataFrame(rows, columns=["measure", "of", "value", "low", "high"])


def score_images(
    made: Tensor,
    real: Tensor,
    reference: Tensor,
    *,
    inputs: Tensor | None = None,
    feature_network: str | None = None,
    target: str | None = None,
    seed: int = 0,
) -> ImageScores:
    """Score images ``(n, c, h, w)`` from -1 to 1, beside as many real ones, and degraded real ones.

    Parameters
    ----------
    made
        Images of a model.
    real
        Real target images, of which as many are drawn as there are images: the floor.
    reference
        Held-out real target images, with which all are compared.
    inputs
        The input of each; ``None`` for generated images.
    feature_network
        Name of a network of `cellflow.metrics.feature_network`; ``None`` for principal components of the real images.
    target
        The class of that network that the images should have.
    seed
        Draws the floor, the intervals and the shuffles.

    Examples
    --------
    >>> rng = generator(seed=0)
    >>> real, reference, inputs = (torch.rand(40, 1, 8, 8, generator=rng) for _ in range(3))
    >>> score_images(inputs - 0.5, real, reference, inputs=inputs).ignores_input
    False
    """
    rng = generator(seed=seed)
    used = features_for(feature_network, real)
    n = min(len(made), len(real))
    compared = {MADE: made[:n]} | ({} if inputs is None else {STILL: inputs[:n]}) | {REAL: _some(real, n, rng)}
    worse = spoiled(compared[REAL], generator=generator(seed=seed))
    compared |= {CONTROL + how.replace("blurred", "blur"): images for how, images in worse.items()}
    others = features_of(reference, used.features)
    distances, accuracy = {}, {}
    for what, images in compared.items():
        found = features_of(images, used.features)
        distances[what] = bootstrap(frechet_distance, found, others, generator=rng, repeats=REPEATS)
        if target is not None and feature_network is not None:
            accuracy[what] = _accuracy(images, feature_network, target)
    kept = {} if inputs is None else _kept(inputs, made, rng)
    sharpness = (
        {}
        if uniform(reference)
        else {what: high_frequency_ratio(images, reference) for what, images in compared.items()}
    )
    return ImageScores(used.name, distances, kept, accuracy, n, len(reference), sharpness)


def uniform(images: Tensor) -> bool:
    """Return whether all images are of one colour, so that there are no high frequencies to compare with.

    Examples
    --------
    >>> uniform(torch.ones(2, 1, 4, 4)), uniform(torch.eye(4)[None, None])
    (True, False)
    """
    return torch.equal(images.amax((2, 3)), images.amin((2, 3)))


def headline(scores: ImageScores) -> str:
    """Return one sentence on the distance to the target, and on whether images depend on their inputs."""
    return _headline(scores) + (f" {scores.name} does not see every flaw, see below." if scores.blind_spots else "")


def _headline(scores: ImageScores) -> str:
    made = scores.distances[MADE]
    if STILL not in scores.distances:
        return f"Generated images are at {scores.name} = {number(made.value)} from real ones that the model never saw."
    near = _nearer(made, scores.distances[STILL])
    if not scores.kept:
        return f"The translated images are {near} the target than the source images."
    if scores.ignores_input:
        return f"The translated images ignore their inputs; as a set they are {near} the target than the source images."
    return f"The translated images are {near} the target than the source images, and each keeps something of its input."


def sentences(scores: ImageScores) -> list[str]:
    """Return a sentence on each score."""
    made, real = scores.distances[MADE], scores.distances[REAL]
    found = [
        f"{scores.name} to {scores.n_reference} real images that the model never saw: {number(made.value)} for "
        f"{scores.n} images it made. As many other real images are at {number(real.value)}: the floor, below which "
        "differences mean nothing."
    ]
    if STILL in scores.distances:
        found.append(f"Doing nothing, the source images as they are, is at {number(scores.distances[STILL].value)}.")
    for measure, kept in scores.kept.items():
        found.append(
            f"{measure.capitalize()} with their own input: {kept.value:.3f}; with the input of another: "
            f"{kept.shuffled:.3f} ± {kept.sd:.3f}. " + _dependence(keeps(measure, kept))
        )
    if scores.sharpness:
        found.append(_sharp(scores.sharpness[MADE]))
    if spots := scores.blind_spots:
        names = " and ".join(NAMES.get(spot, _control(spot)).lower() for spot in spots)
        found.append(
            f"{scores.name} is blind to {names}: it puts them no farther from real images than other real images are. "
            "Do not rank models by it."
        )
    if scores.accuracy:
        shares = ", ".join(
            f"{NAMES[what].lower()} {scores.accuracy[what]:.0%}" for what in NAMES if what in scores.accuracy
        )
        found.append(f"Classified as the target class: {shares}.".replace("%", "\u00a0%"))
    return found


def rows(scores: ImageScores) -> list[tuple[str, str, str, str]]:
    """Return distance, interval and high-frequency ratio of everything that was compared."""
    return [
        (
            NAMES.get(what, _control(what)), number(one.value), f"{number(one.low)} to {number(one.high)}",
            number(scores.sharpness[what]) if scores.sharpness else "",
        )
        for what, one in scores.distances.items()
    ]  # fmt: skip


def number(value: float) -> str:
    """Write a distance with three digits.

    Examples
    --------
    >>> number(0.12345), number(301.2), number(1998.8)
    ('0.123', '301', '1,999')
    """
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def features_for(network: str | None, real: Tensor) -> Features:
    """Return the features of a shipped network, or else the first principal components of real images.

    Examples
    --------
    >>> features_for(None, torch.rand(9, 1, 4, 4)).name
    'FD-PCA8'
    """
    if network is not None:
        return Features(f"FD-{network}", feature_network(network))
    pixels = real.flatten(1).double()
    mean, k = pixels.mean(dim=0), min(COMPONENTS, len(real) - 1, pixels.shape[1])
    axes = torch.linalg.svd(pixels - mean, full_matrices=False).Vh[:k].T
    return Features(f"FD-PCA{k}", lambda images: (images.flatten(1).double() - mean) @ axes)


def _control(what: str) -> str:
    """Return the name of a control on the page.

    Examples
    --------
    >>> _control("real target with noise of 5"), _control("real target with blur")
    ('Real target images with noise of 5 grey levels (control)', 'Real target images with blur (control)')
    """
    how = what.removeprefix(CONTROL)
    return f"Real target images with {how}{' grey levels' if how.startswith('noise') else ''} (control)"


def _sharp(ratio: float) -> str:
    """Say whether images have grain or are blurred."""
    found = f"Energy in high frequencies, relative to real images: {number(ratio)}."
    if ratio > GRAINY:
        return found + " More than 1: there is grain that real images do not have."
    return found + (" Less than 1: the images are blurred." if ratio < BLURRY else " About 1: as sharp as real ones.")


def _some(images: Tensor, n: int, rng: torch.Generator) -> Tensor:
    return images[torch.randperm(len(images), generator=rng)[:n]]


def _accuracy(images: Tensor, network: str, target: str) -> float:
    classifier = feature_network(network)
    return float(target_accuracy(images, classifier.logits, classifier.classes.index(target)).mean())


def _kept(inputs: Tensor, outputs: Tensor, rng: torch.Generator) -> dict[str, Preservation]:
    measures = {SIMILARITY: structural_similarity, COST: transport_cost}
    if len(inputs) < 3:
        return {}
    return {name: against_shuffled(measure, inputs, outputs, generator=rng) for name, measure in measures.items()}


def _read(images: ImageSet | ImageStream) -> ImageSet:
    if isinstance(images, ImageSet):
        return images
    n = min(READ, len(images))
    return images.take([k * len(images) // n for k in range(n)]).read()


def _nearer(made: Interval, still: Interval) -> str:
    """Compare two distances by their intervals."""
    if made.high < still.low:
        return "nearer to"
    return "farther from" if made.low > still.high else "no nearer to"


def _dependence(kept: bool) -> str:
    return "The output depends on its input." if kept else "By this measure the output does not depend on its input."
