"""The callback that writes what `baldvae predict` finds out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.special import entr
from typing_extensions import override

from baldvae_pl import acquisition as functions
from baldvae_pl.acquisition import NetworkScore, bald, max_entropy
from baldvae_pl.data.batches import Batch
from baldvae_pl.data.feature_cache import check_network
from baldvae_pl.data.image_cache import read_images
from baldvae_pl.data.image_folder import find_images
from baldvae_pl.data.images import check_range
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.epig import EPIG, Acquisition
from baldvae_pl.errors import SettingError, refused
from baldvae_pl.loop.processes import Processes, pool_data
from baldvae_pl.loop.scoring import for_targets
from baldvae_pl.options import resolve
from baldvae_pl.runs.tables import write_csv
from baldvae_pl.seeding import Purpose, make_generator

COLUMNS = ["file", "class", "probability", "entropy", "bald"]
"""Of every table of predictions."""


class Predictions(Callback):
    """Writes a CSV file with a row for each image of a folder.

    Its columns: the file, the predicted class, its probability, in nats the entropy and the BALD
    score of the prediction, all averaged over the posterior's draws, and the scores of the run's
    acquisition function and of ``sort_by``, if these are others.

    Args:
        folder: The images, at any depth.
        file: The CSV file to write.
        sort_by: Acquisition function whose highest scores come first, as what to label next; any
            that ``--acquisition.function`` takes. Left out, in order of names.
        skip_unreadable: Leave out image files that cannot be decoded, instead of refusing them.
        cache_folder: Where decoded images are kept, ``~/.cache/baldvae`` if left out.
    """

    def __init__(
        self,
        folder: str | None = None,
        file: str = "predictions.csv",
        sort_by: NetworkScore | EPIG | Callable[[Tensor], Any] | str | None = None,
        skip_unreadable: bool = False,
        cache_folder: str | None = None,
    ) -> None:
        self.folder = folder
        self.file = Path(file).expanduser()
        self.sort_by: Acquisition | None = resolve("--predictions.sort_by", sort_by, functions)
        self.skip_unreadable = skip_unreadable
        self.cache_folder = cache_folder

    def read(self, data: PoolDataModule, function: Acquisition = bald) -> None:
        """Hand the images of the folder to the data module.

        Args:
            data: Its pools say which format the images have.
            function: The run's acquisition function.

        Raises:
            SettingError: If there is no folder, no image in it, or nowhere to write.
        """
        if self.folder is None:
            raise SettingError("--predictions.folder: predict needs a folder of images. Name it.")
        if not self.file.parent.is_dir():
            raise SettingError(
                f"--predictions.file: there is no folder {str(self.file.parent)!r} to write "
                f"{self.file.name!r} to. Make it, or name another."
            )
        setting, embedded = "--predictions.folder", data.embedded
        embedder = None if data.embedding is None else data.embedder(self.cache_folder)
        check_network(embedded, embedder.key if embedder else None)
        shape = embedded["picture_shape"] if embedded else data.pool.image_shape
        if len(shape) != 3:
            raise SettingError(
                f"{setting}: the run was trained on vectors of {shape[0]} numbers, not on pictures."
            )
        folder = Path(self.folder).expanduser()
        images, self.files, fingerprint = read_images(
            folder,
            find_images(folder, setting),
            (shape[0], shape[1], shape[2]),
            skip_unreadable=self.skip_unreadable,
            cache_folder=self.cache_folder,
            setting=setting,
            section="--predictions",
        )
        check_range(images, setting)
        self.own = function
        wanted = [f for f in (function, self.sort_by) if f is not None]
        self.functions = {name_of(f): f for f in wanted if name_of(f) not in COLUMNS}
        data.predict_images = embedder(images, fingerprint, "images") if embedder else images

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        columns = len(COLUMNS) - 1 + len(self.functions)
        self.rows_N_K = torch.zeros(len(self.files), columns, device=pl_module.device)
        data, module, each = pool_data(trainer), pl_module, Processes(trainer, pl_module)
        draws: Any = module.draws
        images: Any = data.predict_images
        for name, function in self.functions.items():
            if isinstance(function, EPIG):
                generator = make_generator(data.seed, 0, Purpose.TARGETS)
                everything = torch.arange(len(images))
                self.functions[name] = for_targets(
                    each, draws, function, images, everything, generator
                )

    @override
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        log_probs_N_T_C: Tensor = outputs
        mean_N_C = log_probs_N_T_C.exp().mean(1)
        probability_N, class_N = mean_N_C.max(1)
        columns = [class_N, probability_N, entr(mean_N_C).sum(-1), bald(log_probs_N_T_C)]
        self.rows_N_K[batch[1], : len(columns)] = torch.stack(columns, 1)
        network: Any = pl_module.network
        for place, (name, function) in enumerate(self.functions.items(), len(columns)):
            is_own = name == name_of(self.own)
            setting = "--acquisition.function" if is_own else "--predictions.sort_by"
            with refused(f"{setting} {name}"):
                if isinstance(function, NetworkScore):
                    scores_N = function.score(network, batch[0])
                else:
                    ready: Any = function  # EPIG has its targets since the start
                    scores_N = ready(log_probs_N_T_C)
                self.rows_N_K[batch[1], place] = scores_N.float()

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rows_N_K: Tensor = trainer.strategy.reduce(self.rows_N_K, reduce_op="sum")
        if not trainer.is_global_zero:
            return
        header = [*COLUMNS, *self.functions]
        order = list(range(len(rows_N_K)))
        if self.sort_by is not None:
            scores_N = rows_N_K[:, header.index(name_of(self.sort_by)) - 1]
            order = scores_N.argsort(descending=True, stable=True).tolist()
        rows, classes = rows_N_K.tolist(), pool_data(trainer).classes
        named = ([self.files[i], classes[int(rows[i][0])], *rows[i][1:]] for i in order)
        write_csv(self.file, header, named)
        rank_zero_info(f"Wrote {len(rows):,} rows to {self.file}")


def name_of(function: Acquisition) -> str:
    """Return the name of its column."""
    if isinstance(function, NetworkScore | EPIG):
        return type(function).__name__
    return "entropy" if function is max_entropy else getattr(function, "__name__", "score")
