"""The callback that writes what `baldvae predict` finds out."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from baldvae_pl.data.batches import Batch
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.errors import SettingError
from baldvae_pl.runs.records import write_csv

COLUMNS = ["file", "class", "probability", "entropy", "bald"]


class Predictions(Callback):
    """Writes a CSV file with a row for each image of a folder.

    Its columns: the file, the predicted class, its probability, and in nats the entropy and the
    BALD score of the prediction, all averaged over the posterior's draws.

    Args:
        file: The CSV file to write.
        sort_by_bald: Highest BALD first: what to label next. Otherwise in order of names.
    """

    def __init__(self, file: str = "predictions.csv", sort_by_bald: bool = False) -> None:
        self.file = Path(file)
        self.sort_by_bald = sort_by_bald

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "predict" and not self.file.parent.is_dir():
            raise SettingError(
                f"--predictions.file: there is no folder {str(self.file.parent)!r} to write "
                f"{self.file.name!r} to. Make it, or name another."
            )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: PoolDataModule = trainer.datamodule  # type: ignore[attr-defined]
        self.data = data
        self.rows_N_4 = torch.zeros(len(data.predict_files), 4, device=pl_module.device)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.rows_N_4[batch[1]] = outputs

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rows_N_4: Tensor = trainer.strategy.reduce(self.rows_N_4, reduce_op="sum")
        if not trainer.is_global_zero:
            return
        order = list(range(len(rows_N_4)))
        if self.sort_by_bald:
            order = rows_N_4[:, 3].argsort(descending=True, stable=True).tolist()
        files, rows = self.data.predict_files, rows_N_4.tolist()
        named = ([files[i], self.data.classes[int(rows[i][0])], *rows[i][1:]] for i in order)
        write_csv(self.file, COLUMNS, named)
        rank_zero_info(f"Wrote {len(rows):,} rows to {self.file}")
