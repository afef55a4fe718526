"""Command lines that nobody thought of: a good one, of which some words are changed, left out or added."""

import contextlib
import io
import os
import random
import re
import shutil
import tempfile
import warnings
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Literal, get_args, get_origin
from unittest import mock

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from cellflow.cli import COMMANDS, main
from cellflow.cli.checks import leaves
from cellflow.cli.compose import defaults
from cellflow.cli.kinds import read
from cellflow.cli.schema import SETTINGS, kind_of

FAST_CELLS = ["steps=2", "batch_size=8", "progress=false", "device=cpu", "network.width=8", "validate=false"]
FAST_IMAGES = [
    "steps=2", "batch_size=4", "progress=false", "device=cpu", "network=unet", "network.width=8",
    "network.multipliers=[1]", "network.blocks=1", "solver.steps=1", "threads=1", "holdout=0.4", "path.sigma=0.1",
]  # fmt: skip
GOOD = {
    "fit": ["data.path=@cells", "data.time_key=day", "out=@out", *FAST_CELLS],
    "demo": ["out=@out", *FAST_CELLS],
    "interpolate": ["model=@run", "at=3", "out=@out", "solver.steps=2"],
    "velocity": ["model=@run", "out=@out"],
    "fate": ["model=@run", "groupby=kind", "out=@out", "n_samples=2", "solver.steps=2", "progress=false"],
    "report": ["model=@run"],
    "distill": ["model=@run", "steps=2", "progress=false", "device=cpu"],
    "perturb": [
        "data.path=@cells",
        "conditions.treatment=kind",
        "conditions.control=a",
        "out=@out",
        *FAST_CELLS,
    ],
    "translate": ["source=@dark", "target=@bright", "out=@out", *FAST_IMAGES],
    "generate": ["data=@dark", "out=@out", *FAST_IMAGES],
}
"""Lines that end well, and soon."""
USES = [
    ("perturb", ["model=@treated", "condition.kind=b", "out=@out", "solver.steps=2", "progress=false"]),
    ("translate", ["model=@translated", "input=@dark", "out=@out", "solver.steps=1"]),
    ("generate", ["model=@generated", "n=2", "out=@out", "solver.steps=1"]),
    ("report", ["model=@translated"]),
    ("distill", ["model=@generated", "steps=2", "progress=false", "device=cpu"]),
]
LETTERS = "ab1.-+_ ,;:=()[]{}'\"\\$%&#!?*~^@/|<>`\t\né漢\u202e"
LONG = ("steps", "depth", "blocks", "n", "n_samples", "n_seeds", "accumulate", "warmup", "learning_rate")
"""Settings for which a large number is long work, or a training that fails by itself, rather than a mistake."""
PARTS = {
    "path": ["linear", "trigonometric", "brownian_bridge", "variance_preserving", "Linear"],
    "coupling": ["auto", "exact", "independent", "unbalanced", "sinkhorn", "sinkhron"],
    "curve": ["mean", "spline", "straight", "curved"],
    "network": ["mlp", "unet", "null", "transformer"],
    "solver": ["default", "fixed", "adaptive", "jumps", "noisy", "rk4"],
    "recipe": ["default", "fast"],
}
INNER = [
    "path.sigma", "coupling.epsilon", "coupling.relaxation", "coupling.tolerance", "curve.bend", "curve.spline",
    "network.width", "network.depth", "network.multipliers", "network.attention", "network.dropout", "solver.method",
    "solver.steps", "solver.rtol", "solver.atol", "recipe.learning_rate", "recipe.schedule", "recipe.warmup",
    "recipe.ema", "recipe.clip", "recipe.weight_decay", "recipe.accumulate", "recipe.precision", "recipe.compil",
    "condition.kind", "condition.day", "cells.kind", "condition.",
    "network._target_", "path._target_", "coupling.cost._target_",
]  # fmt: skip
VALUES = [
    "", "null", "true", "off", "yes", "maybe", "0", "1", "2", "3", "-1", "7", "0.5", "1.5", "-0.5", "1e-3",
    "1e30", "inf", "-inf", "nan", "[]", "[1]", "[1,2]", "[0,1,5]", "[a,b]", "[[1]]", "[1,", "{}", "{0: 1}",
    "{0: 1, 1: 2, 5: 3}", "{a: b}", "{", "]", "auto", "whole", "counts", "path", "shared", "separate", "day",
    "kind", "X", "X_pca", "X_tiny", "a", "b", "1d", "d5", "24h", "both", "before", "euler", "heun", "rk4",
    "dopri5", "torchdyn:rk4", "constant", "cosine", "bf16", "64", "folder", "mnist", "silhouettes", "cytd",
    "velocity", "noise", "trajectories", "lagrangian", "semigroup", "cpu", "cuda", "cuda:1", "meta", "@cells",
    "@run", "@dark", "@nothing", "@odd", "@text", "@translated", "'quoted'", "it's", "a=b", "a,b", "$HOME",
    "{kind: b}", "[{kind: b}]", "a+b", "control", "controls", "all", "@treated",
    "${seed}", "${oc.env:HOME}", "\\", "~", "%20", "(", "é漢", "\u202e", "x" * 300, "/", ".", "..",
    "cellflow.paths.Linear", "cellflow.networks.MLP", "cellflow.couplings.Euclidean", "os.system", "numpy.array",
]  # fmt: skip
LARGE = ["1000000000000", "99999999999999999999999", "1e308"]
FLAGS = [
    "-m", "--multirun", "--config-dir", "--config-dir=@dark", "--cfg=job", "--hydra-help", "-x", "--resume", "word",
    "=", "~seed", "+extra=1", "++seed=2", "hydra.run.dir=x", "hydra/launcher=joblib", "stepz=3", "seed", "",
]  # fmt: skip
FOREIGN = re.compile(
    r"Traceback|hydra(?![/.]launcher)|omegaconf|Lexer|ConfigKey|not in struct|could not override|\btorch\.|"
    r"\bnumpy\b|\bpandas\b|object at 0x|positional argument|keyword argument|NoneType|has no attribute|"
    r"unsupported operand|Errno|aten::",
    re.IGNORECASE,
)
"""Words of other packages, and of Python's own errors."""


