"""One process at a time in the folder of a run or of a model."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cellflow.errors import CheckpointError
from cellflow.files import UNSUPPORTED, committed, unwritable

LOCK, HOLDER = ".lock", ".lock.json"
"""The locked file, and the one that says by whom it is locked."""
A_SAVE = 10.0
"""Seconds to wait for another process that saves."""


@contextmanager
def locked(folder: str | Path, *, wait: float = 0.0) -> Iterator[None]:
    """Keep other processes out of a folder that is written to.

    The system releases the lock of a killed process. Without system locks, as on some network drives, the lock of a
    process that no longer runs on this machine is taken over. Locks may be nested within one thread.

    Parameters
    ----------
    folder
        The folder; created if it does not exist, and removed again if nothing was written.
    wait
        Seconds to wait for the process that holds it.

    Raises
    ------
    CheckpointError
        When another process holds it; the message names its number and its machine.
    OSError
        When the folder cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with locked(folder):
    ...     json.loads((folder / ".lock.json").read_text())["pid"] == os.getpid()
    True
    >>> list(folder.iterdir())
    []
    """
    from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

    folder = Path(folder).resolve()
    with ExitStack() as stack:
        try:
            if not folder.exists():
                folder.mkdir(parents=True)
                stack.callback(_remove_empty, folder)
            lock: BaseFileLock = FileLock(folder / LOCK, is_singleton=True)
            nested = lock.is_locked
            try:
                lock.acquire(timeout=wait)
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                lock = SoftFileLock(folder / f"{LOCK}.soft", is_singleton=True)
                nested = lock.is_locked
                lock.acquire(timeout=wait)
            stack.callback(lock.release)
            if not nested:
                stack.callback(_remove, folder / LOCK)
                stack.callback(_remove, folder / HOLDER)
                _sign(folder / HOLDER)
        except Timeout as error:
            raise CheckpointError(_refusal(folder)) from error
        except OSError as error:
            raise unwritable(folder, error) from error
        yield


def _sign(path: Path) -> None:
    """Write who holds the folder, by which it is known that files can be replaced there."""
    with committed(path) as partial:
        partial.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))


def _refusal(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_text())
        who = f"process {holder['pid']} on {holder['host']}"
        here = holder["host"] == socket.gethostname()
    except (OSError, ValueError, KeyError, TypeError):  # it is being written
        who, here = "another process", True
    cure = "" if here else f" If that process is gone, remove {folder / LOCK}."
    return f"{folder} is in use by {who}. Wait until it has ended, or choose another folder.{cure}"


def _remove(path: Path) -> None:
    with suppress(OSError):  # some systems remove no file that is open
        path.unlink()


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
