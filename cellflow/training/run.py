"""A training run: its folder, monitoring and devices, and how Ctrl-C and other signals stop it."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from cellflow.errors import CheckpointError
from cellflow.lock import locked
from cellflow.processes import TORCHRUN, joined
from cellflow.renamed import Rules
from cellflow.signature import checked_but
from cellflow.together import together
from cellflow.training.recipe import PRECISIONS, Recipe

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)
WORTH_SAYING = 30
"""Seconds from which on the time left is told."""


@checked_but("fabric")
@dataclass(frozen=True, repr=False)
class Run:
    """Folder, resumption, monitoring and devices of a training.

    Of these only the number of devices changes what is learned: each has its own batch in every step. ``n`` of them
    train as one does with ``recipe.accumulate=n``, up to rounding.

    Parameters
    ----------
    folder
        Folder for checkpoints, from which the training can resume after an interruption; ``None`` for none. While one
        process trains there, others are refused.
    resume
        Whether to resume from the checkpoint in ``folder``.
    save_every, save_minutes
        Steps and minutes between two checkpoints, whichever come first; ``None`` minutes to count steps only.
    progress
        Whether to show a progress bar with the loss and the time left; ``None`` to show it in a terminal only.
    watch
        Called every ``watch_every`` steps and after the last one, with the averaged weights in the field: estimators
        pass an estimator that can be used as if it were fitted, `cellflow.training.fit` passes the `History`.
    watch_every
        Steps between two calls of ``watch``.
    watch_first
        Minutes after which ``watch`` is called for the first time at the latest; ``None`` to count steps only.
    devices
        Number of devices of this machine over which to distribute batches, in a script that ``torchrun
        --nproc-per-node`` or ``srun`` starts once for each; ``"auto"`` for as many as were started, ``None`` for one.
        Only the first process saves and watches, while the others wait.
    num_nodes
        Number of machines with so many devices each; ``None`` for as many as were started.
    fabric
        Your own launched ``lightning_fabric.Fabric``, instead of ``devices``.

    Raises
    ------
    ValueError, TypeError
        When there is nothing to resume from, a number of steps is below 1, minutes are not above 0, ``watch`` is not
        callable, or a number of devices is below 1.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> run = cf.Run(watch=lambda flow: print(len(flow.history_)), watch_every=8)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata, run=run)
    8
    16
    20
    >>> cf.Run(folder="runs/first", resume=True)
    Run(folder='runs/first', resume=True)
    """

    folder: str | Path | None = None
    resume: bool = False
    save_every: int = 1000
    save_minutes: float | None = 2.0
    progress: bool | None = None
    watch: Callable[[Any], object] | None = None
    watch_every: int = 1000
    fabric: "Fabric | None" = None
    devices: int | str | None = None
    num_nodes: int | None = None
    watch_first: float | None = None

    def __post_init__(self) -> None:
        for name in ("save_every", "watch_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} >= 1; found {getattr(self, name)}.")
        for name in ("save_minutes", "watch_first"):
            minutes = getattr(self, name)
            if minutes is not None and not minutes > 0:
                raise ValueError(f"Expected {name} > 0, or None; found {minutes}.")
        if self.resume and self.folder is None:
            raise ValueError("There is nothing to resume without a `folder`: name the one that keeps the training.")
        if self.fabric is not None and not hasattr(self.fabric, "is_global_zero"):
            raise TypeError(f"Expected `fabric` to be a launched Fabric, or None; found {self.fabric!r}.")
        if self.watch is not None and not callable(self.watch):
            raise TypeError(f"Expected `watch` to be a function, or None; found {self.watch!r}.")
        if isinstance(self.devices, str) and self.devices != "auto":
            raise ValueError(f"Expected `devices` to be 'auto', a number or None; found {self.devices!r}.")
        for name in ("devices", "num_nodes"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"Expected {name} >= 1; found {value}.")
            if value is not None and self.fabric is not None:
                raise ValueError(f"Expected `{name}` or a `fabric`, which has its own devices; found both.")
        if self.num_nodes is not None and self.devices is None:
            raise ValueError("`num_nodes` is used with `devices` only, those of each machine. Set `devices='auto'`.")

    def joined(self, *, device: "str | torch.device", recipe: Recipe | None = None) -> "Run":
        """Return this run with a Fabric of the processes that were started together, if it is for several devices.

        Parameters
        ----------
        device
            What each process takes one of: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        recipe
            The recipe, for its precision; ``None`` for the default.

        Raises
        ------
        ValueError
            When other numbers of processes were started, or there are too few devices; see `cellflow.processes`.
        """
        if self.devices is None:
            return self
        precision = PRECISIONS[str((recipe or Recipe()).precision)]
        fabric = joined(self.devices, machines=self.num_nodes, device=device, precision=precision)
        return replace(self, devices=None, num_nodes=None, fabric=fabric)

    @property
    def leads(self) -> bool:
        """Whether this process is the one that saves and watches."""
        return self.fabric is None or self.fabric.is_global_zero

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the folder. With several devices, the first process does this for all.

        Raises
        ------
        CheckpointError, OSError
            In every process of the group, when another process uses the folder, or it cannot be written to.
        LostProcessError
            When another process of the group has ended.
        """
        with ExitStack() as stack:
            stack.enter_context(together(self.fabric))
            if self.folder is None:
                yield
                return
            refused: Exception | None = None
            if self.leads:
                try:
                    stack.enter_context(locked(self.folder))
                except (CheckpointError, OSError) as error:
                    refused = error
            if self.fabric is not None:
                refused = self.fabric.broadcast(refused)
            if refused is not None:
                raise refused
            yield

    def __repr__(self) -> str:
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = [f"{f.name}={shown[f.name]!r}" for f in fields(self) if shown[f.name] != f.default]
        return f"Run({', '.join(changed)})"


