"""What the scores of images say, as honest when the model loses as when it wins."""

from cellflow.metrics import Interval
from cellflow.report.image_scores import MADE, REAL, STILL, ImageScores, keeps

NAMES = {MADE: "Made by the model", STILL: "Source images as they are", REAL: "Other real target images (floor)"}


def headline(scores: ImageScores) -> str:
    """Say in one sentence how near the target the images are, and whether they come from their inputs."""
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
    """Say what was found, one number after the other."""
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
            f"{kept.shuffled:.3f} ± {kept.sd:.3f}. " + _verdict(keeps(measure, kept))
        )
    if scores.accuracy:
        shares = ", ".join(f"{NAMES[what].lower()} {share:.0%}" for what, share in scores.accuracy.items())
        found.append(f"Taken for the target class by a classifier: {shares}.".replace("%", "\u00a0%"))
    return found


def table(scores: ImageScores) -> list[tuple[str, str, str]]:
    """Return distance and interval of everything that was compared."""
    return [
        (NAMES[what], number(one.value), f"{number(one.low)} to {number(one.high)}")
        for what, one in scores.distances.items()
    ]


def number(value: float) -> str:
    """Write a distance with three digits.

    Examples
    --------
    >>> number(0.12345), number(301.2), number(1998.8)
    ('0.123', '301', '1,999')
    """
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def _nearer(made: Interval, still: Interval) -> str:
    """Compare two distances by their intervals."""
    if made.high < still.low:
        return "nearer to"
    return "farther from" if made.low > still.high else "no nearer to"


def _verdict(kept: bool) -> str:
    return "The output depends on its input." if kept else "By this measure the output does not depend on its input."
