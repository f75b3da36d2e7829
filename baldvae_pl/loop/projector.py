"""W as the trained network sees it: a sample as points in space, for TensorBoard's projector."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.utils.extmath import randomized_svd
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from baldvae_pl.complement import Purchase
from baldvae_pl.geometry.space import some_of
from baldvae_pl.loop.purchase import TrainedRound
from baldvae_pl.posterior import eval_mode, has_trunk_and_head
from baldvae_pl.reports.pictures import as_image, class_name
from baldvae_pl.runs.files import replacing
from baldvae_pl.seeding import Purpose, derive_seed

MOST = 300
"""Points of what was just bought, and of what had a label before."""

OTHERS = 400
"""Points of U."""

DIMENSIONS = 50
"""Of a point at most; more are reduced to their principal components."""

SIDE = 32
"""Pixels of a point's picture."""


class Map(NamedTuple):
    """Some images of W as points.

    Attributes:
        vectors: What the network's trunk makes of them, or W itself without a trunk, reduced to
            principal components; shape (n, D).
        about: A row a point: pool, class, BALD in nats, first round that trains with it, image.
        pictures: Small ones, 8-bit, shape (n, channels, height, width); None if there are none.
    """

    vectors: np.ndarray
    about: pd.DataFrame
    pictures: Tensor | None


def map_of(round: TrainedRound, purchase: Purchase) -> Map:
    """Return what was bought, among others of L and of U, on every process.

    Args:
        round: It; its pools are those after the purchase.
        purchase: What was asked about.
    """
    data, pool, indices = round.data, round.data.pool, sample(round, purchase)
    vectors = seen(round, indices).flatten(1).numpy()
    dimensions = min(DIMENSIONS, *vectors.shape)
    if dimensions < vectors.shape[1]:
        # As PCA, which divides by the variance, and that of a network without life is 0.
        seed = derive_seed(data.seed, round.number, Purpose.MAP) % 2**32
        centred = vectors - vectors.mean(0)
        left, spread, _ = randomized_svd(centred, dimensions, n_iter=2, random_state=seed)
        vectors = left * spread
    labels = pool.answers_N[indices]
    if data.people is None:
        labels = labels.where(labels != -1, data.train.labels[indices])
    trained_in = pool.acquired_in[indices].tolist()
    bought = torch.isin(indices, purchase.indices).tolist()
    about = pd.DataFrame(
        {
            "pool": [
                "bought now" if now else "labelled" if first >= 0 else "unlabelled"
                for now, first in zip(bought, trained_in, strict=True)
            ],
            "class": [class_name(label, data.all_classes) for label in labels.tolist()],
            "BALD": purchase.scores_N[indices].numpy().round(4),
            "trained with from round": [str(first) if first >= 0 else "" for first in trained_in],
            "image": indices if data.files is None else [data.files[i] for i in indices.tolist()],
        }
    )
    pictures = None if data.pictures is None else small(data.pictures, indices)
    return Map(vectors, about, pictures)


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
    """Return what the network's trunk makes of images of W; without one what they show."""
    network: Any = round.network
    images = round.data.train.images
    if has_trunk_and_head(network):
        with eval_mode(network):
            return round.each.map(network.trunk, images, "Mapping W", indices=indices)
    return images[indices] if images.ndim == 2 else small(images, indices).float()


def small(pictures: Tensor, indices: Tensor) -> Tensor:
    """Return some pictures, with sides of at most `SIDE` pixels."""
    height, width = pictures.shape[-2:]
    factor = min(1, SIDE / max(height, width))
    size = [max(1, round(factor * side)) for side in (height, width)]
    parts = indices.split(64)  # large ones are many bytes
    return torch.cat([resize(pictures[part], size, antialias=True) for part in parts])


def sprites(pictures: Tensor) -> Image.Image:
    """Return one picture of many, row by row on a square grid."""
    columns = int(np.ceil(np.sqrt(len(pictures))))
    missing = torch.zeros(columns**2 - len(pictures), *pictures.shape[1:], dtype=pictures.dtype)
    grid = torch.cat([pictures, missing]).unflatten(0, (columns, columns))
    return as_image(grid.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1).numpy())


def write_map(points: Map, folder: Path) -> None:
    """Leave a map where TensorBoard looks for it, in place of the one before.

    Args:
        points: The map.
        folder: That of the events.

    Raises:
        SettingError: If it cannot be written.
    """
    from tensorboard.plugins.projector import ProjectorConfig

    config = ProjectorConfig()
    entry = config.embeddings.add(
        tensor_name="W",
        tensor_path="projector/vectors.tsv",
        metadata_path="projector/about.tsv",
    )
    with replacing(folder / entry.tensor_path) as file:
        np.savetxt(file, points.vectors, "%.4g", delimiter="\t")
    readable = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with replacing(folder / entry.metadata_path, "w", **readable) as file:
        points.about.to_csv(file, sep="\t", index=False)
    if points.pictures is not None:
        entry.sprite.image_path = "projector/pictures.png"
        entry.sprite.single_image_dim.extend(points.pictures.shape[:1:-1])  # width and height
        with replacing(folder / entry.sprite.image_path) as file:
            sprites(points.pictures).save(file, "png")
    with replacing(folder / "projector_config.pbtxt", "w", encoding="utf-8") as file:
        file.write(str(config))
