"""Labelled images that may be labelled wrongly, for people to look at again.

What BALD-VAE computes anyway serves here: the uncertainty of labelled images, and complements.
"""

from typing import Any

import torch
from torch import Tensor

from baldvae_pl.complement import decode_mean
from baldvae_pl.data.batches import like_w
from baldvae_pl.data.pictures import write_png
from baldvae_pl.data.question_file import write_json
from baldvae_pl.loop.purchase import TrainedRound
from baldvae_pl.loop.scoring import bald_and_probabilities
from baldvae_pl.posterior import eval_mode, has_trunk_and_head
from baldvae_pl.runs.folder import RunFolder

MOST = 200
"""Images in each of the two orders."""

NEIGHBOURS = 5


def write_review(round: TrainedRound, run: RunFolder) -> None:
    """Leave the most suspicious labelled images, those of the audit among them, in the run folder.

    Suspicious is one whose label is improbable to the classifier, or one that it is most uncertain
    about by BALD. Both orders are there, the page chooses.
    """
    data, pool, each = round.data, round.data.pool, round.each
    indices = ((pool.labels >= 0) & (pool.labels < len(data.classes))).nonzero().flatten()
    labels = pool.labels[indices]
    images = data.train.images[indices]
    bald_n, probs_n_C = bald_and_probabilities(each, round.draws, images)
    doubt_n = 1 - probs_n_C.gather(1, labels[:, None])[:, 0]
    guess_probability_n, guess_n = probs_n_C.max(1)
    orders = [x.argsort(descending=True, stable=True)[:MOST] for x in (doubt_n, bald_n)]
    shown = torch.cat(orders).unique()
    near = neighbours(features(round, indices), shown)
    complements = complements_of(round, indices[shown])
    if not each.trainer.is_global_zero:
        return
    assert data.files is not None
    files, entries = data.files, list[dict[str, Any]]()
    for place, i in enumerate(shown.tolist()):
        index = int(indices[i])
        if complements is not None:
            write_png(run.review_pictures / f"{index}.png", complements[place])
        entries.append(
            {
                "file": files[index],
                "label": data.classes[int(labels[i])],
                "guess": data.classes[int(guess_n[i])],
                "guess_probability": float(guess_probability_n[i]),
                "label_probability": float(probs_n_C[i, labels[i]]),
                "bald": float(bald_n[i]),
                "doubt": float(doubt_n[i]),
                "complement": None if complements is None else index,
                "neighbours": [files[int(indices[j])] for j in near[place].tolist()],
            }
        )
    write_json(run.review, {"round": round.number, "images": entries})


def features(round: TrainedRound, indices: Tensor) -> Tensor:
    """Return what images are compared by: the VAE's latent means, or the trunk's features."""
    network: Any = round.network
    autoencoder: Any = round.autoencoder if hasattr(round.autoencoder, "encode") else None
    images = round.data.train.images[indices]
    with eval_mode(network):
        if autoencoder is not None:
            found = round.each.map(lambda x: autoencoder.encode(x)[0], images, "Comparing images")
        elif has_trunk_and_head(network):
            found = round.each.map(
                lambda x: network.trunk(x).flatten(1), images, "Comparing images"
            )
        else:
            found = images.flatten(1).float()
    return found


def neighbours(features_n_D: Tensor, which: Tensor) -> Tensor:
    """Return for some images the places of the nearest others, the nearest first."""
    distances_m_n = torch.cdist(features_n_D[which], features_n_D)
    distances_m_n[torch.arange(len(which)), which] = torch.inf
    count = min(NEIGHBOURS, len(features_n_D) - 1)
    return distances_m_n.topk(count, largest=False).indices


@torch.no_grad()
def complements_of(round: TrainedRound, indices: Tensor) -> Tensor | None:
    """Return the complements of images by the mean of q(z|x); None without an autoencoder."""
    autoencoder = round.autoencoder
    if not hasattr(autoencoder, "encode"):  # none, or a generator alone
        return None
    images, none = round.data.train.images[indices], torch.Generator()
    made = round.each.map(lambda x: decode_mean(x, autoencoder, none), images, "Complements")
    return like_w(made, images.dtype)
