"""W as the trained network sees it: a sample as points in space, for TensorBoard's projector."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from baldvae_pl.complement import Purchase
from baldvae_pl.geometry.space import some_of
from baldvae_pl.loop.purchase import TrainedRound
from baldvae_pl.posterior import eval_mode, has_trunk_and_head
from baldvae_pl.reports.pictures import as_image, class_name
from baldvae_pl.runs.files import replacing
from baldvae_pl.runs.folder import RunFolder
from baldvae_pl.seeding import Purpose

MOST = 300
"""Points of what was just bought, and of what had a label before."""

OTHERS = 400
"""Points of U."""

DIMENSIONS = 50
"""Of a point at most; more are reduced to their principal components."""

SIDE = 32
"""Pixels of a point's picture."""

FILES = ("vectors.tsv", "about.tsv", "pictures.png")


def write_map(round: TrainedRound, purchase: Purchase, run: RunFolder) -> None:
    """Leave a map of the purchase in the run folder, in place of that of the round before.

    Points are what the network's trunk makes of images, or W itself where it has none. Each has its
    picture, and its pool, class, BALD in nats, and the first round that trained with it.

    Args:
        round: It; its pools are those after the purchase.
        purchase: What was asked about.
        run: Whose folder.
    """
    indices = sample(round, purchase)
    vectors_n_D = seen(round, indices).flatten(1).numpy()
    if not round.each.trainer.is_global_zero:
        return
    if vectors_n_D.shape[1] > DIMENSIONS:
        quick = PCA(DIMENSIONS, svd_solver="randomized", iterated_power=2, random_state=0)
        vectors_n_D = quick.fit_transform(vectors_n_D)
    data, pool = round.data, round.data.pool
    bought_in = pool.acquired_in[indices]
    of_pool = np.where(bought_in < 0, "unlabelled", "labelled")
    of_pool[torch.isin(indices, purchase.indices)] = "bought now"
    labels = (data.train.labels if data.people is None else pool.labels)[indices].tolist()
    about = pd.DataFrame(
        {
            "pool": of_pool,
            "class": [class_name(label, data.all_classes) for label in labels],
            "BALD": purchase.scores_N[indices].numpy().round(4),
            "trained with from round": bought_in,
            "image": indices if data.files is None else [data.files[i] for i in indices.tolist()],
        }
    )
    vectors, table, pictures = (run.projector / name for name in FILES)
    with replacing(vectors) as file:
        np.savetxt(file, vectors_n_D, "%.4g", delimiter="\t")
    with replacing(table, "w", encoding="utf-8", newline="") as file:
        about.to_csv(file, sep="\t", index=False)
    size = (0, 0)
    if data.pictures is not None:
        sheet, size = sprites(data.pictures[indices])
        with replacing(pictures) as file:
            sheet.save(file, "png")
    with replacing(run.projector_config, "w", encoding="utf-8") as file:
        file.write(layout(run, size))


def sample(round: TrainedRound, purchase: Purchase) -> Tensor:
    """Return images of the purchase, others of L and others of U, some at random of each."""
    pool, generator = round.data.pool, round.generator(Purpose.MAP)
    bought = purchase.indices[purchase.indices >= 0]  # others are not in W
    labelled = (pool.acquired_in >= 0).nonzero().flatten()
    labelled = labelled[~torch.isin(labelled, bought)]
    unlabelled = pool.in_unlabelled_N.nonzero().flatten()
    most = ((bought, MOST), (labelled, MOST), (unlabelled, OTHERS))
    return torch.cat([some_of(indices, count, generator) for indices, count in most])


def seen(round: TrainedRound, indices: Tensor) -> Tensor:
    """Return what the network's trunk makes of images of W; themselves if there is no trunk."""
    network: Any = round.network
    images = round.data.train.images
    if not has_trunk_and_head(network):
        return images[indices].float()
    with eval_mode(network):
        return round.each.map(network.trunk, images, "Mapping W", indices=indices)


def sprites(pictures: Tensor) -> tuple[Image.Image, tuple[int, int]]:
    """Return one picture of many, row by row on a square grid, and width and height of each."""
    height, width = pictures.shape[-2:]
    factor = min(1, SIDE / max(height, width))
    height, width = (max(1, round(factor * side)) for side in (height, width))
    small = resize(pictures, [height, width], antialias=True)
    columns = int(np.ceil(np.sqrt(len(small))))
    empty = torch.zeros(columns**2 - len(small), *small.shape[1:], dtype=small.dtype)
    grid = torch.cat([small, empty]).unflatten(0, (columns, columns))
    pixels = grid.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return as_image(pixels.numpy()), (width, height)


def layout(run: RunFolder, size: tuple[int, int]) -> str:
    """Return what TensorBoard has to be told of the map: its files, and the size of a picture."""
    from tensorboard.plugins.projector import ProjectorConfig

    vectors, table, pictures = (f"{run.projector.name}/{name}" for name in FILES)
    config = ProjectorConfig()
    points = config.embeddings.add(tensor_name="W", tensor_path=vectors, metadata_path=table)
    if all(size):
        points.sprite.image_path = pictures
        points.sprite.single_image_dim.extend(size)
    return str(config)
