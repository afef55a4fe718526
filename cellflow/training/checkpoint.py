"""Saving and loading: tensors as safetensors, everything else as JSON; loading runs no code."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cellflow.errors import CheckpointError
from cellflow.files import committed, system_error
from cellflow.training import resumption
from cellflow.training.history import History
from cellflow.training.kinds import shown
from cellflow.training.reading import check_finite, check_tensors, read_header
from cellflow.training.recipe import Recipe

STATE = "training.safetensors"
"""Name of the file with the training state."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """Write tensors, with JSON in the header, atomically: a reader sees either the old or the new file.

    Returns
    -------
    str
        The SHA-256 of the file.

    Raises
    ------
    OSError
        When the file cannot be written; the message names the cause, and what to do.
    CheckpointError
        When there is not enough memory for a copy of the tensors, or they cannot be kept as safetensors.

    Examples
    --------
    >>> import tempfile, torch
    >>> path = Path(tempfile.mkdtemp()) / "example.safetensors"
    >>> digest = save_tensors(path, {"weight": torch.ones(2)}, {"step": 3})
    >>> load_tensors(path), digest == file_digest(path)
    (({'weight': tensor([1., 1.])}, {'step': 3}), True)
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    header = {"cellflow": json.dumps(dict(about))}
    with committed(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode  # by the user's umask; safetensors makes files private
        try:
            save_file(_apart(tensors), partial, metadata=header)
        except SafetensorError as error:
            raise system_error(error) or CheckpointError(f"{path} could not be written: {error}.") from error
        except MemoryError as error:
            raise CheckpointError(f"{path} could not be written: no memory is left. Use a smaller network.") from error
        partial.chmod(mode)
        return file_digest(partial)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors on the CPU, those that share their memory with an earlier one as copies."""
    found, taken = {}, set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        found[name] = value.clone() if place in taken else value
        taken.add(place)
    return found


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises
    ------
    CheckpointError
        When the file is missing, truncated, or was not written by cellflow.
    """
    from safetensors import safe_open

    about = read_header(path).about
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 (not a mapping)


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], *, source: Path) -> None:
    """Copy tensors into a module of the same names and shapes.

    Raises
    ------
    CheckpointError
        When names or shapes differ.
    """
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise CheckpointError(f"The weights in {source} do not fit this model: {first} ...") from error


