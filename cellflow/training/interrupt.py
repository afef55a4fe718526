"""Ctrl-C, put off until a step is finished."""

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType


class Interrupt:
    """While open, the first Ctrl-C sets ``pending``; a second one stops at once, as usual.

    Whoever opens it looks at ``pending`` and raises. A Ctrl-C that comes after the last look is passed on as it closes:
    to the `Interrupt` around it, or as the usual KeyboardInterrupt. None is lost.

    Outside the main thread, where Python delivers no signals, nothing changes.

    Examples
    --------
    >>> import signal
    >>> try:
    ...     with Interrupt() as interrupt:
    ...         signal.raise_signal(signal.SIGINT)
    ...         print(interrupt.pending)
    ... except KeyboardInterrupt:
    ...     print("stopped")
    True
    stopped
    """

    def __init__(self) -> None:
        self.pending = False

    def __enter__(self) -> "Interrupt":
        self._active = threading.current_thread() is threading.main_thread()
        if self._active:
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            signal.signal(signal.SIGINT, self._previous)
            if self.pending and kind is None:
                self._pass_on()

    def _pass_on(self) -> None:
        if callable(self._previous):
            self._previous(signal.SIGINT, None)
        else:  # the process was started with Ctrl-C ignored, as in the background; whoever opened this wanted it
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pending = True
        signal.signal(signal.SIGINT, self._previous)


def goodbye(step: int, steps: int, folder: str | Path | None) -> str:
    """Say after which step a training stopped, and how to go on.

    Examples
    --------
    >>> goodbye(3, 9, "run")
    'Stopped after step 3 of 9. Saved in run; go on with `resume=True`.'
    """
    if folder is None:
        return f"Stopped after step {step} of {steps}; nothing was saved, as no `folder` was given."
    return f"Stopped after step {step} of {steps}. Saved in {folder}; go on with `resume=True`."
