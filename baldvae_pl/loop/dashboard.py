"""A round in TensorBoard, all against the number of labels."""

from collections.abc import Mapping

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torchvision.utils import make_grid

from baldvae_pl.complement import Purchase

MOST_IMAGES = 64
"""A grid shows at most so many images."""


def log_round(trainer: Trainer, row: Mapping[str, float]) -> None:
    """Log a round's row; x is the number of labels that the round trained with."""
    scalars = {key: value for key, value in row.items() if "/" in key}
    counts = ("labelled", "unlabelled", "generated", "complemented")
    scalars |= {f"pool/{key}": row[key] for key in counts if key in row}
    for logger in trainer.loggers:
        logger.log_metrics(scalars, step=int(row["labelled"]))


def log_purchase(
    trainer: Trainer,
    images: Tensor,
    pictures: Tensor | None,
    purchase: Purchase,
    parents: Tensor,
    complements: Tensor,
    row: Mapping[str, float],
) -> None:
    """Log pictures of what was bought, and of parents above their complements.

    Args:
        trainer: Has the loggers.
        images: W.
        pictures: 8-bit pictures of W; None if its images are vectors without any.
        purchase: What was bought.
        parents: Global indices of the parents.
        complements: Theirs, in the format of W; vectors are shown by the picture of the image of W
            that is nearest to them.
        row: Of the round.
    """
    labels, in_w = int(row["labelled"]), purchase.in_w
    if len(in_w) < len(purchase.indices):
        bought = purchase.images
    else:
        bought = purchase.images[:0] if pictures is None else pictures[in_w]
    log_images(trainer, "images/acquired", bought, labels)
    if pictures is not None and trainer.is_global_zero:
        shown = complements[:MOST_IMAGES]
        if shown.dtype != torch.uint8:
            shown = pictures[nearest(shown, images)]
        pairs = torch.cat([pictures[parents[:MOST_IMAGES]], shown], dim=2)
        log_images(trainer, "images/parents_and_complements", pairs, labels)


def nearest(vectors_K_D: Tensor, among_N_D: Tensor) -> Tensor:
    """Return for each vector the index of the one nearest to it, by Euclidean distance."""
    chunks = among_N_D.split(65_536)
    least = [torch.cdist(vectors_K_D, chunk).min(1) for chunk in chunks]
    which_K = torch.stack([distances for distances, _ in least]).argmin(0)
    starts = 65_536 * torch.arange(len(chunks))
    found = torch.stack([indices for _, indices in least]) + starts[:, None]
    return found.gather(0, which_K[None])[0]


def log_images(trainer: Trainer, tag: str, images: Tensor, labels: int) -> None:
    """Log a grid of 8-bit images, shape (n, channels, height, width), 16 in a row."""
    if len(images) and images.dtype == torch.uint8:
        grid = make_grid(images[:MOST_IMAGES], nrow=16)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(tag, grid, labels)