@cache
def names(command: str) -> list[str]:
    """Return the settings of a command."""
    return [name for name, _ in leaves(defaults(command)) if not name.endswith("_")]


def line_of(number: int) -> tuple[str, ...]:
    """Return the command line of a number; a name that begins with @ stands for a file of `places`."""
    draw = random.Random(number)
    command, good = draw.choice([*GOOD.items(), *USES])
    words = list(good)
    for _ in range(draw.choice([1, 1, 2, 3])):
        kind = draw.choice(["value", "fitting", "fitting", "fitting", "text", "part", "inner", "flag", "drop", "typo"])
        if kind == "drop":
            words = words and without(draw.choice([each for each in words if "steps=" not in each] or words), words)
        elif kind == "part":
            group = draw.choice(sorted(PARTS))
            words.append(f"{group}={draw.choice(PARTS[group])}")
        elif kind == "flag":
            words.append(draw.choice(FLAGS))
        else:
            words.append(_setting(draw, command, kind))
    return (command, *words)


def without(word: str, words: list[str]) -> list[str]:
    """Return words but for one."""
    return [each for each in words if each != word]


def _setting(draw: random.Random, command: str, kind: str) -> str:
    """Return a setting with a value that may be right, or with any."""
    name = draw.choice(INNER if kind == "inner" else names(command))
    values = VALUES + ([] if name.rpartition(".")[2] in LONG else LARGE)
    if kind == "fitting" and name in SETTINGS:
        values = [each for each in values if _fits(each, kind_of(name, command))] or values
    if kind == "text":
        return f"{name}={''.join(draw.choices(LETTERS, k=draw.randrange(12)))}"
    if kind == "typo":
        spot = draw.randrange(len(name))
        return f"{name[:spot]}{name[spot + 1 :]}={draw.choice(values)}"
    return f"{name}={draw.choice(values)}"


def _fits(text: str, kind: object) -> bool:
    try:
        read(text, kind, name="")
    except ValueError:
        return False
    return True


LINES = st.integers(0, 2**62).map(line_of)
"""Lines by number: the same number is the same line, and near numbers are none the more alike."""


