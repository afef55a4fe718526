"""The bar with the loss and the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(*, shown: bool, start: int, steps: int) -> Iterator[Callable[[int, float], None]]:
    """Give a function of step and loss that moves the bar; one that does nothing when the bar is not shown.

    Examples
    --------
    >>> with progress_bar(shown=False, start=0, steps=10) as bar:
    ...     bar(5, 0.1)
    """
    if not shown:
        yield lambda step, loss: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4g}"), TimeRemainingColumn())
    with Progress(TextColumn("training"), *columns) as progress:
        task = progress.add_task("training", total=steps, completed=start, loss=float("nan"))
        yield lambda step, loss: progress.update(task, completed=step, loss=loss)
