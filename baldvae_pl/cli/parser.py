"""The command line: configurations that come with the package, and errors in one sentence."""

import inspect
import pkgutil
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, NoReturn, get_args

import yaml
from jsonargparse import ActionConfigFile, get_loader, set_loader
from lightning.pytorch.cli import LightningArgumentParser
from typing_extensions import override

from baldvae_pl import geometry, rivals
from baldvae_pl.cli.configs import find_config
from baldvae_pl.complement import Complement
from baldvae_pl.data.embedding import Embedding
from baldvae_pl.data.sources import DataSource
from baldvae_pl.data.unlabelled import UnlabelledFolder
from baldvae_pl.errors import SettingError
from baldvae_pl.fixmatch import FixMatch
from baldvae_pl.joint import Joint
from baldvae_pl.labelling.label_studio_oracle import LabelStudio
from baldvae_pl.objective import Objective
from baldvae_pl.oracle import Oracle
from baldvae_pl.posterior import Posterior
from baldvae_pl.runs.yaml_files import UNREADABLE, KeyTwiceError, check_keys, load_yaml
from baldvae_pl.selection import Selection

# A network without type hints in the place of one with them takes over its num_classes, which is of
# a subclass of int; YAML writes those of no class but the plain ones.
for plain in (int, float):
    yaml.SafeDumper.add_multi_representer(plain, yaml.SafeDumper.yaml_representers[plain])


def strictly(text: str) -> Any:
    """Load YAML as jsonargparse does, but with no key twice."""
    check_keys(text)
    return load_as_usual(text)


load_as_usual = get_loader("yaml")
set_loader("yaml", strictly, exceptions=(yaml.YAMLError, KeyTwiceError))

MOVED_OPTIONS = {
    "acquisition.coldness": "acquisition.selection.coldness",
    "acquisition.latent": "acquisition.complement.latent",
    "acquisition.nested": "acquisition.posterior.nested",
    "acquisition.threshold": "acquisition.complement.threshold",
    "data.balanced_initial_labels": "acquisition.initial_selection.balanced",
    "data.cache_folder": "data.source.cache_folder",
    "data.channels": "data.source.channels",
    "data.image_size": "data.source.image_size",
    "data.predict_folder": "predictions.folder",
    "data.repeats": "data.source.repeats",
    "data.skip_unreadable": "data.source.skip_unreadable",
    "data.subset": "data.source.subset",
    "predictions.sort_by_bald": "predictions.sort_by",
}
"""Options of earlier versions and where they are now."""

KNOWN_BY_NAME = (UnlabelledFolder, LabelStudio, Joint, FixMatch, geometry, rivals)
"""In files that nothing else here imports: a short name means what is imported."""

SECTIONS = ("model", "data", "acquisition", "vae", "trainer", "predictions")


class Parser(LightningArgumentParser):
    """Says what is wrong in one sentence, without the list of all options before it."""

    arguments: ClassVar[list[str]] = []
    """The command line, to find in it what an inner parser complains of."""

    chosen: ClassVar[dict[str, str]] = {}
    """The class that the files name for each option that takes a plug-in, and the defaults."""

    places: ClassVar[dict[str, str]] = {}
    """File and setting of each option that files give to a class."""

    @override
    def error(self, message: str, _: Exception | None = None) -> NoReturn:
        """End with exit code 2."""
        text = re.sub(r'Parser key "([^"]+)"', r"--\1", " ".join(message.split()))
        unknown = re.match(r"unrecognized arguments: --([\w.]+)", text)
        options = [option for option in self._option_string_actions if option.startswith("--")]
        similar = get_close_matches(f"--{unknown[1]}", options, 1) if unknown else []
        if unknown and unknown[1] in MOVED_OPTIONS:
            text, hint = moved(unknown[1]), ""
        elif explained := (
            explain_plugin(text, self.arguments, self.chosen)
            or explain_class(text, self.arguments, self.places)
            or explain_text(text, self.places)
        ):
            text, hint = explained, ""
        elif unknown and (full := full_names(unknown[1], options)):
            hint = f" Did you mean {' or '.join(full)}?"
        elif similar:
            hint = f" Did you mean {similar[0]}?"
        else:
            hint = f" See {self.prog.replace(' [options]', '')} --help."
        end = "" if text.endswith("?") else "."
        self.exit(2, f"baldvae: error: {text.rstrip('.')}{end}{hint}\n")


