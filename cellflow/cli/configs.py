"""Where the YAML files are."""

from pathlib import Path


def configs_folder() -> Path:
    """Return the folder with the YAML files: beside the code in a wheel, at the top level in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"
