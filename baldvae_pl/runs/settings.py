"""Settings of a run: in which of them two starts of one run may differ."""

from pathlib import Path
from typing import Any

import yaml

from baldvae_pl.errors import SettingError
from baldvae_pl.runs.folder import RunFolder
from baldvae_pl.runs.yaml_files import UNREADABLE, load_yaml

DECIDE_RESULTS = ("acquisition", "data", "model", "seed_everything", "trainer", "vae")
"""Sections whose settings decide what comes out, but for those that follow."""

LABELLED_BY_PEOPLE = "UnlabelledFolder"
"""The source whose answers are in a file, whoever asks for them."""

MAY_CHANGE_ON_RESUME = (
    "acquisition.rounds",
    "data.budget",
    "data.embedding.init_args.weights",  # a file may lie elsewhere: what is in it is looked at
    "data.eval_batch_size",
    "data.labels",
    "data.root",
    "data.scoring_batch_size",
    "data.source.init_args.cache_folder",
    "data.source.init_args.classes",
    "vae.ckpt_path",
    "vae.shared_path",
)

TRAINER_SETTINGS_THAT_MATTER = ("precision", "gradient_clip_val", "gradient_clip_algorithm")
"""All others of the trainer may change on resume."""


def first_difference(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Return the first setting in which two runs differ, of those that may not in one run."""
    old, new = flat(before), flat(now)
    source = str(new.get("data.source.class_path")).rpartition(".")[2]
    for name in sorted({*old, *new}):
        section, _, option = name.partition(".")
        if section not in DECIDE_RESULTS or old.get(name) == new.get(name):
            continue
        if section == "trainer" and option not in TRAINER_SETTINGS_THAT_MATTER:
            continue
        if source == LABELLED_BY_PEOPLE and name.startswith("data.oracle"):
            continue
        if name not in MAY_CHANGE_ON_RESUME:
            return name
    return None


def check_same_settings(before: dict[str, Any], now: dict[str, Any], run: str) -> None:
    """Raise a SettingError if a run would go on with other settings than it was started with."""
    if name := first_difference(before, now):
        raise SettingError(
            f"--{name}: {value_at(now, name)} is not what the run of {run} was started with, "
            f"{value_at(before, name)}. Give that, or leave --ckpt_path out to start another run, "
            "or, to mix them, add --resume_changed true."
        )


def check_begun(run: RunFolder, settings: str) -> None:
    """Raise a SettingError if a run without a checkpoint would begin again with other settings."""
    if run.config.is_file():
        before = load_settings(run.config)
        check_same_settings(before, yaml.safe_load(settings), str(run.path))


def load_settings(config: Path) -> dict[str, Any]:
    """Return the settings of a run's ``config.yaml``.

    Raises:
        SettingError: If the file cannot be read.
    """
    try:
        settings = load_yaml(config)
    except UNREADABLE as error:
        settings = " ".join(str(error).split())
    if isinstance(settings, dict):
        return settings
    raise SettingError(
        f"{config} is damaged ({settings}). A run without a checkpoint begins again by it: leave "
        "--ckpt_path out to start another run, or remove the file to begin again with what is "
        "given now."
    )


def value_at(settings: Any, name: str) -> Any:
    """Return the setting of a dotted name, or the part of the name that there is."""
    for part in name.split("."):
        if not isinstance(settings, dict):
            break
        settings = settings.get(part)
    return settings


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    if not isinstance(settings, dict):
        return {prefix: settings}
    return {
        name: value
        for key, part in settings.items()
        for name, value in flat(part, f"{prefix}.{key}" if prefix else str(key)).items()
    }