def moved(option: str) -> str:
    """Say where an option of an earlier version is now."""
    new = MOVED_OPTIONS[option]
    section, *path, name = new.split(".")
    in_yaml = f"{section}: {{{name}: ...}}"
    if path:
        in_yaml = f"{section}: {{{path[0]}: {{init_args: {{{name}: ...}}}}}}"
    return f"--{option} is now --{new}, in a file {in_yaml}"


def plugins() -> dict[str, list[str]]:
    """Return the short names of what each option for a plug-in takes."""
    return {
        "acquisition.selection": class_names(Selection),
        "acquisition.initial_selection": class_names(Selection),
        "acquisition.complement": class_names(Complement),
        "acquisition.posterior": class_names(Posterior),
        "data.source": class_names(DataSource),
        "data.embedding": class_names(Embedding),
        "data.oracle": class_names(Oracle),
        "model.objective": class_names(Objective),
    }


def class_names(base: type) -> list[str]:
    """Return the names of all concrete classes below a base."""
    children: list[type] = base.__subclasses__()
    below = [name for child in children for name in class_names(child)]
    own = [child.__name__ for child in children if not inspect.isabstract(child)]
    return sorted(name for name in {*below, *own} if not name.startswith("LazyInstance"))


def explain_plugin(text: str, arguments: Sequence[str], in_files: Mapping[str, str]) -> str | None:
    """Turn what jsonargparse says of a plug-in into a sentence that lists what there is.

    Args:
        text: Its message.
        arguments: The command line, since the message may name neither option nor class.
        in_files: The classes that configuration files name, by their options.
    """
    wrong = re.search(r"Option '([\w.]+)' is not accepted", text)
    found = re.search(r"--(?:\w+\.)?((?:acquisition|data|model|vae)\.\w+)\b", text)
    if wrong and not found:
        said = (re.match(rf"--([\w.]+)\.{wrong[1]}\b", argument) for argument in arguments)
        found = next((match for match in said if match), None)
    names = plugins().get(found[1]) if found else None
    if found is None or names is None:
        return None
    setting = f"--{found[1]}"
    if wrong:
        class_path = re.search(r"class_path '([\w.]+)'", text)
        pairs = zip(arguments, [*arguments[1:], ""], strict=True)
        here = [a.partition("=")[2] or after for a, after in pairs if a.split("=")[0] == setting]
        name = class_path[1] if class_path else [in_files.get(found[1], ""), *here][-1]
        return f"{setting}: {has_no_option(name, wrong[1])}"
    given = re.findall(r"Given value: ([\w.]*\w)|(?:path string:|Import path) ([\w.]*\.\w+)", text)
    value = next((first or second for first, second in given), None)
    value = value or next(iter(re.findall(r"path string: (\w+)", text)), None)
    if value is None:
        return None
    plain = value.replace("_", "").lower()
    same = {"none": "NoComplements"} | {name.lower(): name for name in names}
    if plain in same and same[plain] in names:
        return f"{setting}: {value!r} is unknown. Did you mean {same[plain]}?"
    choices = f"Choose one of {', '.join(names)}, or give" if names else "Give"
    return (
        f"{setting}: {value!r} is not what it takes. {choices} an import path such as "
        "my_file.my_object"
    )


def explain_class(text: str, arguments: Sequence[str], places: Mapping[str, str]) -> str | None:
    """Say where an option stands that a class does not have.

    Args:
        text: What jsonargparse says.
        arguments: The command line.
        places: File and setting of the options that files give to classes.
    """
    wrong = re.search(r"Option '([\w.]+)' is not accepted", text)
    if wrong is None:
        return None
    said = (re.match(rf"(--[\w.]+)\.{wrong[1]}\b", argument) for argument in arguments)
    here = next((match[1] for match in said if match), places.get(wrong[1]))
    return here and f"{here}: what it names has no option {wrong[1]!r}"


def explain_text(text: str, places: Mapping[str, str]) -> str | None:
    """Say where a value stands that is meant as text, and is a number, date or bool in YAML."""
    no_text = re.match(
        r"(--[\w.]+): (?=.*Expected a <class 'str'>).*(?:Got|Given) value: ([^\s'\"]+)$", text
    )
    if no_text is None:
        return None
    here = places.get(no_text[1].removeprefix("--"))
    setting = f"{here}.{no_text[1].removeprefix('--')}" if here else no_text[1]
    return (
        f"{setting}: YAML takes what is given for {no_text[2]}, which is no text. Put it in quotes"
    )


def full_names(option: str, options: Sequence[str]) -> list[str]:
    """Return the options whose last part this is, those of plug-ins among them."""
    nested = [f"--{setting}.{name}" for setting, name in options_of_plugins()]
    return [full for full in (*options, *nested) if full.endswith(f".{option}")]


