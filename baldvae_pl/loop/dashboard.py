"""What TensorBoard shows of a round, all against the number of labels."""

from collections.abc import Mapping

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torchvision.utils import make_grid

MOST_IMAGES = 64
"""A grid shows at most so many images."""


def log_round(trainer: Trainer, row: Mapping[str, float]) -> None:
    """Log a round's row; x is the number of labels that the round trained with."""
    scalars = {key: value for key, value in row.items() if "/" in key}
    counts = ("labelled", "unlabelled", "generated", "complemented")
    scalars |= {f"pool/{key}": row[key] for key in counts if key in row}
    for logger in trainer.loggers:
        logger.log_metrics(scalars, step=int(row["labelled"]))


def log_images(trainer: Trainer, tag: str, images: Tensor, labels: int) -> None:
    """Log a grid of 8-bit images, shape (n, channels, height, width), 16 in a row."""
    if len(images):
        grid = make_grid(images[:MOST_IMAGES], nrow=16)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(tag, grid, labels)
