"""Few steps beside many, in one run: points in the plane, and embryoid bodies.

``gaussians``: independent N(0, 1) and N(2, 0.25) in two dimensions on straight lines, whose map is known: root mean
squared error, and the semigroup error ``||X(s, u) - X(t, u) o X(s, t)||`` over random s < t < u.

``checkerboard``: from a Gaussian of the data's variance to the black squares of a 4 x 4 board on [-1, 1]^2; KL
divergence of the data from 64,000 samples, between histograms of 50 x 50 bins. Direction, smoothing and range are not
published; here: KL(data || model), half a count added to every bin, [-1.1, 1.1]^2 with everything outside in the
outermost bins. The floor is the same score for an independent draw of the data. The published run has 150,000 steps of
100,000 points through four layers of 512; that is ``size=full``, for a GPU.

``cells``: embryoid bodies in five dimensions, one snapshot left out (protocol A of the trajectory benchmark): W1.

Images: ``python -m benchmarks.images few_step``. Rows that are in the table already are not measured again.
"""

from functools import partial

from benchmarks import command, machine
from benchmarks.few_step import plane


def main(words: command.Words = None) -> None:
    """Run one task with the methods and seeds that are asked for."""
    given = command.options(
        "few_step", __doc__, words, task=["checkerboard", "gaussians", "cells"], size=["cpu", "full"], steps=int,
        batch=int, method="all", seeds=3, first=0, again=False,
    )  # fmt: skip
    device = machine.fastest()
    if given.task == "cells":
        from benchmarks.few_step import cells  # which needs packages that points do without
        from benchmarks.trajectory.settings import load
        from benchmarks.trajectory.tasks import choose, tasks_of

        steps, folds = given.steps or cells.STEPS, tasks_of(load("dataset", "eb").load(5), choose("A"))
        asked = command.Several(cells.METHODS)(given.method)
        cells.curve(steps).record(given, partial(cells.Folds, folds, steps, device), asked, device)
    else:
        size = plane.size_of(given.task, given.size, given.steps, given.batch)
        asked, make = command.Several(plane.METHODS)(given.method), partial(plane.bench, given.task, size, device)
        plane.curve(given.task, given.size, size, given.seeds).record(given, make, asked, device)


if __name__ == "__main__":
    command.guarded("few_step", main)