def ending(line: tuple[str, ...]) -> str | None:
    """Run a command line here; return what is wrong with how it ended, or ``None``."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), contextlib.chdir(folder):
        warnings.simplefilter("default")  # and as Python does outside of tests
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        words = _placed(line, Path(folder))
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said), _briefly(line[0]):
                code = main(words)
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is a failure
            return f"{type(error).__name__} out of the command: {str(error)[:200]} {_where(error)}"
        finally:
            torch.set_num_threads(1)
        return _wrong(code, said.getvalue(), words, begun=list(Path(folder).rglob("training.safetensors")))


def _wrong(code: int, said: str, words: list[str], *, begun: list[Path]) -> str | None:
    shown = said
    for word in sorted({word for each in words for word in (each, each.partition("=")[2])} - {""}, key=len)[::-1]:
        shown = shown.replace(word, "...")
    if foreign := FOREIGN.search(shown):
        return f"{foreign[0]!r} in what is said: {said[-300:]!r}"
    if code and not re.search(r"^(cellflow \w+|member \d+): [\s\S]{20}", said, re.MULTILINE):
        return f"code {code}, and no sentence: {said[-300:]!r}"
    if code and begun:
        return f"only after the training: {said[-300:]!r}"
    return None if code else _misread(words)


def _misread(words: list[str]) -> str | None:
    """Return which words were taken for a truth value or a number, and are none; told by Python, not by `kinds`."""
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if equals and name in SETTINGS and not any(_is(value, each) for each in _alternatives(kind_of(name, words[0]))):
            return f"{word!r} was taken for something else"
    return None


def _alternatives(kind: object) -> list[object]:
    """Return the kinds of which one is enough, without their ranges."""
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    return [part for each in get_args(kind) for part in _alternatives(each)] if isinstance(kind, UnionType) else [kind]


def _is(value: str, kind: object) -> bool:
    """Whether a word says a truth value, a number, nothing, or one of some words; all else is left to `kinds`."""
    if kind is bool:
        return value.lower() in ("true", "false", "yes", "no", "on", "off")
    if kind in (int, float):
        try:
            return np.isfinite(kind(value)) or "inf" in value
        except ValueError:
            return False
    if kind is type(None):
        return value.lower() in ("null", "~")
    return get_origin(kind) is not Literal or value.strip("'") in get_args(kind)


def _where(error: BaseException) -> str:
    from fuzz.judge import place

    return f"at {place(error)}"


@contextlib.contextmanager
def _briefly(command: str):
    """Draw no report, but for the command that does nothing else: it takes longer than all the rest."""
    with contextlib.ExitStack() as stack:
        if command != "report":
            for room in ("cells", "translation", "generation", "perturbation"):
                stack.enter_context(mock.patch(f"cellflow.cli.{room}.write_report"))
            stack.enter_context(mock.patch("cellflow.cli.cells._keep"))
        stack.enter_context(mock.patch("cellflow.report.html.DPI", 20))
        yield


def _placed(line: tuple[str, ...], folder: Path) -> list[str]:
    """Return the words with files in place of what stands for them; runs are copied, as commands write into them."""
    there = dict(places())
    for name in ("run", "translated", "generated", "treated"):
        if any(f"@{name}" in word for word in line):
            there[name] = Path(shutil.copytree(there[name], folder / f"copy-{name}"))
            for state in there[name].glob("training.safetensors"):
                state.unlink()
    there |= {"out": folder / "out", "nothing": folder / "nothing"}
    return [re.sub(r"@([a-z]+)", lambda found: str(there.get(found[1], found[0])), word) for word in line]


@cache
def places() -> dict[str, Path]:
    """Return files and small runs that command lines are about, made when they are first asked for."""
    folder = Path(tempfile.mkdtemp(prefix="command-lines-"))
    found = {name: folder / name for name in ("dark", "bright", "run", "translated", "generated", "treated")}
    found |= {"cells": folder / "cells.h5ad", "odd": folder / "it's (1), [x]=é.h5ad", "text": folder / "text.h5ad"}
    found["text"].write_text("no cells")
    cells = _cells()
    cells.write_h5ad(found["cells"])
    cells.write_h5ad(found["odd"])
    for name, level in (("dark", 60), ("bright", 170)):
        found[name].mkdir()
        for k in range(8):
            image = np.full((8, 8), level + 3 * k, np.uint8)
            Image.fromarray(image).save(found[name] / f"{k}.png")
    made = {"run": "fit", "translated": "translate", "generated": "generate", "treated": "perturb"}
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere), _briefly("fit"):  # noqa: PTH123
        for name, command in made.items():
            words = [word.replace("@out", f"@{name}") for word in GOOD[command]]
            words = [re.sub(r"@([a-z]+)", lambda each: str(found[each[1]]), word) for word in words]
            assert main([command, *words]) == 0
    return found


def _cells():
    import anndata
    import pandas as pd

    draw = np.random.default_rng(0)
    day = np.repeat([0.0, 1.0, 5.0], 20)
    x = (draw.normal(size=(60, 4)) + day[:, None] / 5).astype(np.float32)
    obs = pd.DataFrame({"day": day, "kind": pd.Categorical(["a", "b"] * 30)}, index=[f"c{k}" for k in range(60)])
    cells = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=list("abcd")))
    cells.obsm["X_pca"], cells.obsm["X_tiny"] = x[:, :3], x[:, :1]
    return cells


assert set(GOOD) == set(COMMANDS), "a command without a good line"
