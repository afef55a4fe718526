"""Shared by all estimators: settings, the fitted field, saving and loading."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, Self, cast

import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from cellflow import integrate, paths, training
from cellflow.batch import Batch
from cellflow.errors import CheckpointError, NotFittedError, unknown
from cellflow.estimators.loading import (
    AUTOENCODER,
    DESCRIPTION,
    FORMAT,
    MAP,
    MEMBERS,
    WEIGHTS,
    read_description,
    restore,
    saved_settings,
)
from cellflow.estimators.model_files import save_model
from cellflow.estimators.serialize import (
    compared,
    encode,
    encode_settings,
    modernise_training,
)
from cellflow.files import path_of
from cellflow.integrate import Adaptive, Fixed, Jumps, Trajectory
from cellflow.lock import A_SAVE, locked
from cellflow.modes import own_modes, single_precision
from cellflow.networks import FlowMap
from cellflow.objectives import FlowMapObjective, Objective, TrajectoryMatching
from cellflow.objectives.draw import Unit
from cellflow.renamed import Rules
from cellflow.seeds import device_of
from cellflow.signature import check_stored, checked
from cellflow.together import together
from cellflow.training import History, Recipe, Run, trajectory_batches
from cellflow.training.checkpoint import STATE
from cellflow.training.distillation import resolve
from cellflow.training.recipe import check_settings
from cellflow.training.resumption import read_stated
from cellflow.training.run import OLD_KEYWORDS

REFINING, DISTILLING, SEARCHING = 1, 2, 3
"""Streams of random numbers of a seed for refining, distilling, and searching for steps; 0 is the fit."""
FOLLOWED = 4096
"""Most images of each set whose trajectories are followed, at more than a hundred evaluations each."""
OLD_DISTILLING: Rules = OLD_KEYWORDS | {"taught": lambda taught: {"teacher": taught}}
"""Former keywords of `distill`."""
TRAINING = {"fit", "refine", "distill"}
"""Verbs that train, and take a run."""
_FITTED = {"velocity", "growth_rate", "transport", "grow", "simulate", "score", "translate", "trajectory", "generate"}
COMPUTING = TRAINING | _FITTED
"""Verbs that train or evaluate a field."""


class FlowEstimator(BaseEstimator, ABC):  # type: ignore[misc]  # scikit-learn says no types
    """A scikit-learn estimator that holds a field. Abstract: subclasses write ``fit``, ``_learned`` and ``_restore``.

    The constructor only keeps its keywords; ``get_params``, ``set_params``, ``clone`` and the printed form are
    scikit-learn's.
    """

    field_: nn.Module
    history_: History
    flow_map_: FlowMap
    map_history_: History
    members_: "tuple[Self, ...]"

    def __init_subclass__(cls, **settings: Any) -> None:
        """Let the verbs that train hold the folder of their run from their first line, before anything is computed.

        No computing method depends on the modes of torch around the call.
        """
        super().__init_subclass__(**settings)
        for name in TRAINING & vars(cls).keys():
            setattr(cls, name, _holding_folder(vars(cls)[name]))
        for name in COMPUTING & vars(cls).keys():
            setattr(cls, name, own_modes()(vars(cls)[name]))

    @property
    def distilled(self) -> bool:
        """Whether there is a flow map, with which few jumps replace many solver steps."""
        return hasattr(self, "flow_map_")

    @property
    def members(self) -> "tuple[Self, ...]":
        """Fitted estimators that show how this one would vary, if it has an ensemble; empty otherwise."""
        return getattr(self, "members_", ())

    @checked
    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the fitted model to a folder: weights as safetensors, everything else as JSON.

        Parameters
        ----------
        folder
            The folder; created if it does not exist.
        overwrite
            Whether to replace an existing model.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            When a setting is nested too deeply to be saved.
        FileExistsError
            When there is a model already, and ``overwrite`` is false.
        CheckpointError
            When another process is using the folder.
        OSError
            When a file cannot be written. An earlier model then stays unchanged, as it does if the process is stopped.
        """
        self._check_fitted()
        folder = path_of(folder, name="folder")
        settings = {name: encode(value, name=name) for name, value in self.get_params(deep=False).items()}
        about = {"format": FORMAT, "estimator": type(self).__name__, "settings": settings, "learned": self._learned()}
        tensors: dict[str, Any] = {
            WEIGHTS: ("model", self.field_.state_dict()),
            MAP: None,
            MEMBERS: None,
            AUTOENCODER: None,
        }
        if self.members:
            fields = nn.ModuleList(member.field_ for member in self.members)
            tensors[MEMBERS] = ("members", fields.state_dict())
            seeds, history = (
                [member.get_params(deep=False)["seed"] for member in self.members],
                self.members[0].history_,
            )
            about["members"] = {"seeds": seeds, "history": history.columns}
        if self.distilled:
            known = self.flow_map_
            tensors[MAP] = ("flow map", known.state_dict())
            about["flow_map"] = {"spans": known.spans, "growth": known.growth, "history": self.map_history_.columns}
        if (autoencoder := getattr(self, "autoencoder_", None)) is not None:
            tensors[AUTOENCODER] = ("autoencoder", autoencoder.state_dict())
            about["autoencoder"] = autoencoder.record()
        with locked(folder, wait=A_SAVE):
            if (folder / DESCRIPTION).exists() and not overwrite:
                message = f"{folder} holds a model already. Choose another folder, or pass `overwrite=True`."
                raise FileExistsError(message)
            save_model(folder / DESCRIPTION, about, tensors)

    @classmethod
    @checked
    @own_modes()
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device = "auto",
        **parts: Any,
    ) -> Self:
        """Load a model that `save` wrote. No code in the files is run.

        Parameters
        ----------
        folder
            Folder of the model.
        device
            Device of the model, see the estimator.
        **parts
            Settings that are not parts of cellflow, given again by name: ``network=...``, ``coupling=...``.

        Raises
        ------
        CheckpointError
            When files are missing, damaged or from another estimator, or hold a part that must be given again.
        TypeError
            For a given part that is not a setting of the estimator.
        """
        folder = path_of(folder, name="folder")
        strange = set(parts) - set(cls._get_param_names())
        if strange:
            raise TypeError(unknown(f"setting of {cls.__name__}", min(strange), cls._get_param_names()))
        about = read_description(folder / DESCRIPTION, estimator=cls.__name__)
        what = f"{folder / DESCRIPTION} does not describe a {cls.__name__}"
        model = cls(**saved_settings(cls, about, given=parts, what=what), device=device)
        restore(model, about, folder, given=parts)
        return model

    @abstractmethod
    def _learned(self) -> dict[str, Any]:
        """Return everything learned other than the weights, as JSON."""

    @abstractmethod
    def _restore(self, learned: dict[str, Any]) -> None:
        """Restore what `_learned` returned."""

    @abstractmethod
    def _blank(self) -> nn.Module:
        """Return the field of what was restored, before its weights are loaded."""

    @abstractmethod
    def _objective(self, *, unit: Unit = 1.0) -> Objective:
        """Return what the field is trained on, in lengths of ``unit``."""

    def _check_settings(self) -> None:
        """Raise for settings that `fit` would refuse whatever the data are."""
        own = self.get_params(deep=False)
        check_settings(own["steps"], own["batch_size"], own["recipe"])
        check_stored(self, "path", "coupling", "curve", "network")

    def _velocity(self) -> Any:
        """Return the velocity of the fitted flow, a module: the teacher of a flow map."""
        return self._objective().velocity(self.field_)

    def _about(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return what must be equal for an interrupted training to be resumed: the data and the settings."""
        return {**data, **encode_settings(compared(self.get_params(deep=False)))}

    @single_precision()
    def _blank_map(self, spans: str, *, growth: bool = False) -> FlowMap:
        """Return a map whose jumps are Euler steps of the fitted flow, with its growth rate where that is asked for."""
        return FlowMap.of(self.field_ if growth else self._velocity(), spans=spans, growth=growth)

    def _carry(
        self,
        field: Any,
        x: Tensor,
        solver: Fixed | Adaptive | Jumps,
        *,
        start: float | Tensor = 0.0,
        stop: float | Tensor = 1.0,
        save: int = 2,
        condition: Tensor | None = None,
        log_weight: Tensor | None = None,
    ) -> Trajectory:
        """Carry states in model time: by jumps of the flow map, which may carry weights too, or along the field."""
        span: dict[str, Any] = {"start": start, "stop": stop, "save": save, "condition": condition}
        if not isinstance(solver, Jumps):
            return integrate.ode(field, x, solver=solver, **span)
        if not self.distilled:
            raise NotFittedError(
                f"This {type(self).__name__} has no flow map to jump with. Call `distill` first, or use another "
                "solver, such as `cf.integrate.Fixed()`."
            )
        dtype = next(self.flow_map_.parameters()).dtype
        span["condition"] = None if condition is None else condition.to(dtype)
        return integrate.jump(self.flow_map_, x.to(dtype), steps=solver.steps, log_weight=log_weight, **span)

    def _unfitted(self) -> Self:
        """Return an estimator of the same settings that has learned nothing."""
        return type(self)(**self.get_params(deep=False))

    def _copy(self, run: Run | None) -> Self:
        """Return another estimator of the same settings, with a copy of the fit on the device of a run.

        It has no flow map, which belongs to the earlier fit.
        """
        self._check_fitted()
        other = self._unfitted()._become(self)
        for name in ("flow_map_", "map_history_"):
            other.__dict__.pop(name, None)
        other.field_ = deepcopy(self.field_)
        if run is not None and run.fabric is not None:
            other.field_.to(run.fabric.device)
        return other

    def _run(self, run: Run | None, *, history: str = "history_") -> Run:
        """Return the run of a training of this estimator, which ``watch`` is called with.

        The history so far is in one of its attributes. A state of an earlier version is converted.
        """
        run = run or Run()
        if run.resume and run.leads:
            modernise_training(type(self), cast("str", run.folder))
        if run.fabric is not None:
            run.fabric.barrier()
        watch, before = run.watch, getattr(self, history, History())

        def look(found: History) -> None:
            setattr(self, history, before + found)
            cast("Callable[[Self], object]", watch)(self)

        said = run.progress, self.get_params(deep=False)["progress"]
        progress = True if True in said else False if False in said else None
        return replace(run, progress=progress, watch=None if watch is None else look)

    def _regular(self, run: Run, decided: bool) -> bool:
        """Return whether to prevent memorising: as decided now, or when an interrupted fit began.

        Raises
        ------
        CheckpointError
            When the setting is not ``"auto"``, and the interrupted fit has another.
        """
        path = Path(run.folder or "") / STATE
        if not run.resume or not path.exists():
            return decided
        began = bool(read_stated(path)["settings"].get("regular"))  # earlier versions say nothing
        if self.get_params(deep=False)["regularize"] not in ("auto", began):
            raise CheckpointError(f"{path} was trained with regularize={began}. Resume with the same.")
        return began

    def _become(self, other: Self) -> Self:
        """Replace what was learned before by what another estimator has learned.

        Trainings work on another estimator until they are done: if one fails, this estimator is unchanged.
        """
        kept = {name: value for name, value in vars(self).items() if not name.endswith("_")}
        self.__dict__ = kept | {name: value for name, value in vars(other).items() if name.endswith("_")}
        return self

    def _check_fitted(self) -> None:
        if not hasattr(self, "field_"):
            raise NotFittedError(f"This {type(self).__name__} is not fitted. Call `fit(adata)` first, or `load` one.")

    def _learn_map(
        self,
        copy: Self,
        velocity: nn.Module,
        *,
        known: Callable[[], tuple[Any, ...]],
        pairs: Callable[[], Iterable[Batch]],
        objective: FlowMapObjective | str,
        teacher: bool,
        recipe: Recipe | None,
        run: Run | None,
        **settings: Any,
    ) -> Self:
        """Train the flow map of a copy of this estimator, and keep the map once it is done.

        ``velocity`` is the fitted one, or the field where growth is distilled too. ``known`` gives the states that the
        teacher's trajectories pass through and their times, as `cellflow.training.trajectory_batches` takes them,
        ``pairs`` batches of pairs of the data: the objective decides which are needed. ``settings`` are those of
        `cellflow.training.distill`.
        """
        own, chosen = self.get_params(deep=False), resolve(objective)
        check_settings(settings["steps"], own["batch_size"], recipe)
        batches: Iterable[Batch]
        if teacher and isinstance(chosen, TrajectoryMatching):
            recipe, both = recipe or own["recipe"], copy.flow_map_.spans == "both"
            batches = trajectory_batches(
                velocity,
                *known(),
                batch_size=own["batch_size"],
                generator=settings["generator"],
                both=both,
                growth=copy.flow_map_.growth,
            )
        else:
            batches = pairs()
        copy.map_history_ = training.distill(
            copy.flow_map_,
            velocity if teacher else None,
            batches,
            objective=chosen,
            path=paths.resolve(own["path"]),
            recipe=recipe,
            run=copy._run(run, history="map_history_"),
            **settings,
        )
        self.flow_map_, self.map_history_ = copy.flow_map_, copy.map_history_
        return self

    def _device(self, run: Run | None = None) -> torch.device:
        if run is not None and run.fabric is not None:
            return run.fabric.device
        device = self.get_params(deep=False)["device"]
        if str(device).startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"No GPU is available for `device={device!r}`. Use 'cpu' or 'auto'.")
        if device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return device_of(device)


def some_rows(n: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return the rows of ``n`` samples to follow: all vectors, or at most `FOLLOWED` random images.

    Examples
    --------
    >>> len(some_rows(9, (2,), torch.Generator())), len(some_rows(9000, (1, 8, 8), torch.Generator()))
    (9, 4096)
    """
    return torch.randperm(n, generator=generator)[: n if len(shape) == 1 else FOLLOWED]


def _holding_folder(train: Callable[..., Any]) -> Callable[..., Any]:
    """Return a verb that trains, with the processes of its run, and no other one writing to its folder."""

    @wraps(train)
    def held(self: FlowEstimator, *given: Any, run: Run | None = None, **others: Any) -> Any:
        if not isinstance(run, Run):  # what is no run, the verb refuses
            with together(None):
                return train(self, *given, run=run, **others)
        own = self.get_params(deep=False)
        recipe = next((one for one in (others.get("recipe"), own["recipe"]) if isinstance(one, Recipe)), None)
        run = run.joined(device=own["device"], recipe=recipe)
        with run.locked():
            return train(self, *given, run=run, **others)

    return held
