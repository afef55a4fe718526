"""The files of a saved model: replaced together, and found again by their digests."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cellflow.errors import CheckpointError
from cellflow.files import committed
from cellflow.training.checkpoint import file_digest, load_tensors, save_tensors

DIGESTS = "sha256"
"""Key of the description that holds the digest of each file of tensors, by name."""
_DIGITS, _NEW = 16, "new"
"""How much of its digest is in the name under which a file waits, and what is before the digest is known."""


def save_model(
    description: Path, about: Mapping[str, Any], files: Mapping[str, tuple[str, Mapping[str, Tensor]] | None]
) -> None:
    """Replace a saved model in one step: wherever this is stopped, the old model is found or the new one.

    New tensors wait under a name with their digest. The description makes them valid, as it is one file and names
    their digests; then they get their own names, and files of tensors that are no longer described go.

    Parameters
    ----------
    description
        The file with everything else, as JSON; those with tensors lie beside it.
    about
        What it says.
    files
        For each file of tensors their kind and the tensors; ``None`` for a file that is not to be there.
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


def load_tensors_of(path: Path, digests: Mapping[str, str], *, kind: str) -> dict[str, Tensor]:
    """Read tensors that a description names: under their file's own name, or under that with its digest.

    Parameters
    ----------
    path
        The file, by its own name.
    digests
        Those of the description; models that were saved before there were any have none, and nothing is compared.
    kind
        What the tensors must be.

    Raises
    ------
    CheckpointError
        When the file is missing, damaged, of another kind, or of another model.
    """
    digest = digests.get(path.name)
    known = [] if digest is None else [path, _waiting(path, digest)]
    fitting = [file for file in known if file.is_file() and file_digest(file) == digest]
    tensors, about = load_tensors(fitting[0] if fitting else path)
    if about.get("kind") != kind:
        raise CheckpointError(f"{path} does not hold the weights of a {kind}, but of a {about.get('kind')}.")
    if known and not fitting:
        raise CheckpointError(
            f"{path} is not the file that was saved with this model: it was changed, damaged or copied alone. Copy the "
            "whole folder again, or save the model again."
        )
    return tensors


def _waiting(path: Path, digest: str) -> Path:
    return path.with_name(f"{path.stem}.{digest[:_DIGITS]}{path.suffix}")


def _clear(path: Path) -> None:
    """Remove what saves that were stopped left of a file."""
    left = re.compile(rf"\.?{re.escape(path.stem)}\.({_NEW}|[0-9a-f]{{{_DIGITS}}})(\..*)?{re.escape(path.suffix)}")
    for file in path.parent.iterdir():
        if left.fullmatch(file.name):
            file.unlink(missing_ok=True)
