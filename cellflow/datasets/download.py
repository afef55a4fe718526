"""Folders of data on this machine, and downloads into them: a file arrives whole, or not at all."""

import os
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

TIMEOUT = 30.0
"""Seconds without an answer after which a download fails."""

_CHUNK = 1 << 18


def folders(room: str) -> list[Path]:
    """Return where to look for data: below ``CELLFLOW_DATA``, first in its folder ``room``, then in the cache."""
    named = os.environ.get("CELLFLOW_DATA")
    return [*([Path(named, room), Path(named)] if named else []), cache()]


def cache() -> Path:
    """Return the folder for downloads: ``CELLFLOW_CACHE``, else ``cellflow`` in the user's cache."""
    named = os.environ.get("CELLFLOW_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "cellflow")


def download(url: str, path: Path) -> None:
    """Write what ``url`` holds to ``path``, showing a progress bar on the error stream.

    Raises
    ------
    OSError
        When the server cannot be reached, refuses, stops answering, or closes before the announced length. A partial
        download is removed.
    """
    try:
        _stream(url, path)
    except HTTPError as error:
        error.close()  # it holds the connection open
        raise
    except HTTPException as error:
        path.unlink(missing_ok=True)
        message = f"{url} broke off ({error!r}). Try again."
        raise OSError(message) from error
    except BaseException:  # Ctrl-C leaves nothing behind either
        path.unlink(missing_ok=True)
        raise


def _stream(url: str, path: Path) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with (
        urllib.request.urlopen(url, timeout=TIMEOUT) as answer,
        path.open("wb") as file,
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        announced = answer.headers.get("Content-Length")
        expected = None if announced is None else int(announced)
        task = progress.add_task(path.name, total=expected)
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            progress.advance(task, len(chunk))
    _check_length(url, path.stat().st_size, expected)


def _check_length(url: str, found: int, expected: int | None) -> None:
    if expected is not None and found != expected:
        message = f"{url} ended after {found} of {expected} bytes. Try again."
        raise OSError(message)
