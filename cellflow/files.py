"""Files that are replaced as a whole: a reader finds the old file or the new one, after a crash too."""

import errno
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What a full disk, a used-up quota and a limit on the size of files are reported as."""
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
"""What a folder that may not be written to is reported as."""


UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
"""What some network drives report where they cannot flush a folder, or lock a file."""

_NUMBERED = re.compile(r"(?:errno = |os error )(\d+)")
"""How HDF5 and safetensors say which error of the system they met: they raise none of Python's."""


_LONGEST = 255
"""Bytes of the longest name that file systems take."""


def path_of(given: str | Path, *, name: str) -> Path:
    """Return a path, after checking that it can be one.

    Raises
    ------
    ValueError
        When it is empty, contains a null character, or a name in it is longer than any file system takes.

    Examples
    --------
    >>> path_of("runs/first", name="folder").parts
    ('runs', 'first')
    """
    parts = Path(given).parts
    if not str(given).strip() or "\0" in str(given) or any(len(os.fsencode(part)) > _LONGEST for part in parts):
        raise ValueError(f"Expected `{name}` as the path of a file or folder; found {str(given)[:60]!r}.")
    return Path(given)


@contextmanager
def committed(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary name in the folder of ``path``; what is written under it becomes ``path`` at the end.

    The file is on the disk before it is renamed, and renaming is one step, so that ``path`` is never half written. On
    an error it stays as it was. The temporary name has the same suffix, as writers choose their format by it.

    Parameters
    ----------
    path
        The file; its folder is created if it does not exist.
    durable
        Whether to wait until the file is on the disk, and to remove what a killed process left under a temporary name.
        If not, as for thousands of images, a file may be lost when the machine fails, but not when the process does.

    Raises
    ------
    OSError
        When it cannot be written: of the same class as the original error, with the file, the cause and the next step.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with committed(path) as partial:
    ...     written = partial.write_text("all of it")
    >>> path.read_text(), [file.name for file in path.parent.iterdir()]
    ('all of it', ['notes.txt'])
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}-{threading.get_ident()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if durable:
            _clear(path)
        yield partial
        if durable:
            _flush(partial)
        partial.replace(path)
        if durable:
            _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:  # HDF5 has no class for a full disk
        cause = system_error(error)
        if cause is None:
            raise
        raise unwritable(path, cause) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def system_error(error: Exception) -> OSError | None:
    """Return the system error that an error is or, by its message, comes from; ``None`` if there is none.

    Examples
    --------
    >>> system_error(RuntimeError("unable to extend file properly, errno = 28"))
    OSError(28, 'No space left on device')
    """
    if isinstance(error, OSError):
        return error
    found = _NUMBERED.search(str(error))
    return None if found is None else OSError(int(found[1]), os.strerror(int(found[1])))


def unwritable(path: Path, error: OSError) -> OSError:
    """Return an error of the same class that says what could not be written, why, and what to do.

    Examples
    --------
    >>> str(unwritable(Path("run/model.json"), OSError(errno.ENOSPC, "No space left on device")))[:72]
    'run/model.json could not be written: No space left on device. Free some '
    """
    if error.errno in FULL:
        cure = "Free some space, or choose another folder"
    elif error.errno in FORBIDDEN:
        cure = "Choose a folder that you may write to"
    else:
        cure = "Choose another folder"
    reason = os.strerror(error.errno) if error.errno else error  # in the words of the system, not of a library
    found = type(error)(f"{path} could not be written: {reason}. {cure}; what was saved before is unchanged.")
    found.errno = error.errno
    return found


def _clear(path: Path) -> None:
    """Remove what processes that were killed left under temporary names for the file."""
    for left in path.parent.glob(f".{escape(path.stem)}.*.partial{escape(path.suffix)}"):
        left.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the drive knows how to."""
    if os.name == "nt":  # folders cannot be opened there
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(number)
