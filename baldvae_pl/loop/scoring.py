"""Scores of W, what a round's row says of them, and complements: functions of `Processes`."""

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl.acquisition import AcquisitionFunction, NetworkScore, bald
from baldvae_pl.answer import CANNOT_TELL, Label
from baldvae_pl.complement import Autoencoder, Complement, Purchase, in_precision_of
from baldvae_pl.data.batches import images_at_once, like_w, to_floats
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.epig import EPIG
from baldvae_pl.geometry import PoissonLabels
from baldvae_pl.loop.processes import Processes
from baldvae_pl.modules.metrics import probability_metrics
from baldvae_pl.posterior import Draws, eval_mode, has_trunk_and_head

GENERATED_AT_ONCE = 128
"""Complements made at a time. Noise is drawn by the batch: another number makes other ones."""


def score(
    each: Processes,
    draws: Draws,
    images: Tensor,
    function: AcquisitionFunction | NetworkScore,
    network: nn.Module,
) -> tuple[Tensor, Tensor]:
    """Return the BALD scores_N of images, and the priorities_N that rank them for the purchase.

    Where the acquisition function is BALD itself, both are the same.
    """
    columns: list[AcquisitionFunction] = [bald]
    if not isinstance(function, NetworkScore) and function is not bald:
        columns.append(function)

    def statistic(log_probs_N_T_C: Tensor) -> Tensor:
        return torch.stack([column(log_probs_N_T_C) for column in columns], 1)

    scores_N_F = each.map(draws, images, "Scoring", statistic)
    if not isinstance(function, NetworkScore):
        return scores_N_F[:, 0], scores_N_F[:, -1]
    by_network = function
    with eval_mode(network):
        priorities_N = each.map(lambda x: by_network.score(network, x), images, "Scoring")
    return scores_N_F[:, 0], priorities_N


def for_targets(
    each: Processes,
    draws: Draws,
    function: EPIG,
    images: Tensor,
    among: Tensor,
    generator: torch.Generator,
) -> AcquisitionFunction:
    """Draw targets among these indices of images, and return the function that scores for them."""
    drawn = torch.randperm(len(among), generator=generator)[: function.targets]
    return function.given(each.map(draws, images[among[drawn]], "Looking at targets"))


def score_columns(
    scores_N: Tensor, in_unlabelled_N: Tensor, in_labelled_N: Tensor, threshold: float
) -> dict[str, float]:
    """Return the columns of a round about the BALD scores of U and of L, before the purchase."""
    # As good as leaving the others out, since no score is below 0, and takes less memory.
    of_unlabelled = scores_N.where(in_unlabelled_N, 0.0)
    labelled = scores_N[in_labelled_N]
    return {
        "bald/threshold": threshold,
        "bald/labelled_max": labelled.max().item(),
        "bald/margin": threshold - labelled.max().item(),
        "bald/labelled_mean": labelled.mean().item(),
        "bald/unlabelled_max": of_unlabelled.max().item(),
        "bald/unlabelled_mean": of_unlabelled.sum().item() / int(in_unlabelled_N.sum()),
    }


def interval(accuracy: float | None, images: int) -> dict[str, float]:
    """Return the columns of an accuracy that is measured with few images.

    Wilson's 95 % interval (1927), which holds what it says also for few images and near 100 %.

    Args:
        accuracy: None if there are no test images yet.
        images: Their number.
    """
    if accuracy is None or not images:
        return {"test/images": images}
    correct = round(accuracy * images)
    low, high = binomtest(correct, images).proportion_ci(method="wilson")
    return {"test/images": images, "test/acc_low": float(low), "test/acc_high": float(high)}


def answers_columns(purchase: Purchase, labels: dict[int, Label]) -> dict[str, float]:
    """Return the columns of a round about what people answered.

    ``answers/agreement`` is the share of the new labels that the classifier, which had not seen
    them, had guessed. It is no accuracy: what is asked about is what the classifier is unsure of.
    """
    given = [labels[index] for index in purchase.indices.tolist()]
    columns: dict[str, float] = {"answers/cannot_tell": given.count(CANNOT_TELL)}
    if purchase.probs_K_C is not None:
        guesses = purchase.probs_K_C.argmax(1).tolist()
        told = [guess == label for guess, label in zip(guesses, given, strict=True)
                if label != CANNOT_TELL]  # fmt: skip
        columns |= {"answers/agreement": sum(told) / len(told)} if told else {}
    return columns


@torch.no_grad()
def redundancy(each: Processes, network: Any, images: Tensor) -> float | None:
    """Return the mean cosine similarity of the trunk's features over all pairs of these images.

    From -1 to 1, and after a ReLU from 0. None for a single image, or a network without a trunk.
    """
    if not has_trunk_and_head(network) or len(images) < 2:
        return None
    sums = []
    with eval_mode(network):
        for part in images.split(images_at_once(images[0].numel())):
            features = each.run(network.trunk, part).flatten(1)
            sums.append(F.normalize(features.float()).sum(0))
    # The square of the sum is the sum over all pairs; those of an image with itself are 1 each.
    with_themselves = torch.stack(sums).sum(0).square().sum().item()
    return (with_themselves - len(images)) / (len(images) * (len(images) - 1))


