"""The YAML files: what a name such as ``dataset=eb`` stands for."""

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from cellflow.errors import unknown

CONFIGS = Path(__file__).parent / "configs"


def load(group: str, name: str, **changes: Any) -> Any:
    """Return the data set or the method of that name; ``changes`` replace settings wherever they stand.

    Raises
    ------
    ValueError
        With the names, when there is none.
    """
    file = CONFIGS / group / f"{name}.yaml"
    if not file.is_file():
        raise ValueError(unknown(group, name, sorted(path.stem for path in file.parent.glob("*.yaml"))))
    settings = OmegaConf.to_container(OmegaConf.load(file))
    return instantiate(_changed(settings, changes), _convert_="all")  # else hydra wraps dataclasses in lists


def _changed(settings: Any, changes: dict[str, Any]) -> Any:
    if isinstance(settings, list):
        return [_changed(item, changes) for item in settings]
    if isinstance(settings, dict):
        return {key: changes[key] if key in changes else _changed(item, changes) for key, item in settings.items()}
    return settings
