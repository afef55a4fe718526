"""Reading files that anybody may have written: JSON, and the headers of tensor files; what they claim is checked first.

Nothing here takes more memory than the file itself justifies, and no file has Python recurse deeper than `DEEPEST`.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cellflow.errors import CheckpointError

MOST_BYTES = 100_000_000
"""Most bytes of JSON: as many as safetensors allows a header."""
_MOST = {b"[": 1_000_000, b"{": 100_000, b'"': 2_000_000, b",": 5_000_000}
"""How often what takes far more bytes in memory than in the file may occur: lists, objects, texts and values."""
DEEPEST = 64
"""How deep lists and objects may be nested; cellflow's own reach a dozen."""
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_HUGE = re.compile(rb"(?<![0-9.])[0-9]{21}")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
DTYPES = {
    "F32": torch.float32, "F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""How safetensors calls the types of numbers that a state may hold."""


class Entry(NamedTuple):
    """What a header says of one tensor: the type of its numbers, in safetensors' words, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        found = 1
        for side in self.shape:
            found *= side
        return found


class Header(NamedTuple):
    """What a tensor file says it holds: the JSON that cellflow saved beside the tensors, and these, unread."""

    about: dict[str, Any]
    tensors: dict[str, Entry]


def read_json(path: Path) -> Any:
    """Return the contents of a JSON file.

    Raises
    ------
    CheckpointError
        When the file is missing, too large, nested too deeply, or not JSON.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "model.json"
    >>> _ = path.write_text("[" * 100_000)
    >>> read_json(path)
    Traceback (most recent call last):
    cellflow.errors.CheckpointError: ...model.json is damaged or was not written by cellflow: its lists and objects are
    nested more than 64 deep. Use another copy.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}). Use another copy.") from error
    return parse_json(text, source=path)


def parse_json(text: str | bytes, *, source: object) -> Any:
    """Parse JSON; ``source`` is what messages call the file.

    Raises
    ------
    CheckpointError
        When it is too large, nested too deeply, or not JSON.

    Examples
    --------
    >>> parse_json('{"loss": [0.5, NaN]}', source="model.json")
    {'loss': [0.5, nan]}
    """
    damaged = f"{source} is damaged or was not written by cellflow"
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > MOST_BYTES:
        raise CheckpointError(f"{damaged}: its JSON is larger than {MOST_BYTES:,} bytes. Use another copy.")
    for sign, most in _MOST.items():
        if data.count(sign) > most:
            raise CheckpointError(f"{damaged}: it holds `{sign.decode()}` more than {most:,} times. Use another copy.")
    outside = _TEXT.sub(b"", data)
    if _depth(outside) > DEEPEST:
        raise CheckpointError(
            f"{damaged}: its lists and objects are nested more than {DEEPEST} deep. Use another copy."
        )
    if _HUGE.search(outside):
        raise CheckpointError(f"{damaged}: it holds a whole number of more than 20 digits. Use another copy.")
    try:
        return json.loads(data.decode())
    except ValueError as error:
        raise CheckpointError(f"{damaged}: it is not JSON ({error}). Use another copy.") from error


def _depth(outside: bytes) -> int:
    """Return how deep brackets are nested, in JSON without its texts."""
    brackets = np.frombuffer(outside.translate(None, _NO_BRACKETS), dtype=np.uint8)
    opening = (brackets == ord("[")) | (brackets == ord("{"))
    return int(np.cumsum(np.where(opening, 1, -1)).max(initial=0))


def read_header(path: Path) -> Header:
    """Return the header of a tensor file that cellflow saved, without reading the tensors.

    Raises
    ------
    CheckpointError
        When the file is missing, truncated, or was not written by cellflow.

    Examples
    --------
    >>> import tempfile
    >>> from cellflow.training.checkpoint import save_tensors
    >>> path = Path(tempfile.mkdtemp()) / "example.safetensors"
    >>> _ = save_tensors(path, {"weight": torch.ones(2, 3)}, {"step": 3})
    >>> read_header(path)
    Header(about={'step': 3}, tensors={'weight': Entry(dtype='F32', shape=(2, 3))})
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"No file {path}. Name the folder of a run that was saved by cellflow.")
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            tensors = {name: Entry(each.get_dtype(), tuple(each.get_shape())) for name, each in slices.items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file ({error}). Use another copy.") from error
    if "cellflow" not in said:
        raise CheckpointError(f"{path} holds tensors, but was not saved by cellflow.")
    about = parse_json(said["cellflow"], source=path)
    if not isinstance(about, dict):
        raise CheckpointError(f"{path} holds tensors, but was not saved by cellflow: expected an object beside them.")
    return Header(about, tensors)


def check_tensors(
    found: Mapping[str, Entry], expected: Mapping[str, Tensor], *, source: object, model: str, exact: bool = False
) -> None:
    """Refuse tensors whose names, shapes or number types differ from those that they are copied into.

    Parameters
    ----------
    found
        What the header of the file says.
    expected
        Tensors of the same names, perhaps without memory, on torch's device ``"meta"``.
    source
        What messages call the file.
    model
        What the tensors belong to, in words.
    exact
        Whether single and double precision are distinguished; otherwise all tensors may be in either.

    Raises
    ------
    CheckpointError
        With the first difference.

    Examples
    --------
    >>> check_tensors({"a": Entry("F32", (2,))}, {"a": torch.ones(3)}, source="x.safetensors", model="model")
    Traceback (most recent call last):
    cellflow.errors.CheckpointError: The weights in x.safetensors do not fit this model: size mismatch in `a`, expected
    (3,), found (2,). Use the file that was saved with it.
    """

    def refuse(difference: str) -> None:
        raise CheckpointError(
            f"The weights in {source} do not fit this {model}: {difference}. Use the file that was saved with it."
        )

    for what, names in (("missing", expected.keys() - found.keys()), ("unexpected", found.keys() - expected.keys())):
        if names:
            refuse(f"{what} tensor `{min(names)[:100]}`" + (f" and {len(names) - 1} more" if len(names) > 1 else ""))
    for name, tensor in expected.items():
        if found[name].shape != tuple(tensor.shape):
            refuse(f"size mismatch in `{name}`, expected {tuple(tensor.shape)}, found {found[name].shape}")
    own = {name: _called(tensor) for name, tensor in expected.items()}
    floats = {name for name, dtype in own.items() if dtype in _FLOATS}
    given = {found[name].dtype for name in floats}
    if not exact and len(given) == 1 and given < _FLOATS:
        own |= dict.fromkeys(floats, given.pop())
    for name, dtype in own.items():
        if found[name].dtype != dtype:
            refuse(f"expected {dtype} in `{name}`, found {found[name].dtype}")


def check_finite(tensors: Mapping[str, Tensor], made: Mapping[str, Tensor], *, source: object) -> None:
    """Refuse tensors that hold NaN or infinity, unless a network has them by design, as in a mask.

    Parameters
    ----------
    tensors
        What was read.
    made
        Tensors of the same names before loading, if there are any.
    source
        What messages call the file.

    Raises
    ------
    CheckpointError
        With the first such tensor.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        odd = ~torch.isfinite(tensor)
        if odd.any() and not (name in made and not torch.isfinite(made[name].detach().cpu())[odd].any()):
            raise CheckpointError(f"`{name}` in {source} holds NaN or infinity. Use another copy, or train again.")


_FLOATS = {"F32", "F64"}


def _called(tensor: Tensor) -> str:
    return next((name for name, dtype in DTYPES.items() if dtype == tensor.dtype), str(tensor.dtype))
