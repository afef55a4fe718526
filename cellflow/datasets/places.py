"""Where data sets lie on this machine: folders of the user's, and the cache."""

import os
from pathlib import Path


def folders(room: str) -> list[Path]:
    """Return where to look for data: below ``CELLFLOW_DATA``, in its folder ``room`` first, then in the cache."""
    named = os.environ.get("CELLFLOW_DATA")
    return [*([Path(named, room), Path(named)] if named else []), cache()]


def cache() -> Path:
    """Return the folder for downloads: ``CELLFLOW_CACHE``, else ``cellflow`` in the user's cache."""
    named = os.environ.get("CELLFLOW_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "cellflow")