def options_of_plugins() -> list[tuple[str, str]]:
    """Return the options of all plug-ins, with the option that takes the plug-in."""
    found = {
        (setting, option)
        for setting, names in plugins().items()
        for name in names
        if (made := find_class(name)) is not None
        for option in inspect.signature(made).parameters
    }
    return sorted(found)


def has_no_option(name: str, option: str) -> str:
    """Say which options a class has; it may be named by a short name or an import path."""
    short = name.rpartition(".")[2]
    made = find_class(name)
    if not name or not callable(made):
        return f"it has no option {option!r}"
    there = ", ".join(inspect.signature(made).parameters) or "none"
    return f"{short} has no option {option!r}; its options are: {there}"


class ShippedConfigFile(ActionConfigFile):
    """``--config NAME``: a file here, else one of those that come with the package."""

    def __call__(self, parser: Any, config: Any, values: Any, option_string: Any = None) -> None:
        """Look the name up and parse the file."""
        check_sections(parser, find_config(values))
        super().__call__(parser, config, find_config(values), option_string)  # type: ignore[no-untyped-call]


def check_sections(parser: Any, path: str) -> None:
    """End with an error for what jsonargparse would pass over in silence."""
    try:
        settings = load_yaml(Path(path))
    except KeyTwiceError as error:
        parser.error(f"{path}: {error}")
    except (UnicodeError, RecursionError) as error:
        parser.error(f"{path}: this is no YAML in UTF-8 ({error})")
    except UNREADABLE:
        return  # which jsonargparse says
    known = [option for option in parser._option_string_actions if option.startswith("--")]
    for section, options in settings.items() if isinstance(settings, dict) else ():
        if f"--{section}" not in known and not any(o.startswith(f"--{section}.") for o in known):
            meant = full_names(str(section), known) or get_close_matches(f"--{section}", known, 1)
            hint = f". Did you mean {' or '.join(meant)}?" if meant else ""
            parser.error(f"{path}: there is no option {str(section)!r}{hint}")
        if section in SECTIONS and not isinstance(options, dict):
            parser.error(f"{path}: {section}: {options} are no options with values")
        for option in options if isinstance(options, dict) else ():
            if f"{section}.{option}" in MOVED_OPTIONS:
                parser.error(f"{path}: {moved(f'{section}.{option}')}")
        for option, value in options.items() if isinstance(options, dict) else ():
            given = value.get("init_args") if isinstance(value, dict) else None
            Parser.places |= dict.fromkeys(given or (), f"{path}: --{section}.{option}")
            check_plugin(parser, path, f"{section}.{option}", value)
        if section == "data" and "seed" in (options or ()):
            parser.error(f"{path}: data.seed follows from seed_everything, set that instead")


def check_plugin(parser: Any, path: str, setting: str, value: Any) -> None:
    """End with an error for options that a plug-in in a file does not have; note its class."""
    if setting not in plugins():
        return
    if isinstance(value, dict) and "class_path" in value:
        for key in sorted(value.keys() - {"class_path", "init_args", "dict_kwargs"}):
            parser.error(
                f"{path}: --{setting}: beside class_path stands {key!r}. Put the options of the "
                "class below init_args"
            )
    name = value if isinstance(value, str) else (value or {}).get("class_path")
    Parser.chosen[setting] = str(name or Parser.chosen.get(setting, ""))
    options = value.get("init_args") if isinstance(value, dict) else None
    made = find_class(Parser.chosen[setting])
    if not isinstance(options, dict) or not callable(made):
        return
    parameters = inspect.signature(made).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return  # which may stand for anything
    for option in options:
        if option not in parameters:
            parser.error(f"{path}: --{setting}: {has_no_option(Parser.chosen[setting], option)}")


def find_class(name: str) -> Any:
    """Return the class that a short name or an import path names; None if there is none."""
    try:
        return pkgutil.resolve_name(name if "." in name else f"baldvae_pl.{name}")
    except (ImportError, AttributeError, ValueError):
        return None


def check_not_null(config: Any, **sections: type) -> None:
    """Raise a SettingError for a null where a value is needed, by what a section's options make."""
    for section, made in sections.items():
        for name, parameter in inspect.signature(made).parameters.items():
            default = parameter.default
            if type(None) in get_args(parameter.annotation):
                continue
            if default is not None and config[section].get(name, default) is None:
                raise SettingError(
                    f"--{section}.{name}: null is no value for it. Leave it out, for its default."
                )
