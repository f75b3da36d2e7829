"""Checkpoints of runs: found, read and checked, and written safely."""

import pickle
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from baldvae_pl.errors import SettingError
from baldvae_pl.runs.files import replacing

LAST, PREVIOUS, VAE_WEIGHTS = "last.ckpt", "previous.ckpt", "vae.ckpt"

UNREADABLE = (
    *(OSError, RuntimeError, EOFError, ValueError, AttributeError),
    *(KeyError, TypeError, pickle.UnpicklingError, zipfile.BadZipFile),
)
"""What is raised for a file that is not a checkpoint, half of one, or holds code."""


class SafeCheckpointIO(TorchCheckpointIO):
    """There is no half-written file, and the last checkpoint but one is kept too."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        path = Path(path)
        if path.name == LAST and path.exists():
            kept = path.with_name(PREVIOUS)
            kept.unlink(missing_ok=True)
            with suppress(OSError):  # where files cannot be linked, one is kept
                kept.hardlink_to(path)
        with replacing(path) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        return load_checkpoint(Path(path))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds: tensors and plain values only, no code is run.

    Raises:
        UNREADABLE: If the file is missing, damaged or something else.
    """
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:  # torch does not look at the check sums
            raise zipfile.BadZipFile
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return checkpoint


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a run's checkpoint.

    Raises:
        SettingError: If the file is missing or something else.
    """
    try:
        checkpoint = load_checkpoint(path)
        if {"PoolDataModule", "callbacks", "state_dict"} <= checkpoint.keys():
            return checkpoint
        reason = "it holds no pools"
    except FileNotFoundError:
        reason = "there is no such file"
    except UNREADABLE:
        reason = "it is damaged or something else"
    raise SettingError(
        f"--ckpt_path: '{path}' is not a checkpoint of a run ({reason}). Give the path of a "
        f"{LAST}, or `last` for the newest run of this experiment."
    )


def newest_checkpoint(run: Path) -> Path | None:
    """Return the newest sound checkpoint in a run folder, if there is one.

    ``last.ckpt``, unless it is missing or damaged, which is said.

    Raises:
        SettingError: If there are checkpoints, but no sound one.
    """
    found = [path for path in (run / "checkpoints").glob("*.ckpt") if path.name != VAE_WEIGHTS]
    found.sort(key=lambda path: (path.name == LAST, path.stat().st_mtime_ns), reverse=True)
    for path in found:
        try:
            read_checkpoint(path)
        except SettingError as error:
            rank_zero_warn(f"{error} The next older one is tried.")
        else:
            return path
    if found:
        raise SettingError(
            f"--ckpt_path: no checkpoint in {run} can be read. Name another by its path, or leave "
            "--ckpt_path out to start anew; the labels that were bought are in acquisitions.csv."
        )
    return None
