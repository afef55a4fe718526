"""One JSON file for each run: skipped when it is there, refused when it is of another configuration."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cellflow.cli.runs import versions

BASELINES = "baselines"
"""Name of the folder that a method's would have."""


@dataclass(frozen=True)
class Key:
    """What names a run."""

    protocol: str
    dataset: str
    dims: int
    method: str
    fold: str
    seed: int

    def path(self, out: Path) -> Path:
        """Return its file."""
        folder = out / self.protocol / f"{self.dataset}-{self.dims}" / self.method
        return folder / f"fold-{self.fold}-seed-{self.seed}.json"


def known(path: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of a finished run, or ``None``; one of another configuration, or a damaged one, is refused."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text())
        then = found["config"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}). Remove it, and the run is done again.") from error
    if found["digest"] != _digest(config):
        changes = "; ".join(_differences(then, json.loads(_plain(config))))
        raise ValueError(
            f"{path} was run with another configuration: {changes}. Give the changed method a name of its own with "
            "`name=...`, do the run again with `again=true`, or go back to the old settings."
        )
    return found


def write(path: Path, key: Key, config: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Write a record, whole or not at all, and return it."""
    record = {
        **asdict(key), **found, "digest": _digest(config), "config": json.loads(_plain(config)),
        "versions": versions(), "finished": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(record, indent=1))
    temporary.replace(path)
    return record


def every(out: Path) -> list[dict[str, Any]]:
    """Return all records below a folder."""
    found = [json.loads(path.read_text()) for path in sorted(out.rglob("fold-*.json"))]
    if not found:
        raise FileNotFoundError(f"No records below {out}. Run `python -m benchmarks.trajectory` first.")
    return found


def _plain(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True, default=str)


def _digest(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(_plain(config).encode()).hexdigest()[:16]


def _differences(then: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield each setting that changed, then and now."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            yield from _differences(then.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif then != now:
        yield f"{name}: {then} became {now}"
