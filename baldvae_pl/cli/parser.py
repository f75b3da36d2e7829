"""The command line: configurations that come with the package, and errors in one sentence."""

import inspect
import re
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from lightning.pytorch.cli import LightningArgumentParser

from baldvae_pl.errors import SettingError

# A network without type hints in the place of one with them takes over its num_classes, which is of
# a subclass of int; YAML writes those of no class but the plain ones.
for plain in (int, float):
    yaml.SafeDumper.add_multi_representer(plain, yaml.SafeDumper.yaml_representers[plain])

SECTIONS = ("model", "data", "acquisition", "vae", "trainer", "predictions")


class Parser(LightningArgumentParser):
    """Says what is wrong in one sentence, without the list of all options before it."""

    def error(self, message: str, _: Exception | None = None) -> NoReturn:
        """End with exit code 2."""
        text = re.sub(r'Parser key "([^"]+)"', r"--\1", " ".join(message.split()))
        unknown = text.removeprefix("unrecognized arguments: ").split("=")[0]
        options = [option for option in self._option_string_actions if option.startswith("--")]
        similar = get_close_matches(unknown, options, 1) * (unknown != text.split("=")[0])
        hint = (
            f"Did you mean {similar[0]}?"
            if similar
            else f"See {self.prog.replace(' [options]', '')} --help."
        )
        self.exit(2, f"baldvae: error: {text.rstrip('.')}. {hint}\n")


class ShippedConfigFile(ActionConfigFile):
    """``--config NAME``: a file here, else one of those that come with the package."""

    def __call__(self, parser: Any, config: Any, values: Any, option_string: Any = None) -> None:
        """Look the name up and parse the file."""
        check_sections(parser, find_config(values))
        super().__call__(parser, config, find_config(values), option_string)  # type: ignore[no-untyped-call]


def check_sections(parser: Any, path: str) -> None:
    """End with an error for what jsonargparse would pass over in silence."""
    try:
        settings = yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return  # which jsonargparse says
    for section, options in settings.items() if isinstance(settings, dict) else ():
        if section in SECTIONS and not isinstance(options, dict):
            parser.error(f"{path}: {section}: {options} are no options with values")
        if section == "data" and "seed" in options:
            parser.error(f"{path}: data.seed follows from seed_everything, set that instead")


def check_not_null(config: Any, **sections: type) -> None:
    """Raise a SettingError for a null where a value is needed, by what a section's options make."""
    for section, made in sections.items():
        for name, parameter in inspect.signature(made).parameters.items():
            default = parameter.default
            if default is not None and config[section].get(name, default) is None:
                raise SettingError(
                    f"--{section}.{name}: null is no value for it. Leave it out, for its default."
                )


def shipped_configs() -> Path:
    """Return the folder of the shipped configs: in the package, or in its checkout."""
    package = Path(str(resources.files("baldvae_pl")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find_config(name: str) -> str:
    """Return the path that ``--config name`` means."""
    shipped = shipped_configs() / name
    return str(shipped) if not Path(name).is_file() and shipped.is_file() else name
