"""Makes the snapshots of rounds: what people are shown of a run, in TensorBoard and in reports."""

import platform

import lightning
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from baldvae_pl import __version__
from baldvae_pl.answer import CANNOT_TELL, Label
from baldvae_pl.complement import Purchase
from baldvae_pl.data.batches import to_floats
from baldvae_pl.loop import scoring
from baldvae_pl.loop.purchase import TrainedRound
from baldvae_pl.runs.snapshots import BINS, MOST, Gallery, Snapshot

SIDE = 64
"""Pixels: larger pictures are made smaller."""

LOOKED_AT = 256
"""Of the labelled images those with the highest scores are looked at for doubtful labels."""


def after_the_test(round: TrainedRound, probs_N_C: Tensor, labels_N: Tensor) -> Snapshot:
    """Return the snapshot of a round that has not bought.

    Args:
        round: It.
        probs_N_C: Predictions for the test images, averaged over the draws.
        labels_N: Their classes.
    """
    classes = round.data.classes
    none = Gallery(np.zeros((0, 1, 1, 1), np.uint8), *(np.zeros(0) for _ in Gallery._fields[1:]))
    confusion_C_C = torch.zeros(len(classes), len(classes), dtype=torch.int32)
    one = torch.tensor(1, dtype=torch.int32)
    confusion_C_C.index_put_((labels_N, probs_N_C.argmax(1)), one, accumulate=True)
    return Snapshot(
        classes=[*classes],
        confusion_C_C=confusion_C_C.numpy(),
        reliability=reliability_of(probs_N_C, labels_N).numpy(),
        bought=none,
        passed=none,
        parents=none,
        complements=none,
        distances=np.zeros(0),
        doubtful=none,
        beliefs=np.zeros(0),
        versions=f"baldvae {__version__}, torch {torch.__version__}, lightning "
        f"{lightning.__version__}, Python {platform.python_version()}, {round.each.device.type}",
    )


def after_the_purchase(
    round: TrainedRound,
    before: Snapshot,
    purchase: Purchase,
    answers: dict[int, Label],
    parents: Tensor,
    complements: Tensor,
) -> Snapshot:
    """Return the snapshot of a round that has bought, and whose pools are those of the next one.

    Args:
        round: It.
        before: Its snapshot before.
        purchase: What was asked about.
        answers: By its indices.
        parents: Global indices of the parents of the complements that were made.
        complements: Theirs, in the format of W.
    """
    data, scores_N = round.data, purchase.scores_N
    pool, images, pictures = data.pool, data.train.images, data.pictures
    if pictures is None:  # W is vectors, which nobody can look at
        return before
    known_N = data.train.labels if data.people is None else pool.labels
    bought, asked = purchase.indices[:MOST], purchase.images[:MOST]
    passed = pool.highest_unlabelled(scores_N, MOST // 2)
    most = scores_N[parents].argsort(descending=True, stable=True)[: MOST // 2]
    parents, complements = parents[most], complements[most]
    # An answer may have made a class that the network has no output for yet.
    known = (pool.acquired_in >= 0) & (pool.acquired_in <= round.number)
    earlier = (known & (pool.labels < len(data.classes))).nonzero().flatten()
    uncertain = earlier[scores_N[earlier].argsort(descending=True, stable=True)[:LOOKED_AT]]
    parts = [asked, images[passed], images[parents], complements, images[uncertain]]
    scores, probs = scoring.bald_and_probabilities(round.each, round.draws, torch.cat(parts))
    said = [*zip(*(column.split([*map(len, parts)]) for column in (scores, probs)), strict=True)]
    given = [answers[index] for index in bought.tolist()]
    answered = torch.tensor([-2 if label == CANNOT_TELL else int(label) for label in given])
    labels = pool.labels[uncertain]
    likely_n = said[4][1].gather(1, labels[:, None])[:, 0]
    doubtful = likely_n.argsort(stable=True)[: MOST // 2]
    apart = (to_floats(images[parents]) - to_floats(complements)).flatten(1)

    def shown(made: Tensor) -> Tensor:
        """Return pictures; of vectors that were made, of the images of W nearest to them."""
        return made if made.dtype == torch.uint8 else pictures[nearest(made, images)]

    first = pictures[bought] if bool((bought >= 0).all()) else shown(asked)
    return before._replace(
        classes=[*data.all_classes],
        bought=gallery(first, answered, *said[0]),
        passed=gallery(pictures[passed], known_N[passed], *said[1]),
        parents=gallery(pictures[parents], pool.labels[parents], *said[2]),
        complements=gallery(shown(complements), pool.labels[parents], *said[3]),
        distances=apart.square().mean(1).sqrt().numpy(),
        doubtful=gallery(
            pictures[uncertain[doubtful]], labels[doubtful], *(x[doubtful] for x in said[4])
        ),
        beliefs=likely_n[doubtful].numpy(),
    )


def gallery(pictures: Tensor, labels: Tensor, scores: Tensor, probs_n_C: Tensor) -> Gallery:
    """Return pictures, small ones, with what is said of them."""
    height, width = pictures.shape[-2:]
    if len(pictures) and max(height, width) > SIDE:
        factor = SIDE / max(height, width)
        size = [max(1, round(factor * side)) for side in (height, width)]
        pictures = resize(pictures, size, antialias=True)
    confidences, guesses = probs_n_C.max(1)
    columns = (pictures.permute(0, 2, 3, 1), labels, guesses, confidences, scores)
    return Gallery(*(column.numpy() for column in columns))


def reliability_of(probs_N_C: Tensor, labels_N: Tensor) -> Tensor:
    """Return number, mean confidence and share of right predictions by confidence, (BINS, 3)."""
    confidences, guesses = probs_N_C.double().max(1)
    which = (confidences.nan_to_num() * BINS).long().clamp(max=BINS - 1)
    right = (guesses == labels_N).double()
    columns = torch.stack([torch.ones_like(right), confidences, right], 1)
    sums = torch.zeros(BINS, 3, dtype=torch.double).index_add_(0, which, columns)
    return torch.cat([sums[:, :1], sums[:, 1:] / sums[:, :1].clamp(min=1)], 1)


def nearest(vectors_K_D: Tensor, among_N_D: Tensor) -> Tensor:
    """Return for each vector the index of the one nearest to it, by Euclidean distance."""
    if len(vectors_K_D) == 0:
        return torch.empty(0, dtype=torch.long)
    chunks = among_N_D.split(65_536)
    least = [torch.cdist(vectors_K_D, chunk).min(1) for chunk in chunks]
    which_K = torch.stack([distances for distances, _ in least]).argmin(0)
    starts = 65_536 * torch.arange(len(chunks))
    found = torch.stack([indices for _, indices in least]) + starts[:, None]
    return found.gather(0, which_K[None])[0]
