"""Many images under the posterior's draws: on any accelerator, shared among processes."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn import functional as F

from baldvae_pl.acquisition import bald
from baldvae_pl.data.batches import images_at_once
from baldvae_pl.data.sources import Images
from baldvae_pl.loop.progress import RoundProgressBar
from baldvae_pl.modules.classifier import probability_metrics
from baldvae_pl.posterior import Draws, eval_mode


def score_images(
    trainer: Trainer,
    pl_module: LightningModule,
    draws: Draws,
    images: Tensor,
    function: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Return the BALD scores_N of 8-bit images, and those of another acquisition function.

    Without another function, or where it is BALD itself, both are the same.
    """
    columns = [bald] if function in (None, bald) else [bald, function]

    def statistic(log_probs_N_T_C: Tensor) -> Tensor:
        return torch.stack([column(log_probs_N_T_C) for column in columns], 1)

    scores_N_F = predict(trainer, pl_module, draws, images, statistic, len(columns), "Scoring")
    return scores_N_F[:, 0], scores_N_F[:, -1]


def log_probs_of(
    trainer: Trainer, pl_module: LightningModule, draws: Draws, images: Tensor
) -> Tensor:
    """Return log_probs_N_T_C of a few 8-bit images, on the CPU of every process."""
    shape = on_device(trainer, draws, images[:1]).shape[1:]
    width = shape.numel()
    flat_N_F = predict(
        trainer, pl_module, draws, images, lambda x: x.flatten(1), width, "Comparing candidates"
    )
    log_probs_N_T_C: Tensor = flat_N_F.unflatten(1, shape)
    return log_probs_N_T_C


def describe_scores(
    scores_N: Tensor, in_unlabelled_N: Tensor, threshold: float
) -> dict[str, float]:
    """Return what a round's row says of the BALD scores of U and of L, before the purchase."""
    # As good as leaving the others out, since no score is below 0, and takes less memory.
    of_unlabelled = scores_N.where(in_unlabelled_N, 0.0)
    labelled = scores_N[~in_unlabelled_N]
    return {
        "bald/threshold": threshold,
        "bald/labelled_max": labelled.max().item(),
        "bald/margin": threshold - labelled.max().item(),
        "bald/labelled_mean": labelled.mean().item(),
        "bald/unlabelled_max": of_unlabelled.max().item(),
        "bald/unlabelled_mean": of_unlabelled.sum().item() / int(in_unlabelled_N.sum()),
    }


@torch.no_grad()
def describe_purchase(
    trainer: Trainer, pl_module: LightningModule, images: Tensor
) -> dict[str, float]:
    """Return how alike these images are: the mean cosine similarity of the trunk's features.

    Over all pairs, from -1 to 1, and after a ReLU from 0. Empty for a single image, or for a
    network without a trunk.
    """
    network: Any = pl_module.network
    if not hasattr(network, "trunk") or len(images) < 2:
        return {}
    sums = []
    with eval_mode(network):
        for part in images.split(images_at_once(images[0].numel())):
            features = on_device(trainer, network.trunk, part).flatten(1)
            sums.append(F.normalize(features.float()).sum(0))
    # The square of the sum is the sum over all pairs; those of an image with itself are 1 each.
    with_themselves = torch.stack(sums).sum(0).square().sum().item()
    pairs = len(images) * (len(images) - 1)
    return {"acquired/redundancy": (with_themselves - len(images)) / pairs}


def evaluate_with_draws(
    trainer: Trainer, pl_module: LightningModule, draws: Draws, test: Images, num_classes: int
) -> dict[str, float]:
    """Return the test metrics of class probabilities averaged over draws, as ``test/*_mc``."""

    def statistic(log_probs_N_T_C: Tensor) -> Tensor:
        return log_probs_N_T_C.exp().mean(1)

    probs_N_C = predict(
        trainer, pl_module, draws, test.images, statistic, num_classes, "Testing with draws"
    )
    if len(probs_N_C.argmax(1).unique()) == 1:
        rank_zero_warn(
            f"Round {trainer.current_epoch}: the classifier gives every test image the same class. "
            "If this lasts, try a lower learning rate or more --data.steps_per_round."
        )
    metrics = probability_metrics(num_classes)(probs_N_C, test.labels)
    tiny = torch.finfo(probs_N_C.dtype).tiny
    metrics["test/nll"] = F.nll_loss(probs_N_C.clamp(min=tiny).log(), test.labels)
    return {f"{key}_mc": float(value) for key, value in metrics.items()}


def predict(
    trainer: Trainer,
    pl_module: LightningModule,
    draws: Draws,
    images: Tensor,
    statistic: Callable[[Tensor], Tensor],
    width: int,
    description: str,
) -> Tensor:
    """Return a statistic of every image's log-probabilities, on every process.

    Whole batches of one grid are dealt to the processes, so that no value depends on their number.

    Args:
        trainer: Its strategy moves batches and adds up the shares, its precision is used.
        pl_module: Tells the device.
        draws: The posterior.
        images: uint8, shape (N, channels, height, width).
        statistic: log_probs_N_T_C -> (N, width).
        width: Numbers an image.
        description: What the progress bar says.

    Returns:
        Shape (N, width), float32, on the CPU. Memory is bounded by a batch, beside this result.
    """
    numbers = max(images[0].numel(), on_device(trainer, draws, images[:1]).numel())
    chosen = trainer.datamodule.scoring_batch_size  # type: ignore[attr-defined]
    size = even_batches(len(images), chosen or images_at_once(numbers))
    starts = list(range(0, len(images), size))
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        starts = starts[: int(trainer.limit_predict_batches)]
    mine: Iterable[int] = starts[trainer.global_rank :: trainer.world_size]
    if isinstance(bar := trainer.progress_bar_callback, RoundProgressBar):
        mine = bar.track(list(mine), description)
    result = torch.zeros(len(images), width, device=pl_module.device)
    for start in mine:
        part = slice(start, start + size)
        result[part] = statistic(on_device(trainer, draws, images[part]))
    reduced: Tensor = trainer.strategy.reduce(result, reduce_op="sum")
    return reduced.cpu()


def even_batches(count: int, size: int) -> int:
    """Return a batch size, at most this one, by which 2, 3, 4, 6 or 12 processes have equal shares.

    As far as there are images enough: then the number of batches is a multiple of twelve.
    """
    batches = -(-count // size)
    return size if batches == 1 else -(-count // (-(-batches // 12) * 12))


def on_device(trainer: Trainer, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return what draws, or a network, make of 8-bit images, in the trainer's precision."""
    batch, _ = trainer.strategy.batch_to_device((images, images[:0]))
    with trainer.precision_plugin.forward_context():
        return function(batch)
