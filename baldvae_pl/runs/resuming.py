"""Run folders: which one a start belongs to, that it is the only one there, and its settings."""

from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_info

from baldvae_pl import __version__
from baldvae_pl.errors import SettingError
from baldvae_pl.runs.checkpoints import newest_checkpoint
from baldvae_pl.runs.files import replacing

CONFIG = "config.yaml"

FREE = {
    "acquisition": {"rounds"},
    "data": {"root", "cache_folder", "predict_folder", "eval_batch_size", "scoring_batch_size"},
    "vae": {"ckpt_path", "shared_path"},
}
"""What may differ when a run goes on, beside the trainer but for what follows."""

OF_THE_TRAINER = {"precision", "gradient_clip_val", "gradient_clip_algorithm"}


def last_of(experiment: Path, begins_again: bool) -> tuple[Path, str | None]:
    """Return the newest run of an experiment and its newest sound checkpoint.

    Args:
        experiment: The folder of its runs.
        begins_again: Whether a run without a checkpoint will do; it begins again then.

    Raises:
        SettingError: If there is none.
    """
    runs = sorted(experiment.glob("version_*"), key=number_of, reverse=True)
    for run in runs:
        checkpoint = newest_checkpoint(run)
        if checkpoint is not None:
            return run, str(checkpoint)
        if begins_again:
            rank_zero_info(f"{run} has no checkpoint yet: it begins again.")
            return run, None
    raise SettingError(
        f"--ckpt_path: there is no run in {experiment} to go on from. Leave --ckpt_path out to "
        "start one, or give the path of a checkpoint."
    )


def number_of(run: Path) -> int:
    """Return the k of version_k, -1 for another name."""
    number = run.name.removeprefix("version_")
    return int(number) if number.isdigit() else -1


def name_of(config: str | Path) -> str:
    """Return what a config file adds to the name of its experiment; a run's own has the run's."""
    path = Path(str(config)).absolute()
    in_a_run = path.name == CONFIG and path.parent.name.startswith("version_")
    return path.parent.parent.name if in_a_run else path.stem


def run_folder(trainer: Trainer) -> Path:
    """Return the folder of the run; to be called on every process, as rank 0 is asked."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def claim(run: Path, settings: str) -> FileLock:
    """Make a run folder with its ``config.yaml``, and hold it until the lock is released.

    Raises:
        SettingError: If another process holds it, or it cannot be written.
    """
    lock = FileLock(run / ".lock")
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise SettingError(
            f"--trainer.default_root_dir: another process works in the run folder {run}. Wait for "
            "its end, or start a run of its own by leaving --ckpt_path out."
        ) from error
    except (OSError, NotImplementedError) as error:
        raise SettingError(
            f"--trainer.default_root_dir: the run folder {run} cannot be written ({error}). "
            "Name a folder that can."
        ) from error
    with replacing(run / CONFIG, "w") as file:
        file.write(settings)
    return lock


def check_goes_on(checkpoint: dict[str, Any], rounds: int) -> None:
    """Raise a SettingError if a run has bought more often than it shall."""
    done = len(checkpoint["callbacks"]["ActiveLearning"]["history"]) - 1
    if rounds < done:
        raise SettingError(
            f"--acquisition.rounds: {rounds} is less than the {done} purchases that this run has "
            "made. Take more of them to go on, or leave --ckpt_path out to start another run."
        )
    if rounds == done:
        rank_zero_info(f"This run has finished its {rounds} rounds; for more, raise the number.")


def check_begun(run: Path, settings: str) -> None:
    """Raise a SettingError if a run without a checkpoint would begin again with other settings."""
    if (run / CONFIG).is_file():
        before = yaml.safe_load((run / CONFIG).read_text())
        check_same_settings(before, yaml.safe_load(settings), run)


def check_same_settings(before: dict[str, Any], now: dict[str, Any], run: Path | str) -> None:
    """Raise a SettingError if a run would go on with other settings than it was started with."""
    if name := first_difference(before, now):
        raise SettingError(
            f"--{name}: {flat(now).get(name)} is not what the run of {run} was started with, "
            f"{flat(before).get(name)}. Give that, or leave --ckpt_path out to start another run, "
            "or, if they shall be mixed, add --resume_changed true."
        )


def first_difference(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Return the first setting in which two runs differ, of those that may not in one run."""
    old, new = flat(before), flat(now)
    for name in sorted({*old, *new}):
        section, _, option = name.partition(".")
        if old.get(name) == new.get(name) or option.split(".")[0] in FREE.get(section, set()):
            continue
        if section == "trainer" and option not in OF_THE_TRAINER:
            continue
        if section in ("model", "data", "acquisition", "vae", "trainer", "seed_everything"):
            return name
    return None


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    if not isinstance(settings, dict):
        return {prefix: settings}
    return {
        name: value
        for key, part in settings.items()
        for name, value in flat(part, f"{prefix}.{key}" if prefix else str(key)).items()
    }


class RunSettings(Callback):
    """Leaves in each checkpoint which settings and which version it was made with."""

    def __init__(self, settings: str) -> None:
        self.settings = settings

    def state_dict(self) -> dict[str, str]:
        return {"settings": self.settings, "version": __version__}


def check_same_run(checkpoint: dict[str, Any], settings: str, path: str) -> None:
    """Raise a SettingError if a run would go on with other settings or code."""
    before = checkpoint["callbacks"].get("RunSettings")
    if before is None or before["version"] != __version__:
        version = before["version"] if before else "0.1 or an earlier one"
        raise SettingError(
            f"--ckpt_path: {path} was made with baldvae {version}, this is {__version__}. Install "
            "that version, or, if they shall be mixed, add --resume_changed true."
        )
    check_same_settings(yaml.safe_load(before["settings"]), yaml.safe_load(settings), path)
