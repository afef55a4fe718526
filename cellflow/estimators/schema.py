"""What the description of a saved model holds: the kind of every entry, by estimator."""

import re
from collections.abc import Mapping
from math import prod
from typing import Any

from cellflow.errors import CheckpointError
from cellflow.estimators.fields import ENDS, HEADS
from cellflow.estimators.matching_record import MATCHED, MATCHED_SOMETIMES
from cellflow.estimators.model_files import DIGESTS
from cellflow.estimators.population import AUTO
from cellflow.images.levels import Levels
from cellflow.networks.flow_map import SPANS
from cellflow.training.kinds import (
    HISTORY,
    OBJECT,
    TEXT,
    TIMES,
    TRUTH,
    Kind,
    check_record,
    is_number,
    many,
    maybe,
    number,
    one_of,
    shown,
    table,
    whole,
)

_DIGEST = re.compile("[0-9a-f]{64}")


def _are_levels(value: Any) -> bool:
    """Whether a record is that of `cellflow.images.Levels`."""
    try:
        return Levels.of(value) is not None
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


CURE = "Use another copy, or fit again."
MOST_PIXELS = 2**28
"""Most numbers in one image, 1 GiB in single precision."""
_DIGESTS = table(Kind("a SHA-256", lambda value: TEXT.holds(value) and _DIGEST.fullmatch(value) is not None))
DESCRIBED = {"format": whole(1), "estimator": TEXT, "settings": OBJECT, "learned": OBJECT}
"""What every description holds."""
DESCRIBED_SOMETIMES = {
    "flow_map": maybe(OBJECT),
    "members": maybe(OBJECT),
    "autoencoder": maybe(OBJECT),
    DIGESTS: _DIGESTS,
}
AUTOENCODER = {"kind": one_of("own", "diffusers"), "sizes": OBJECT}
"""What is known of an autoencoder beside its weights."""
FLOW_MAP = {"spans": one_of(*SPANS), "history": HISTORY}
MEMBERS = {"seeds": many(whole(0), least=2), "history": HISTORY}
"""What is known of the members of an ensemble beside their weights."""
_SIZE = Kind(
    f"the length of a vector, or channels, height and width of images of at most {MOST_PIXELS:,} numbers",
    lambda value: many(whole(1), least=1, most=3).holds(value) and len(value) != 2 and prod(value) <= MOST_PIXELS,
)
_IMAGE = Kind(_SIZE.expected.partition("or ")[2], lambda value: _SIZE.holds(value) and len(value) == 3)
_NAMES = Kind(
    "a list of distinct texts",
    lambda value: many(TEXT, least=1).holds(value) and len(set(value)) == len(value),
)
_NUMBERS_BY_NAME = Kind(
    "numbers by their labels", lambda value: OBJECT.holds(value) and all(is_number(one) for one in value.values())
)
_LEVELS = Kind(
    "the black and the white of each channel, the kind of the numbers and the names of the channels",
    lambda value: value is None or _are_levels(value),
)
_CONDITIONS = {"conditions": maybe(OBJECT), "controls": TRUTH}
_SEARCH = {"search_history": HISTORY, "blur": number(0)}
_MATCHING = {"matching": many(OBJECT)}
LEARNED: dict[str, tuple[Mapping[str, Kind], Mapping[str, Kind]]] = {
    "SnapshotFlow": (
        {"times": TIMES, "n_features_in": whole(1), "n_cells": many(whole(1), least=2), "history": HISTORY},
        {
            "time_labels": _NUMBERS_BY_NAME,
            "growth": TRUTH,
            "masses": maybe(many(number(0, above=True), least=2)),
            "turnover": many(maybe(number()), least=1),
            "fingerprint": maybe(OBJECT),
            "conditions": OBJECT,
            **_SEARCH,
            **_MATCHING,
        },
    ),
    "DomainTranslator": (
        {"shape": _SIZE, "pixels": TRUTH, "unit": number(0, above=True), "history": HISTORY},
        {
            "fingerprint": maybe(OBJECT),
            "segments": maybe(whole(0)),
            "levels": maybe(many(_LEVELS, least=2, most=2)),
            **_SEARCH,
            **_CONDITIONS,
        },
    ),
    "ImageGenerator": (
        {"shape": _IMAGE, "classes": maybe(_NAMES), "history": HISTORY},
        {"levels": maybe(many(_LEVELS, least=1, most=1)), **_CONDITIONS},
    ),
    "PerturbationFlow": (
        {
            "conditions": OBJECT,
            "treatments": many(OBJECT, least=1),
            "arms": OBJECT,
            "shifts": TEXT,
            "n_features_in": whole(1),
            "segments": whole(0),
            "told": whole(0),
            "history": HISTORY,
            "fingerprint": maybe(OBJECT),
            **_SEARCH,
        },
        _MATCHING,
    ),
}
"""What each estimator has learned beside its weights: what every version saved, and what some did."""
_ROW, _ROWS, _COUNTS = many(number()), many(many(number())), many(whole(0))
FINGERPRINT = {
    **dict.fromkeys(("times", "sums"), _ROW),
    **dict.fromkeys(("mean", "spread", "distances"), _ROWS),
    **dict.fromkeys(("counts", "names", "snapshot"), _COUNTS),
    "loadings": maybe(_ROWS),
    "columns": maybe(many(TEXT, least=2, most=2)),
}
"""What is known of the representation that a flow was fitted on, see `cellflow.cells.fingerprint`."""
ALWAYS = {
    "SnapshotFlow": {
        "time_key", "rep", "path", "coupling", "steps", "batch_size", "network", "stochastic", "growth", "masses",
        "curve", "recipe", "standardize", "ot_batch_size", "seed", "progress",
    },
    "DomainTranslator": {
        "path", "coupling", "features", "within_labels", "stochastic", "network", "rep", "steps", "batch_size",
        "recipe", "flip", "ot_batch_size", "seed", "progress",
    },
    "ImageGenerator": {
        "path", "objective", "coupling", "conditional", "condition_dropout", "network", "steps", "batch_size",
        "recipe", "flip", "seed", "progress",
    },
    "PerturbationFlow": {
        "control", "conditions", "within", "rep", "path", "coupling", "network", "stochastic", "heads", "steps",
        "batch_size", "recipe", "regularize", "standardize", "ot_batch_size", "seed", "progress",
    },
}  # fmt: skip
"""Settings that every version saved, as they are called today: without one of them, a default would be wrong."""

