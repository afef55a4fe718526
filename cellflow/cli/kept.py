"""The settings of a finished run, which may come from an untrusted source: data of known kinds, and no code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellflow.cli import runs
from cellflow.cli.checks import MISSING, check_part, leaves
from cellflow.cli.compose import defaults
from cellflow.cli.kinds import check
from cellflow.cli.parts import TARGET
from cellflow.cli.schema import PARTS, SETTINGS, kind_of
from cellflow.cli.settings import Settings
from cellflow.errors import CheckpointError

SOLVERS = tuple(f"cellflow.integrate.{name}" for name in ("Adaptive", "Fixed", "Jumps", "Noisy"))
"""The only parts that are built from the settings of a run: the others come from the saved model."""


def kept_settings(folder: Path, command: str) -> Settings:
    """Return the settings of a run; missing ones have the defaults of its command.

    Parameters
    ----------
    folder
        The folder of the run.
    command
        The command that fits such a run: ``"fit"``, ``"translate"`` or ``"generate"``.

    Raises
    ------
    CheckpointError
        When they cannot be read, or have other kinds.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> runs.write_settings(folder, {"steps": 3, "data": {"path": "${oc.env:HOME}"}})
    >>> cfg = kept_settings(folder, "fit")
    >>> cfg.steps, cfg.data.path, cfg.data.rep
    (3, '${oc.env:HOME}', 'X_pca')
    """
    then = runs.read_settings(folder)
    found = {key: None if value is MISSING else value for key, value in defaults(command).items()}
    group = found.get("data")
    if isinstance(group, Mapping):
        if not isinstance(then.get("data", {}), Mapping):
            raise CheckpointError(f"{folder / runs.CONFIG}: expected settings in `data`; found {then['data']!r}.")
        given = {key: None if value is MISSING else value for key, value in group.items()}
        then["data"] = given | then.get("data", {})
    found |= then
    try:
        _check(found, command)
    except ValueError as error:
        raise CheckpointError(f"{folder / runs.CONFIG} holds invalid settings: {error}") from error
    return Settings(found)


def _check(found: dict[str, Any], command: str) -> None:
    for name, value in leaves(found):
        if name.split(".")[0] not in PARTS and name in SETTINGS:
            check(value, kind_of(name, command) | None, name=name)
    solver = found.get("solver")
    if not isinstance(solver, Mapping) or TARGET not in solver:
        steps = solver.get("steps") if isinstance(solver, Mapping) else None
        found["solver"] = {"steps": check(steps, SETTINGS["solver.steps"], name="solver.steps")}
    elif solver[TARGET] not in SOLVERS:
        raise ValueError(f"a solver is one of {', '.join(SOLVERS)}; found {solver[TARGET]!r}.")
    else:
        check_part(solver, "solver")