def refuse_existing(path: Path) -> None:
    """Raise if a training would be overwritten.

    Raises
    ------
    FileExistsError
        When the file exists.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists already. Continue with `resume=True`, or choose another folder.")


LATER = {"kernel_bytes": 2**31}
"""Settings that parts had not always, and what they stand for where a training was begun without."""


class TrainingState:
    """State of a training: weights, their average, optimiser, step and history.

    Processes that train together have a batch each, so one process with ``accumulate=2`` can resume the training of
    two.
    """

    def __init__(
        self, field: nn.Module, recipe: Recipe, seed: int, about: Mapping[str, Any], *, processes: int = 1
    ) -> None:
        self.field, self.recipe, self.seed, self._processes = field, recipe, seed, processes
        self._settings = {"recipe": asdict(recipe) | {ACCUMULATE: recipe.accumulate * processes}, **about}
        self.optimizer = recipe.optimizer(field)
        self._weights: list[Tensor] = list(field.parameters())
        self._average = [weight.detach().clone() for weight in self._weights] if recipe.ema else []
        self.step = 0
        self.history = History()

    def advance(self) -> None:
        """Count one training step, and update the average."""
        self.step += 1
        if self._average:
            self.recipe.update_average(self._average, self._weights, step=self.step)

    def settle(self) -> None:
        """Copy the averaged weights into the field."""
        self.field.eval()
        with torch.no_grad():
            for weight, average in zip(self._weights, self._average, strict=bool(self._average)):
                weight.copy_(average)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Hold the averaged weights in the field temporarily, and restore the current ones."""
        current = [weight.detach().clone() for weight in self._weights]
        self.settle()
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, value in zip(self._weights, current, strict=True):
                    weight.copy_(value)
            self.field.train()

    def require_within(self, steps: int) -> None:
        """Raise if more steps were already taken than requested."""
        if steps < 1 or self.step > steps:
            raise ValueError(f"Expected steps >= {max(self.step, 1)}; found {steps} ({self.step} were taken already).")

    def save(self, path: Path) -> None:
        """Write the whole state to one file."""
        tensors = {f"field.{name}": value for name, value in self.field.state_dict().items()}
        tensors |= {f"average.{k}": value for k, value in enumerate(self._average)}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
        about = {"kind": "training", "step": self.step, "seed": self.seed, "settings": self._settings}
        about["history"] = self.history.columns
        about["behind"] = resumption.behind(tensors, len(self._weights), step=self.step)
        save_tensors(path, tensors, about)

    def load(self, path: Path) -> None:
        """Load the state in ``path``.

        Raises
        ------
        CheckpointError
            When it is missing, damaged, or of another kind, model or seed.
        """
        header = read_header(path)
        about = header.about
        resumption.check_stated(about, source=path)
        changed = _changes(about["settings"], json.loads(json.dumps(self._settings)))
        changed.sort(key=lambda said: not said.startswith("files."))  # a changed file is the cause of the rest
        if changed:
            self._check_batches(about["settings"], path)
            more = f"; and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise CheckpointError(f"{path} was trained with {'; '.join(changed[:3])}{more}. Resume with the same.")
        if about["seed"] != self.seed:
            raise CheckpointError(f"{path} comes from another seed. Resume with the seed it was started with.")
        weights, averaged = self.field.state_dict(), bool(self._average)
        expected = resumption.expected_tensors(
            weights, self._weights, averaged=averaged, found=header.tensors, about=about
        )
        check_tensors(header.tensors, expected, source=path, model="training", exact=True)
        tensors, _ = load_tensors(path)
        check_finite(tensors, {f"field.{name}": value for name, value in weights.items()}, source=path)
        resumption.check_optimizer(tensors, about, len(self._weights), source=path)
        groups: dict[str, dict[str, Tensor]] = {"field": {}, "average": {}, "optimizer": {}}
        for name, value in tensors.items():
            group, rest = name.split(".", 1)
            groups[group][rest] = value
        load_weights(self.field, groups["field"], source=path)
        for k, average in enumerate(self._average):
            average.copy_(groups["average"][str(k)])
        slots = _slots(groups["optimizer"])
        for index, weight in enumerate(self._weights):  # laid out in memory as the weights are: the fused step minds
            for slot, value in slots.get(index, {}).items():
                if value.shape == weight.shape:
                    slots[index][slot] = torch.empty_like(weight).copy_(value)
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": slots})
        self.step, self.history = about["step"], History(about["history"])

    def _check_batches(self, then: Mapping[str, Any], path: Path) -> None:
        """Raise where a step took another number of batches, by as many processes."""
        kept, own = then.get("recipe"), self.recipe.accumulate * self._processes
        before = kept.get(ACCUMULATE) if isinstance(kept, Mapping) else None
        if isinstance(before, int) and before != own and self._processes * before > 1:
            raise CheckpointError(
                f"{path} was trained on {before} batch(es) in each step; {self._processes} process(es) with "
                f"recipe.accumulate={self.recipe.accumulate} would take {own}. Resume with as many processes as "
                f"before, or such that the processes times recipe.accumulate are {before}."
            )


def _slots(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, slot = name.split(".", 1)
        slots.setdefault(int(index), {})[slot] = value
    return slots


ACCUMULATE = "accumulate"
_KINDS = ("part", "partial", "class", "custom")
"""Under what a setting that is a part has its name."""


def _changes(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return which settings differ, those of parts by their own names."""
    gone = sorted(then.keys() - now.keys())
    found = [f"{prefix}{key[:100]} {shown(then[key])}, which is no longer a setting" for key in gone]
    for key, value in now.items():
        before = then.get(key, LATER.get(key))
        if isinstance(value, dict) and isinstance(before, dict):
            kinds = [next((side[kind] for kind in _KINDS if kind in side), None) for side in (before, value)]
            values = [side.get("values", side) for side in (before, value)]
            if kinds[0] == kinds[1] and isinstance(values[0], dict):
                found += _changes(values[0], values[1], f"{prefix}{key}.")
            else:
                found.append(f"{prefix}{key} {str(kinds[0])[:100]}, not {kinds[1]}")
        elif value != before:
            found.append(f"{prefix}{key} {shown(before)}, not {shown(value)}")
    return found
