"""The configurations that come with the package: ``--config digits.yaml`` works in any folder."""

from importlib import resources
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]


class ShippedConfigFile(ActionConfigFile):
    """``--config NAME``: a file here, else one of those that come with the package."""

    def __call__(self, parser: Any, config: Any, values: Any, option_string: Any = None) -> None:
        """Look the name up and parse the file."""
        super().__call__(parser, config, find_config(values), option_string)  # type: ignore[no-untyped-call]


def shipped_configs() -> Path:
    """Return the folder of the shipped configs: in the package, or in its checkout."""
    package = Path(str(resources.files("baldvae_pl")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find_config(name: str) -> str:
    """Return the path that ``--config name`` means."""
    shipped = shipped_configs() / name
    return str(shipped) if not Path(name).is_file() and shipped.is_file() else name
