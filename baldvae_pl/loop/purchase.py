"""One purchase: chosen by a selection, asked about, and taken over into the pools."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from baldvae_pl.acquisition import bald
from baldvae_pl.complement import Autoencoder, Purchase, Threshold, threshold_of
from baldvae_pl.data.answers import Answers
from baldvae_pl.data.batches import like_w
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.errors import SettingError, refused
from baldvae_pl.loop.processes import Processes
from baldvae_pl.loop.scoring import mean_probabilities
from baldvae_pl.oracle import CANNOT_TELL, Oracle, Question
from baldvae_pl.pool import SYNTHESISED, Pool
from baldvae_pl.posterior import Draws
from baldvae_pl.selection import Candidates, Selection, SelectionFunction, Synthesised


def candidates(
    each: Processes,
    data: PoolDataModule,
    priorities_N: Tensor,
    query_size: int,
    generator: torch.Generator,
    autoencoder: Autoencoder | None,
    network: nn.Module | None = None,
    draws: Draws | None = None,
) -> Candidates:
    """Return what a selection may look at; without a network for the first labels."""
    images = data.train.images

    def look(function: Callable[[Tensor], Tensor], indices: Tensor) -> Tensor:
        return each.map(function, images[indices], "Comparing candidates")

    return Candidates(
        priorities_N=priorities_N,
        labelled=data.pool.labelled,
        query_size=query_size,
        highest=data.pool.highest_unlabelled,
        map=look,
        generator=generator,
        network=network,
        draws=draws,
        autoencoder=autoencoder,
        image_shape=data.pool.image_shape,
        known_labels_N=data.train.labels,
    )


def select(
    setting: str, selection: Selection | SelectionFunction, among: Candidates, pool: Pool
) -> Tensor | Synthesised:
    """Return what a selection chooses, which is checked before any label is paid for.

    Raises:
        SettingError: If it fails, or chooses none, too many, or others than images of U.
    """
    with refused(setting):
        chosen = selection(among)
        if not isinstance(chosen, Synthesised):
            pool.check_purchase(chosen)
        count = len(chosen.images if isinstance(chosen, Synthesised) else chosen)
    if not 1 <= count <= among.query_size:
        raise SettingError(
            f"{setting}: it chose {count} images. It must choose at least 1 and at most the "
            f"{among.query_size} that it was asked for."
        )
    return chosen


def purchase_of(
    each: Processes,
    data: PoolDataModule,
    chosen: Tensor | Synthesised,
    scores_N: Tensor,
    rule: Threshold,
    draws: Draws,
) -> Purchase:
    """Return the purchase of what was chosen, with all that is to be known of it."""
    pool, images = data.pool, data.train.images
    if isinstance(chosen, Synthesised):
        bought = like_w(chosen.images, images.dtype)
        if bought.shape[1:] != images.shape[1:]:
            raise SettingError(
                f"--acquisition.selection: it made images of shape {tuple(bought.shape[1:])}, the "
                f"data set's are {tuple(images.shape[1:])}."
            )
        before = int((pool.generated.kinds == SYNTHESISED).sum())
        indices = -1 - before - torch.arange(len(bought))
        scores = each.map(draws, bought, "Scoring", bald)
    else:
        indices, bought, scores = chosen, images[chosen], scores_N[chosen]
    threshold = threshold_of(rule, scores, scores_N, pool.in_unlabelled_N)
    probs_K_C = None
    if isinstance(data.oracle, Oracle):
        probs_K_C = mean_probabilities(each, draws, bought, "Scoring")
    return Purchase(scores_N, indices, bought, scores, threshold, probs_K_C)


def question_of(data: PoolDataModule, purchase: Purchase, round: int) -> Question:
    """Return the question that a purchase is for the oracle."""
    files = data.files and [data.files[i] if i >= 0 else "" for i in purchase.indices.tolist()]
    return Question(
        round=round,
        indices=purchase.indices,
        images=purchase.images,
        classes=data.classes,
        files=files,
        scores=purchase.scores,
        probs_K_C=purchase.probs_K_C,
    )


def told(indices: Tensor, answers: Answers) -> tuple[Tensor, Tensor]:
    """Return which of these images got a class, as a mask, and those classes."""
    given: list[Any] = [answers.labels[index] for index in indices.tolist()]
    return (
        torch.tensor([label != CANNOT_TELL for label in given]),
        torch.tensor([label for label in given if label != CANNOT_TELL], dtype=torch.long),
    )


def take(pool: Pool, purchase: Purchase, answers: Answers, round: int) -> None:
    """Move what was answered from U to L, and correct what was answered before.

    Args:
        pool: Changed in place.
        purchase: What was asked about.
        answers: To it, and corrections.
        round: The first round that trains with them.
    """
    for index, label in answers.corrections.items():
        pool.correct(index, None if isinstance(label, str) else label, round)
        if label == CANNOT_TELL and index >= 0:
            pool.set_aside(torch.tensor([index]))
    is_told, labels = told(purchase.indices, answers)
    known, unknown = purchase.of(is_told), purchase.of(~is_told)
    in_w = known.indices >= 0
    if bool((~in_w).any()):
        pool.add_synthesised(
            known.images[~in_w],
            labels[~in_w],
            known.indices[~in_w],
            round,
            known.scores[~in_w],
            purchase.threshold,
        )
    pool.acquire(known.indices[in_w], labels[in_w], round, known.scores[in_w])
    pool.set_aside(unknown.in_w)
