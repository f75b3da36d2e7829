"""Checkpoints of runs: found, read and checked, and written safely."""

import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from baldvae_pl.errors import SettingError
from baldvae_pl.runs.files import replacing
from baldvae_pl.runs.folder import RunFolder

UNREADABLE = Exception
"""Raised for a file that is not a checkpoint, half of one, or holds code: by torch, anything."""


@dataclass
class RunCheckpoint:
    """A checkpoint of a run, and the only place that knows its keys.

    Attributes:
        path: The file.
        content: What it holds: tensors and plain values.
    """

    path: Path
    content: dict[str, Any]

    @property
    def weights(self) -> dict[str, Any]:
        """State of the LightningModule."""
        weights: dict[str, Any] = self.content["state_dict"]
        return weights

    @property
    def pools(self) -> dict[str, Any]:
        """State of the PoolDataModule."""
        pools: dict[str, Any] = self.content["PoolDataModule"]
        return pools

    @property
    def rounds(self) -> dict[str, Any]:
        """State of the ActiveLearning callback."""
        rounds: dict[str, Any] = self.content["callbacks"]["ActiveLearning"]
        return rounds

    @property
    def settings(self) -> str:
        """The settings of the run, as YAML."""
        settings: str = self.content["callbacks"]["RunSettings"]["settings"]
        return settings

    @property
    def version(self) -> str:
        """The version of baldvae that made it."""
        made_with = self.content["callbacks"].get("RunSettings")
        return made_with["version"] if made_with else "0.1 or an earlier one"

    @property
    def code(self) -> str:
        """A digest of the code that made it."""
        code: str = self.content["callbacks"]["RunSettings"].get("code", "unknown")
        return code

    @property
    def in_a_round(self) -> bool:
        """Whether it was made within a training, and not at the end of a round."""
        rounds = self.content["loops"]["fit_loop"]["epoch_progress"]["current"]
        return bool(rounds["ready"] > rounds["processed"])


class SafeCheckpointIO(TorchCheckpointIO):
    """There is no half-written file, and the last checkpoint but one is kept too.

    Args:
        read: A checkpoint that has been read already, so that it is not read again.
    """

    def __init__(self, read: RunCheckpoint | None = None) -> None:
        super().__init__()
        self.read = read

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        path = Path(path)
        last = RunFolder(path.parent.parent).last
        if path.name == last.name and path.exists():
            kept = path.with_name("previous.ckpt")
            kept.unlink(missing_ok=True)
            with suppress(OSError):  # where files cannot be linked, one is kept
                kept.hardlink_to(path)
                if first_reaches_the_threshold(checkpoint):
                    RunFolder(path.parent.parent).branch.hardlink_to(path)
        with replacing(path) as file:
            torch.save(checkpoint, file)

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        read, self.read = self.read, None
        return read.content if read and read.path == Path(path) else load_checkpoint(Path(path))


def first_reaches_the_threshold(checkpoint: dict[str, Any]) -> bool:
    """Whether a labelled image has reached the threshold in the last round, and in none before."""
    rounds = checkpoint.get("callbacks", {}).get("ActiveLearning", {})
    margins = [row.get("bald/margin", 1.0) for row in rounds.get("history", [])]
    return bool(margins) and margins[-1] <= 0 < min(margins[:-1], default=1.0)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint's content: tensors and plain values only, no code is run.

    Raises:
        UNREADABLE: If the file is missing, damaged or something else.
    """
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:  # torch does not look at the check sums
            raise zipfile.BadZipFile
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return checkpoint


def read_checkpoint(path: Path) -> RunCheckpoint:
    """Read a run's checkpoint.

    Raises:
        SettingError: If the file is missing or something else, or of a version whose checkpoints
            cannot be read any more.
    """
    try:
        checkpoint = RunCheckpoint(path, load_checkpoint(path))
        if {"PoolDataModule", "callbacks", "state_dict"} <= checkpoint.content.keys():
            if "kinds" not in checkpoint.pools["pool"]["generated"]:
                raise SettingError(
                    f"--ckpt_path: {path} was made with baldvae {checkpoint.version}, whose "
                    "checkpoints this version does not read. Install that version to go on with it."
                )
            if checkpoint.in_a_round:
                raise SettingError(
                    f"--ckpt_path: {path} was made in the middle of a round. Runs go on from the "
                    "end of one: give the run's last.ckpt, or `last`."
                )
            return checkpoint
        reason = "it holds no pools"
    except SettingError:
        raise
    except FileNotFoundError:
        reason = "there is no such file"
    except UNREADABLE:
        reason = "it is damaged or something else"
    raise SettingError(
        f"--ckpt_path: '{path}' is not a checkpoint of a run ({reason}). Give the path of a "
        "last.ckpt, or `last` for the newest run of this experiment."
    )


def newest_checkpoint(run: RunFolder) -> RunCheckpoint | None:
    """Return the newest sound checkpoint in a run folder, if there is one.

    ``last.ckpt`` or, with a warning, the next older one.

    Raises:
        SettingError: If there are checkpoints, but no sound one.
    """
    found = [path for path in run.checkpoints.glob("*.ckpt") if path.name != run.vae.name]
    found.sort(key=lambda path: (path.name == run.last.name, path.stat().st_mtime_ns), reverse=True)
    for path in found:
        try:
            return read_checkpoint(path)
        except SettingError as error:
            if len(found) > 1:
                rank_zero_warn(f"{error} The next older one is tried.")
            else:
                raise
    if found:
        raise SettingError(
            f"--ckpt_path: no checkpoint in {run.path} can be read. Name another by its path, or "
            "leave --ckpt_path out to start anew; the labels that were bought are in "
            "acquisitions.csv."
        )
    return None
