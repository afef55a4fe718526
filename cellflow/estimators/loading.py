"""From the files of a model to an estimator: every claim is checked before it is acted on.

First the description (`schema`), then the settings (`serialize`), then the outline of the field (`outline`) against the
header of the weights. Only then is memory allocated, as much as the file of weights needs.
"""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from cellflow.errors import CheckpointError
from cellflow.estimators.latents import check_fits
from cellflow.estimators.model_files import DIGESTS, model_file, refuse_other
from cellflow.estimators.outline import outline
from cellflow.estimators.schema import ALWAYS, CURE, LEARNED, VALUES, check_described, check_learned
from cellflow.estimators.serialize import FORMER, PARTS, decode, modern_settings, modern_tensors
from cellflow.estimators.snapshot_members import members_of
from cellflow.networks import Standardized
from cellflow.networks.autoencoder import of_record
from cellflow.seeds import generator, seeded
from cellflow.signature import check_type
from cellflow.training import History
from cellflow.training.checkpoint import load_tensors, load_weights
from cellflow.training.kinds import shown
from cellflow.training.reading import DTYPES, Header, check_finite, check_tensors, read_header, read_json

if TYPE_CHECKING:
    from cellflow.estimators.base import FlowEstimator

WEIGHTS, DESCRIPTION, MAP, MEMBERS = "model.safetensors", "model.json", "flow_map.safetensors", "members.safetensors"
"""Names of the files of a model."""
AUTOENCODER = "autoencoder.safetensors"
"""Name of the file of the autoencoder of a flow in latents."""
FORMAT = 2
"""Version of the saved model; a newer one than this is refused, an older one is converted."""
WIDEST = 2**16
"""Widest state that is believed of a model with fewer weights than that."""


def read_description(path: Path, *, estimator: str) -> dict[str, Any]:
    """Return the description of a model of an estimator.

    Raises
    ------
    CheckpointError
        When the file is missing, damaged, from another estimator, or newer than this version.
    """
    if not path.is_file():
        raise CheckpointError(f"No model in {path.parent}: {path.name} is missing. Name the folder of a finished run.")
    about = read_json(path)
    check_described(about, what=f"{path} is damaged or was not written by cellflow")
    found = about["estimator"][:100]
    if found != estimator:
        cure = f"Use `cellflow.{found}.load`." if found in LEARNED else "Name the folder of another run."
        raise CheckpointError(f"{path} holds a {found}, not a {estimator}. {cure}")
    if about["format"] > FORMAT:
        raise CheckpointError(f"{path} was written by a newer cellflow (format {about['format']}); update cellflow.")
    return dict(about)


def saved_settings(
    cls: "type[FlowEstimator]", about: Mapping[str, Any], *, given: Mapping[str, Any], what: str
) -> dict[str, Any]:
    """Return the settings of a model under their present names; given settings replace those in the file.

    Raises
    ------
    CheckpointError
        When one is missing, unknown, of a type that the constructor does not take, or a part that is not cellflow's.
    """
    known, name = signature(cls).parameters, schema_of(cls)
    then = {key: value for key, value in about["settings"].items() if key not in {"device", *given}}
    for key in then:
        if key not in known and key not in FORMER.get(name, {}):
            raise CheckpointError(
                f"{what}: it holds `settings.{key[:100]}`, which this version does not know. Update cellflow. {CURE}"
            )
    decoded = {key: decode(value, name=key) for key, value in then.items()}
    for key in FORMER.get(name, {}).keys() & decoded:
        if isinstance(decoded[key], dict | tuple):
            raise CheckpointError(
                f"{what}: expected one value in `settings.{key}`; found {shown(decoded[key])}. {CURE}"
            )
    settings = modern_settings(name, decoded)
    for key in sorted(ALWAYS[name] - settings.keys() - given.keys()):
        raise CheckpointError(f"{what}: it lacks `settings.{key}`. {CURE}")
    for key, value in settings.items():
        kind = VALUES.get(key)
        if kind is not None and not kind.holds(value):
            raise CheckpointError(
                f"{what}: expected `settings.{key}` to be {kind.expected}; found {shown(value)}. {CURE}"
            )
        _check_type(value, known[key].annotation, key, where=cls.__name__, what=what)
    return settings | dict(given)


def _check_type(value: Any, hint: Any, key: str, *, where: str, what: str) -> None:
    """Refuse a setting of another type than the constructor states; 0 and 1 may stand for truth, and 3.0 for 3."""
    if (hint is bool and value in (0, 1)) or (hint is int and isinstance(value, float) and value.is_integer()):
        return
    try:
        check_type(value, hint, name=key, where=where)
        if key in PARTS and value is not None:
            PARTS[key](value)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{what}: {error} {CURE}") from error


def schema_of(cls: type) -> str:
    """Return the name of the cellflow estimator that a class is or derives from."""
    return next(kind.__name__ for kind in cls.__mro__ if kind.__name__ in LEARNED)


