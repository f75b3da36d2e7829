"""Checkpoints of runs: found, read and checked, and written safely."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from baldvae_pl.settings import SettingError

LAST = "last.ckpt"

UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, AttributeError, pickle.UnpicklingError)
"""What torch raises for a file that is not a checkpoint, or half of one."""


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to the disk, renames: there is no half-written file."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def newest_checkpoint(experiment: Path) -> Path:
    """Return the last checkpoint of the newest run that has one.

    Raises:
        SettingError: If no run of this experiment has one.
    """
    runs = {
        int(number): path
        for path in experiment.glob(f"version_*/checkpoints/{LAST}")
        if (number := path.parent.parent.name.removeprefix("version_")).isdigit()
    }
    if not runs:
        raise SettingError(
            f"--ckpt_path: there is no run in {experiment} to go on from. Leave --ckpt_path out to "
            "start one, or give the path of a checkpoint."
        )
    return runs[max(runs)]


def read_checkpoint(path: str) -> dict[str, Any]:
    """Return a run's checkpoint.

    Raises:
        SettingError: If the file is missing or something else.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        if {"PoolDataModule", "callbacks", "state_dict"} <= checkpoint.keys():
            return checkpoint
        reason = "it holds no pools"
    except FileNotFoundError:
        reason = "there is no such file"
    except UNREADABLE:
        reason = "it is damaged or something else"
    raise SettingError(
        f"--ckpt_path: {path!r} is not a checkpoint of a run ({reason}). Give the path of a "
        f"{LAST}, or `last` for the newest run of this experiment."
    )