def mean_probabilities(each: Processes, draws: Draws, images: Tensor, description: str) -> Tensor:
    """Return the class probabilities of images, averaged over the draws, shape (N, C)."""
    return each.map(draws, images, description, lambda log_probs: log_probs.exp().mean(1))


def bald_and_probabilities(each: Processes, draws: Draws, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return BALD scores in nats, shape (N,), and probabilities averaged over draws, (N, C)."""

    def both(log_probs_n_T_C: Tensor) -> Tensor:
        return torch.cat([bald(log_probs_n_T_C)[:, None], log_probs_n_T_C.exp().mean(1)], 1)

    found = each.map(draws, images, "Looking at images", both)
    return found[:, 0], found[:, 1:]


def metrics_with_draws(each: Processes, probs_N_C: Tensor, labels_N: Tensor) -> dict[str, float]:
    """Return the test metrics of class probabilities averaged over draws, as ``test/*_mc``."""
    if len(probs_N_C.argmax(1).unique()) == 1:
        rank_zero_warn(
            f"Round {each.trainer.current_epoch}: the classifier gives every test image the same "
            "class. If this lasts, try a lower learning rate or more --data.steps_per_round."
        )
    metrics = probability_metrics(probs_N_C.shape[1])(probs_N_C, labels_N)
    tiny = torch.finfo(probs_N_C.dtype).tiny
    metrics["test/nll"] = F.nll_loss(probs_N_C.clamp(min=tiny).log(), labels_N)
    return {f"{key}_mc": float(value) for key, value in metrics.items()}


def complement_columns(
    each: Processes,
    draws: Draws,
    parents: Tensor,
    complements: Tensor,
    labels: Tensor,
    parent_scores: Tensor,
) -> dict[str, float]:
    """Return the columns of a round about the complements that it made; none if it made none.

    The paper wants a complement near its parent (5), and as uncertain as it (6): both as means over
    complements, with the share of them that the classifier gives the label of their parent.

    Args:
        each: The processes of the run.
        draws: The round's, which scored the parents too.
        parents: Images of the parents, as W holds them.
        complements: Theirs, likewise.
        labels: Theirs.
        parent_scores: BALD scores of the parents.
    """
    if len(complements) == 0:
        return {}
    apart = [
        (to_floats(one) - to_floats(other)).flatten(1).square().mean(1).sqrt()
        for one, other in zip(
            parents.split(GENERATED_AT_ONCE), complements.split(GENERATED_AT_ONCE), strict=True
        )
    ]

    def statistic(log_probs_N_T_C: Tensor) -> Tensor:
        scores_N, guesses_N = bald(log_probs_N_T_C), log_probs_N_T_C.exp().mean(1).argmax(1)
        return torch.stack([scores_N, guesses_N.to(scores_N)], 1)

    scores_N, guesses_N = each.map(draws, complements, "Scoring complements", statistic).unbind(1)
    return {
        "complement/distance": torch.cat(apart).mean().item(),
        "complement/bald": scores_N.mean().item(),
        "complement/parent_bald": parent_scores.mean().item(),
        "complement/acc": (guesses_N == labels).float().mean().item(),
    }


def graph_columns(objective: Any, data: PoolDataModule) -> dict[str, float]:
    """Return how many images the neighbour graph alone, without a network, gives its class.

    As a share of U, by `PoissonLabels`; nothing for other objectives, or where people label.
    """
    if not isinstance(objective, PoissonLabels) or data.people is not None:
        return {}
    rest = data.pool.unlabelled
    right = objective.pseudo_labels_N[rest] == data.train.labels[rest]
    return {"graph/acc": right.float().mean().item()} if len(rest) else {}


def complements_of(
    each: Processes,
    policy: Complement,
    autoencoder: Autoencoder | None,
    parents: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Return the complements of these images, in their format, on every process.

    They are made on the first process alone: on different machines they might differ.
    """
    if len(parents) == 0:
        return parents
    return each.once(
        lambda: torch.cat(
            [
                generate(policy, autoencoder, part.to(each.device), generator)
                for part in parents.split(GENERATED_AT_ONCE)
            ]
        )
    )


@torch.no_grad()
def generate(
    policy: Complement,
    autoencoder: Autoencoder | None,
    images: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Return the complements of a batch that lies on the autoencoder's device, on the CPU."""
    with eval_mode(autoencoder):
        floats = in_precision_of(autoencoder, to_floats(images))
        return like_w(policy.generate(floats, autoencoder, generator), images.dtype)