def restore(model: "FlowEstimator", about: Mapping[str, Any], folder: Path, *, given: Mapping[str, Any]) -> None:
    """Restore what an estimator with the saved settings had learned.

    Raises
    ------
    CheckpointError
        When the description contradicts itself, or the weights do not fit it, are missing, damaged, or not finite.
    """
    what, device = f"{folder / DESCRIPTION} does not describe a {type(model).__name__}", model._device()
    check_learned(schema_of(type(model)), about, what=what)
    old = model.get_params(deep=False) if about["format"] == 1 else {}
    parts = {"flow_map": MAP, "members": MEMBERS, "autoencoder": AUTOENCODER}
    digests, files = about.get(DIGESTS, {}), {WEIGHTS, *(parts[key] for key in parts if about.get(key) is not None)}
    if digests and digests.keys() != files:
        raise CheckpointError(
            f"{what}: expected `{DIGESTS}` of {sorted(files)}; found {shown(sorted(digests))}. {CURE}"
        )
    path = model_file(folder / WEIGHTS, digests)
    header = _header(path, kind="model")
    try:
        model._check_settings()
        model._restore(about["learned"])
        if about.get("autoencoder") is not None:
            _restore_autoencoder(model, about["autoencoder"], folder / AUTOENCODER, digests)
        _check_width(model, header, path)
        if "network" not in given:
            expected = outline(model._blank, header.tensors, source=path)
            check_tensors(modern_tensors(header.tensors, old), expected, source=path, model="model")
    except KeyError as error:
        raise CheckpointError(f"{what}: it lacks {error}. {CURE}") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{what}: {error} {CURE}") from error
    with seeded(generator(seed=int(model.get_params(deep=False)["seed"]))):
        model.field_ = model._blank()
    if about.get("flow_map") is not None:
        kept = about["flow_map"]
        _blank_map(model, kept["spans"], kept.get("growth", False), what)  # before maps had growth, nothing was said
        model.map_history_ = History(kept["history"])
        map_file = model_file(folder / MAP, digests)
        _fill(model.flow_map_, map_file, _header(map_file, kind="flow map"), old, under="network.field.")
        refuse_other(map_file, MAP, digests)
        model.flow_map_.to(device).eval()
    _fill(model.field_, path, header, old)
    refuse_other(path, WEIGHTS, digests)
    model.field_.to(device).eval()
    if about.get("members") is not None:
        _restore_members(model, about["members"], folder / MEMBERS, digests, outlined="network" not in given)


def _restore_autoencoder(
    model: "FlowEstimator", about: Mapping[str, Any], path: Path, digests: Mapping[str, str]
) -> None:
    """Give an estimator the autoencoder in whose latents its flow is."""
    file = model_file(path, digests)
    header = _header(file, kind="autoencoder")
    expected = outline(lambda: of_record(about), header.tensors, source=file)
    check_tensors(header.tensors, expected, source=file, model="autoencoder")
    with seeded(generator(seed=0)):
        found = of_record(about)
    check_fits(found, cast("Any", model).shape_)
    _fill(found, file, header, {})
    refuse_other(file, AUTOENCODER, digests)
    if not bool((found.scale > 0).all()):
        raise CheckpointError(f"{path} is damaged: `scale` has to be above 0. {CURE}")
    cast("Any", model).autoencoder_ = found.to(model._device()).eval().requires_grad_(False)


def _restore_members(
    model: "FlowEstimator", about: Mapping[str, Any], path: Path, digests: Mapping[str, str], *, outlined: bool
) -> None:
    """Give an estimator its members, whose fields lie in one file, each under its number."""
    file, seeds = model_file(path, digests), about["seeds"]
    header = _header(file, kind="members")

    def blank() -> nn.Module:
        return nn.ModuleList(model._blank() for _ in seeds)

    if outlined:
        check_tensors(header.tensors, outline(blank, header.tensors, source=file), source=file, model="members")
    with seeded(generator(seed=0)):
        fields = cast("nn.ModuleList", blank())
    _fill(fields, file, header, {})
    refuse_other(file, MEMBERS, digests)
    fields.to(model._device()).eval()
    model.members_ = members_of(cast("Any", model), list(fields), seeds, History(about["history"]))


def _blank_map(model: "FlowEstimator", spans: str, growth: bool, what: str) -> None:
    if growth and not getattr(model, "growth_", False):
        raise CheckpointError(f"{what}: its flow map has a growth rate, but the flow has none. {CURE}")
    try:
        model.flow_map_ = model._blank_map(spans, growth=growth)
    except ValueError as error:
        raise CheckpointError(f"{what}: no flow map can be made of its network. {error}") from error


def _header(path: Path, *, kind: str) -> Header:
    header = read_header(path)
    if header.about.get("kind") != kind:
        found = shown(header.about.get("kind"))
        raise CheckpointError(f"{path} does not hold the weights of a {kind}, but of a {found}. {CURE}")
    if not header.tensors:
        raise CheckpointError(f"{path} holds no weights. {CURE}")
    return header


def _check_width(model: "FlowEstimator", header: Header, path: Path) -> None:
    """Refuse states that are far wider than the weights are many."""
    width = getattr(model, "n_features_in_", 0) or getattr(model, "shape_", (0,))[0]
    held = sum(entry.numbers for entry in header.tensors.values())
    if width > max(WIDEST, held):
        raise CheckpointError(
            f"The weights in {path} do not fit this model: states of width {width:,}, and {held:,} weights. {CURE}"
        )


def _fill(module: nn.Module, path: Path, header: Header, old: dict[str, Any], *, under: str = "") -> None:
    """Load weights, under the names of today; ``old`` holds the settings of a model of format 1."""
    found = modern_tensors(header.tensors, old, under=under)
    own = module.state_dict()
    check_tensors(found, own, source=path, model="model")
    floats = {found[name].dtype for name, tensor in own.items() if tensor.is_floating_point()}
    if len(floats) == 1:  # all in single or in double precision: a network may have been made in the other
        module.to(DTYPES[floats.pop()])
    tensors = modern_tensors(load_tensors(path)[0], old, under=under)
    check_finite(tensors, own, source=path)
    load_weights(module, tensors, source=path)
    for part in module.modules():
        if isinstance(part, Standardized) and not ((part.scale > 0).all() and (part.speed > 0).all()):
            raise CheckpointError(f"{path} is damaged: `scale` and `speed` have to be above 0. {CURE}")
