"""Configurations that come with the package: experiments, methods and variations."""

from importlib import resources
from pathlib import Path

from baldvae_pl.errors import SettingError

FOLDERS = ("experiments", "methods", "variations")


def shipped_configs() -> Path:
    """Return the folder of the shipped configs: in the package, or in its checkout."""
    package = Path(str(resources.files("baldvae_pl")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find_config(name: str) -> str:
    """Return the path that ``--config name`` means: a file here, or else a shipped one."""
    if name.startswith("~"):  # which a shell replaces at the beginning of a word alone
        return str(Path(name).expanduser())
    if not Path(name).is_file():
        for folder in FOLDERS:
            if (shipped := shipped_configs() / folder / name).is_file():
                return str(shipped)
    return name


def find_yaml(name: str) -> str:
    """Return the absolute path of a YAML file, whose ending may be left out.

    Raises:
        SettingError: If there is none.
    """
    for path in (find_config(name), find_config(f"{name}.yaml")):
        if Path(path).is_file():
            return str(Path(path).absolute())
    raise SettingError(
        f"{name}: there is no such YAML file here, nor among those shipped. `baldvae fit --help` "
        "says how configurations overlay each other."
    )


def method_names() -> list[str]:
    """Return the names of the shipped methods."""
    return sorted(path.stem for path in (shipped_configs() / "methods").glob("*.yaml"))