def _from_old(every: int = 1000, **old: Any) -> Mapping[str, Any]:
    return {"run": Run(watch_every=every, **old)}


OLD_KEYWORDS: Rules = {("folder", "resume", "save_every", "progress", "watch", "every", "fabric"): _from_old}
"""Former keywords of the settings of a run; see `cellflow.renamed.renamed`."""


SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, the end that schedulers and systems announce, and that of the terminal."""


class Interrupt:
    """While open, a first Ctrl-C sets ``pending``, as do SIGTERM and SIGHUP; a second one stops at once, as usual.

    The code inside checks ``pending`` and raises. A signal after the last check is passed on when the context closes:
    to the enclosing `Interrupt`, or as the usual KeyboardInterrupt.

    Outside the main thread, where Python delivers no signals, nothing changes. Nor is a signal taken, but for Ctrl-C,
    that the process was told to ignore, as ``nohup`` does with SIGHUP, or has a handler of its own for.

    Examples
    --------
    >>> import signal
    >>> try:
    ...     with Interrupt() as interrupt:
    ...         signal.raise_signal(signal.SIGTERM)
    ...         print(interrupt.pending)
    ... except KeyboardInterrupt:
    ...     print("stopped")
    True
    stopped
    """

    def __init__(self) -> None:
        self.pending, self._process = False, os.getpid()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.getsignal(number) for number in SIGNALS if _taken(number)}
            for number in self._previous:
                signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if self.pending and _is_passed_on():  # this process is being ended, and is told so again and again
            for number in self._previous:
                signal.signal(number, signal.SIG_IGN)
        if self.pending and kind is None:
            self._pass_on()

    def _pass_on(self) -> None:
        if callable(self._previous[self._number]):
            self._previous[self._number](self._number, None)
        else:  # the system's own way would lose what is done after the training
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a child that was forked inside has no training to save
            self._restore()
            signal.raise_signal(number)
            return
        self.pending, self._number = True, number
        if _is_passed_on():
            return
        self._restore()
        if self._previous.get(signal.SIGINT) is signal.SIG_IGN:  # in the background: the second one stops there, too
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _restore(self) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)


def _is_passed_on() -> bool:
    """Return whether torchrun started this process: it passes signals on that came from the terminal already."""
    return TORCHRUN in os.environ


def _taken(number: int) -> bool:
    """Return whether a signal may be taken: Ctrl-C, if it can be given back; others if nothing else is done at them."""
    previous = signal.getsignal(number)
    if number == signal.SIGINT:  # which is ignored in the background, too
        return previous is not None
    return previous is signal.SIG_DFL or getattr(previous, "__func__", None) is Interrupt._note


class Stopped(KeyboardInterrupt):
    """A training was stopped by Ctrl-C or another signal; the message says after which step, and how to resume it.

    Parameters
    ----------
    step, steps
        The step after which it stopped, and the total number of steps.
    folder
        Where it was saved; ``None`` if it was not.
    search
        What a training that is never saved was searching for, in words; empty for others.

    Examples
    --------
    >>> print(Stopped(3, 9, "run"))
    Stopped after step 3 of 9. Saved in run; continue with `resume=True`.
    """

    def __init__(self, step: int, steps: int, folder: str | Path | None, *, search: str = "") -> None:
        self.saved, self.step, self.steps = folder is not None, step, steps
        if search:
            super().__init__(
                f"Stopped in the search for {search}, which is not saved: it begins again with the next fit."
            )
            return
        said = f"Stopped after step {step} of {steps}"
        where = f". Saved in {folder}; continue with `resume=True`."
        super().__init__(said + (where if self.saved else "; nothing was saved, as no `folder` was given."))


@contextmanager
def progress_bar(
    *, shown: bool | None, start: int, steps: int, what: str = "training"
) -> Iterator[Callable[[int, float | None], None]]:
    """Yield a function of step and loss that moves the bar, or does nothing if no bar is shown.

    With ``shown=None`` there is a bar if standard error is a terminal: not in files, pipes and notebooks. Beside the
    bar are the number of steps and the time left. ``what`` names what takes these steps; without a loss, the loss is
    ``None``. Without a bar, the log tells the time left once two steps are known, if it is half a minute or more.

    What runs inside a bar, or without one, shows no bar of its own.

    Examples
    --------
    >>> with progress_bar(shown=False, start=0, steps=10) as bar:
    ...     bar(5, 0.1)
    """
    inside = _INSIDE.get()
    token = _INSIDE.set(True)
    try:
        with _bar(shown=False if inside else shown, start=start, steps=steps, what=what, tells=not inside) as bar:
            yield bar
    finally:
        _INSIDE.reset(token)


_INSIDE = ContextVar("inside of a bar", default=False)


@contextmanager
def _bar(
    *, shown: bool | None, start: int, steps: int, what: str, tells: bool
) -> Iterator[Callable[[int, float | None], None]]:
    if not (sys.stderr.isatty() if shown is None else shown):
        yield _said_once(steps, what) if tells else lambda step, loss: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn())
    console = Console(stderr=True)  # its own: of those with rich's, one is shown at a time
    with Progress(TextColumn(what), *columns, console=console) as progress:
        task = progress.add_task(what, total=steps, completed=start, said="")
        yield lambda step, loss: progress.update(task, completed=step, said="" if loss is None else f"loss {loss:.4g}")


def _said_once(steps: int, what: str) -> Callable[[int, float | None], None]:
    """Return a function that tells the time left when it is called for the second time: the first step is slower."""
    seen: list[tuple[int, float]] = []

    def tell(step: int, loss: float | None) -> None:
        if len(seen) == 2:
            return
        seen.append((step, time.monotonic()))
        if len(seen) == 2 and step > seen[0][0]:
            each = (seen[1][1] - seen[0][1]) / (step - seen[0][0])
            if (left := each * (steps - step)) >= WORTH_SAYING:
                log.info("%s: step %d of %d, %.2g s a step; %s left", what, step, steps, each, lasting(left))

    return tell


def lasting(seconds: float) -> str:
    """Say how long something takes.

    Examples
    --------
    >>> lasting(40), lasting(400), lasting(40_000)
    ('about 40 s', 'about 7 min', 'about 11 h')
    """
    for length, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * length:
            return f"about {seconds / length:.0f} {unit}"
    return f"about {seconds:.0f} s"
