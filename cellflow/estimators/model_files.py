"""The files of a saved model: replaced together, and found again by their digests."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cellflow.errors import CheckpointError
from cellflow.files import committed
from cellflow.training.checkpoint import file_digest, save_tensors

DIGESTS = "digests"
"""Key of the description that holds the digest of each file of tensors, by name."""
_DIGITS, _NEW = 16, "new"
"""How much of its digest is in the name under which a file waits, and what is before the digest is known."""


def save_model(
    description: Path, about: Mapping[str, Any], files: Mapping[str, tuple[str, Mapping[str, Tensor]] | None]
) -> None:
    """Replace a saved model in one step: if interrupted, either the old or the new model is there.

    New tensors are first written under a name with their digest. The description, a single file with these digests,
    makes them valid; then they get their final names, and files of tensors that are no longer described are removed.

    Parameters
    ----------
    description
        The file with everything else, as JSON; files with tensors lie beside it.
    about
        What it says.
    files
        For each file of tensors its kind and the tensors; ``None`` for a file that should not exist.
    """
    folder, digests = description.parent, {}
    for name, known in files.items():
        if known is not None:
            fresh = _waiting(folder / name, _NEW)
            digests[name] = save_tensors(fresh, known[1], {"kind": known[0]})
            fresh.replace(_waiting(folder / name, digests[name]))
    with committed(description) as partial:
        partial.write_text(json.dumps({**about, DIGESTS: digests}, indent=2), encoding="utf-8")
    for name in files:
        if name in digests:
            _waiting(folder / name, digests[name]).replace(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
        _clear(folder / name)


def model_file(path: Path, digests: Mapping[str, str]) -> Path:
    """Return the file of tensors that a description names: under its final name, or still under that with its digest.

    Parameters
    ----------
    path
        The file under its own name.
    digests
        Those of the description, by name; none in models that were saved before there were any.
    """
    digest = digests.get(path.name)
    if digest is not None and _waiting(path, digest).is_file() and not _is(path, digest):
        return _waiting(path, digest)  # the save was stopped before it had its own name
    return path


def refuse_other(file: Path, name: str, digests: Mapping[str, str]) -> None:
    """Refuse a file of tensors that was not saved with the description. Call it last: its error is the least specific.

    Parameters
    ----------
    file
        What `model_file` returned.
    name
        Name of the file in the description.
    digests
        Those of the description.

    Raises
    ------
    CheckpointError
        When the digest of the file is another.
    """
    if name in digests and not _is(file, digests[name]):
        raise CheckpointError(
            f"{file} is not the file that was saved with this model: it was changed, damaged or copied alone. Copy the "
            "whole folder again, or save the model again."
        )


def _is(file: Path, digest: str) -> bool:
    return file.is_file() and file_digest(file) == digest


def _waiting(path: Path, digest: str) -> Path:
    return path.with_name(f"{path.stem}.{digest[:_DIGITS]}{path.suffix}")


def _clear(path: Path) -> None:
    """Remove what saves that were stopped left of a file."""
    left = re.compile(rf"\.?{re.escape(path.stem)}\.({_NEW}|[0-9a-f]{{{_DIGITS}}})(\..*)?{re.escape(path.suffix)}")
    for file in path.parent.iterdir():
        if left.fullmatch(file.name):
            file.unlink(missing_ok=True)