VALUES = {
    "heads": one_of(AUTO, *HEADS, ENDS),
    "seed": Kind("a seed, a whole number of 64 bits", lambda value: is_number(value) and -(2**63) <= value < 2**64),
}
"""Kinds of settings that are used before the estimator looks at them."""


def check_described(about: Any, *, what: str) -> None:
    """Refuse anything that is not the description of a model, of any estimator.

    Raises
    ------
    CheckpointError
        With the first entry that is wrong.
    """
    check_record(about, DESCRIBED, DESCRIBED_SOMETIMES, what=what, cure=CURE)


def check_learned(name: str, about: Mapping[str, Any], *, what: str) -> None:
    """Refuse what an estimator cannot have learned.

    Parameters
    ----------
    name
        Name of the estimator.
    about
        The description.
    what
        The file and what it should describe, in words.

    Raises
    ------
    CheckpointError
        With the first entry that is wrong, or two that contradict each other.
    """
    learned = about["learned"]
    check_record(learned, *LEARNED[name], what=what, under="learned", cure=CURE)
    if learned.get("fingerprint") is not None:
        check_record(learned["fingerprint"], FINGERPRINT, what=what, under="learned.fingerprint", cure=CURE)
    for place, row in enumerate(learned.get("matching", ())):
        check_record(row, MATCHED, MATCHED_SOMETIMES, what=what, under=f"learned.matching.{place}", cure=CURE)
    if about.get("flow_map") is not None:
        check_record(about["flow_map"], FLOW_MAP, {"growth": TRUTH}, what=what, under="flow_map", cure=CURE)
    if about.get("members") is not None:
        check_record(about["members"], MEMBERS, what=what, under="members", cure=CURE)
        if "times" not in learned:
            raise CheckpointError(f"{what}: it has `members`, and {name} has no ensembles. {CURE}")
    if (about["settings"].get("autoencoder") is None) != (about.get("autoencoder") is None):
        raise CheckpointError(f"{what}: its `settings.autoencoder` and its `autoencoder` do not go together. {CURE}")
    if about.get("autoencoder") is not None:
        check_record(about["autoencoder"], AUTOENCODER, what=what, under="autoencoder", cure=CURE)
        if len(learned.get("shape", ())) != 3:
            raise CheckpointError(f"{what}: expected an `autoencoder` with images in `learned.shape` only. {CURE}")
    n = len(learned.get("times", ()))
    of_intervals = () if "conditions" in learned else (("turnover", 1), ("matching", 1))
    for key, least in (("n_cells", 0), ("masses", 0), *of_intervals):
        found = learned.get(key)
        if found is not None and len(found) != n - least:
            raise CheckpointError(
                f"{what}: expected {n - least} values in `learned.{key}` for {n} times; found {shown(found)}. {CURE}"
            )
    if "conditions" in learned and len(learned.get("turnover", ())) not in (0, len(learned.get("matching", ()))):
        raise CheckpointError(f"{what}: expected as many values in `learned.turnover` as in `learned.matching`. {CURE}")
    if "masses" in learned and (learned["masses"] is None) == learned.get("growth", learned["masses"] is not None):
        raise CheckpointError(f"{what}: expected `learned.masses` where growth was learned, and only there. {CURE}")
    if learned.get("pixels") and len(learned["shape"]) != 3:
        raise CheckpointError(f"{what}: expected images in `learned.shape`; found {learned['shape']}. {CURE}")
    if learned.get("segments") is not None and learned.get("conditions") is None:
        raise CheckpointError(f"{what}: expected `learned.segments` with `learned.conditions` only. {CURE}")
    for known in filter(None, learned.get("levels") or ()):
        if len(learned["shape"]) != 3 or len(known["low"]) != learned["shape"][0]:
            found = len(known["low"])
            raise CheckpointError(f"{what}: expected levels of the channels in `learned.shape`; found {found}. {CURE}")
