"""Whole fields for a fitted translation: all files are looked at before the first is carried, then read one by one."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cellflow.cli import image_reading, image_runs
from cellflow.cli.settings import Settings
from cellflow.images import ImageSet, Levels
from cellflow.images.files import readable
from cellflow.images.limits import UnreadableImageError
from cellflow.images.pixels import Conversion
from cellflow.images.reading import is_array
from cellflow.images.tables import names_of, pictures_of

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("cellflow")
_FAULTS, _NAMED = 5, 10
"""Different faults that a message explains, and files that it names for each."""


@dataclass(frozen=True)
class Fields:
    """Fields of any sizes.

    Parameters
    ----------
    names
        What each is called.
    obs
        What a table says of each.
    each
        The fields, one after the other.
    """

    names: tuple[str, ...]
    obs: "pd.DataFrame | None"
    each: Iterator[ImageSet]


def fields_of(cfg: Settings, then: Settings, levels: Levels | None) -> Fields:
    """Return the fields of the `input`.

    Those of a folder are read when it is their turn, so that memory is that of one; one file is read at once. ``each``
    looks at all files before it returns the first field: what stops in the middle cannot be continued.

    Parameters
    ----------
    cfg
        The present settings.
    then
        Those with which images are read for the model; they are changed.
    levels
        The levels of the fit.

    Raises
    ------
    ValueError
        When a file cannot be read, or holds other images than the model takes; all such files are named.
    """
    then.size, then.fit, then.stream = None, "crop", False  # one after the other is in memory anyway
    path = Path(cfg.input)
    if path.is_file() or is_array(path):
        whole = cast("ImageSet", image_reading.read_known(cfg.input, then, levels=levels))
        names = whole.names or tuple(image_runs.numbered(len(whole)))
        return Fields(names, whole.obs, _told((whole.take([number]) for number in range(len(whole))), names))
    paths, obs = pictures_of(path, cfg.table, cfg.file_column)
    then.table = None  # it is read
    if cfg.skip_unreadable:
        paths = readable(paths, Conversion(max_pixels=cfg.max_pixels, pages=cfg.pages))
    names = names_of(paths, path)
    obs = None if obs is None else obs.loc[[*names]]
    return Fields(names, obs, _told(_pictures(paths, names, obs, then, levels), names))


def _pictures(
    paths: Sequence[Path], names: Sequence[str], obs: "pd.DataFrame | None", then: Settings, levels: Levels | None
) -> Iterator[ImageSet]:
    if len(paths) > 1:  # of one alone, its reader says what is wrong with it
        _check(paths, names, then, levels)
    for path, name in zip(paths, names, strict=True):
        field = cast("ImageSet", image_reading.read_known(str(path), then, levels=levels))
        yield field if obs is None else replace(field, obs=obs.loc[[name]])


def _told(fields: Iterator[ImageSet], names: Sequence[str]) -> Iterator[ImageSet]:
    """Yield fields, and log which one it is."""
    for number, (field, name) in enumerate(zip(fields, names, strict=True), start=1):
        log.info("field %d of %d: %s, %d x %d", number, len(names), name, *field.shape[1:])
        yield field


def _check(paths: Sequence[Path], names: Sequence[str], then: Settings, levels: Levels | None) -> None:
    """Read all files once, keep none, and refuse them if some cannot be translated.

    Raises
    ------
    ValueError
        Naming each, with what is wrong.
    """
    log.info("reading %d files once, before the first is translated", len(paths))
    damaged: list[str] = []
    wrong: dict[str, list[str]] = {}
    for path, name in zip(paths, names, strict=True):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what there is to warn of is said when it is translated
                image_reading.read_known(str(path), then, levels=levels)
        except UnreadableImageError as error:
            damaged.append(str(error.__cause__ or error))
        except ValueError as error:  # the same of many files is said once
            wrong.setdefault(str(error).replace(str(path), "the file"), []).append(name)
    if not damaged and not wrong:
        return
    said = [f"{_listed(some)}: {what}" for what, some in wrong.items()][:_FAULTS]
    said += [f"Cannot be read: {_listed(damaged)}."] if damaged else []
    skip = ", or set `skip_unreadable=true` to leave out those that cannot be read" if damaged else ""
    raise ValueError(
        f"{len(damaged) + sum(map(len, wrong.values()))} of {len(paths)} files cannot be translated, and none was. "
        f"{' '.join(said)} Correct or remove these files{skip}."
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
