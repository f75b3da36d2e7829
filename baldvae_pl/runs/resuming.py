"""Which run a start goes on with, and whether it may."""

import hashlib
import json
from pathlib import Path

import yaml
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

import baldvae_pl
from baldvae_pl import __version__
from baldvae_pl.errors import SettingError
from baldvae_pl.runs.checkpoints import RunCheckpoint, newest_checkpoint
from baldvae_pl.runs.folder import RunFolder, job, restarted
from baldvae_pl.runs.settings import check_same_settings, first_difference, load_settings

DECIDE_NOTHING = ("cli", "experiments", "reports", "runs", "main.py", "moved.py")
"""Parts of the package that may change without changing any result."""


def newest_run(experiment: Path, begins_again: bool) -> tuple[RunFolder, RunCheckpoint | None]:
    """Return the newest run of an experiment and its newest sound checkpoint.

    Args:
        experiment: The folder of its runs.
        begins_again: Whether a run without a checkpoint will do; it begins again then.

    Raises:
        SettingError: If there is none.
    """
    runs = [RunFolder(path) for path in experiment.glob("version_*")]
    for run in sorted(runs, key=lambda run: run.version, reverse=True):
        checkpoint = newest_checkpoint(run)
        if checkpoint is not None:
            return run, checkpoint
        if begins_again:
            rank_zero_info(f"{run.path} has no checkpoint yet: it begins again.")
            return run, None
    raise SettingError(
        f"--ckpt_path: there is no run in {experiment} to go on from. Leave --ckpt_path out to "
        "start one, or give the path of a checkpoint."
    )


def requeued_run(experiment: Path, settings: str) -> RunFolder | None:
    """Return the run that this job began before its scheduler gave the command again.

    Args:
        experiment: The folder of its runs.
        settings: Of this start, as YAML.
    """
    if not restarted():
        return None
    runs = [RunFolder(path) for path in experiment.glob("version_*")]
    for run in sorted(runs, key=lambda run: run.version, reverse=True):
        identity = run.read_identity()
        if identity is None or identity.job != job() or not run.config.is_file():
            continue
        if first_difference(load_settings(run.config), yaml.safe_load(settings)) is None:
            rank_zero_info(f"Job {identity.job} was begun again: it goes on with {run.path}")
            return run
    return None


def folder_of(run: RunFolder) -> Path | None:
    """Return the folder of the images that a run has asked about."""
    try:
        return Path(json.loads(run.question.read_text(encoding="utf-8"))["root"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def unfinished_run(experiment: Path, settings: str, root: Path) -> RunFolder | None:
    """Return the newest run of people who label, if it has these settings and goes on.

    One that was made with another version does not: a new run begins with all labels.

    Args:
        experiment: The folder of its runs.
        settings: Of this start, as YAML.
        root: Folder of the images.
    """
    runs = [RunFolder(path) for path in experiment.glob("version_*")]
    newest = max(runs, key=lambda run: run.version, default=None)
    if newest is None or newest.done.exists() or not newest.config.is_file():
        return None
    if first_difference(load_settings(newest.config), yaml.safe_load(settings)) is not None:
        return None
    if (about := folder_of(newest)) is not None and about != root.absolute() and about.is_dir():
        rank_zero_info(f"{newest.path} is about {about}: a new run begins.")
        return None
    checkpoint = newest_checkpoint(newest)
    if checkpoint is not None and (checkpoint.version, checkpoint.code) != (
        __version__,
        digest_of_code(),
    ):
        rank_zero_info(f"{newest.path} was made with another version: a new run begins.")
        return None
    rank_zero_info(f"It goes on with {newest.path}")
    return newest


def check_goes_on(checkpoint: RunCheckpoint, rounds: int | None) -> None:
    """Raise a SettingError if a run has bought more often than it is asked to."""
    if rounds is None:
        return
    done = len(checkpoint.rounds["history"]) - 1
    if rounds < done:
        raise SettingError(
            f"--acquisition.rounds: {rounds} is less than the {done} purchases that this run has "
            "made. Take more of them to go on, or leave --ckpt_path out to start another run."
        )
    if rounds == done:
        rank_zero_info(f"This run has finished its {rounds} rounds; for more, raise the number.")


def digest_of_code() -> str:
    """Name the code that decides results: between two releases all has the same version."""
    package = Path(baldvae_pl.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        wing = path.relative_to(package).parts[0]
        if wing not in DECIDE_NOTHING:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class RunSettings(Callback):
    """Leaves in each checkpoint which settings and which code it was made with."""

    def __init__(self, settings: str) -> None:
        self.settings = settings

    @override
    def state_dict(self) -> dict[str, str]:
        return {"settings": self.settings, "version": __version__, "code": digest_of_code()}


def check_same_run(checkpoint: RunCheckpoint, settings: str) -> None:
    """Raise a SettingError if a run would go on with other settings or code."""
    if checkpoint.version != __version__:
        raise SettingError(
            f"--ckpt_path: {checkpoint.path} was made with baldvae {checkpoint.version}, this is "
            f"{__version__}. Install that version, or, to mix them, add --resume_changed true."
        )
    if checkpoint.code != (code := digest_of_code()):
        raise SettingError(
            f"--ckpt_path: {checkpoint.path} was made with other code of baldvae {__version__} "
            f"(its digest is {checkpoint.code}, of this one {code}). Go on with that code, or, to "
            "mix them, add --resume_changed true."
        )
    before = yaml.safe_load(checkpoint.settings)
    check_same_settings(before, yaml.safe_load(settings), str(checkpoint.path))
