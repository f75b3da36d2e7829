"""What is tried before anything expensive begins, and what is looked at after each round."""

from collections.abc import Callable
from math import isinf
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from baldvae_pl.acquisition import AcquisitionFunction
from baldvae_pl.data.batches import to_unit_interval
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.errors import SettingError, refused
from baldvae_pl.pool import Pool
from baldvae_pl.posterior import Posterior, eval_mode

WHOLE_ROUNDS = {
    "check_val_every_n_epoch": 1,
    "val_check_interval": 1.0,
    "max_steps": -1,
    "limit_train_batches": 1.0,
    "limit_val_batches": 1.0,
    "overfit_batches": 0.0,
    "accumulate_grad_batches": 1,
}
"""What Lightning must not cut short: every round has the same compute and its own test."""


LIMITS = {
    "max_epochs": "It follows from --acquisition.rounds, set that instead.",
    "max_time": "It would cut a round short. End the run from outside instead, as by `timeout 8h "
    "baldvae ...`: with --ckpt_path last it goes on from its last finished round.",
}
"""Settings of Lightning's Trainer that would end a run at another place, and the way out."""


def check_no_limits(settings: Any) -> None:
    """Raise a SettingError if one of the ``LIMITS`` is among the Trainer's settings."""
    for name, way_out in LIMITS.items():
        if settings[name] is not None:
            raise SettingError(f"--trainer.{name}: {settings[name]} may not be set. {way_out}")


def check_whole_rounds(trainer: Trainer) -> None:
    """Raise a SettingError if the trainer would not run whole epochs, each with a test."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    for name, needed in WHOLE_ROUNDS.items():
        if getattr(trainer, name) != needed:
            raise SettingError(
                f"--trainer.{name}: {getattr(trainer, name)} would cut a round short, which is "
                "one epoch with its own batches and one test at its end. Leave it out."
            )


def check_sizes(trainer: Trainer, data: PoolDataModule, rounds: int, query_size: int) -> None:
    """Raise a SettingError if there are too few images to share or to buy, or no end."""
    if data.batch_size < trainer.world_size:
        raise SettingError(
            f"--data.batch_size: {data.batch_size} images cannot be shared among "
            f"{trainer.world_size} processes. Take at least as many."
        )
    check_finite("--data.epochs_per_round", data.epochs_per_round)
    if data.batch_size > (size := len(data.pool.labels)):
        raise SettingError(
            f"--data.batch_size: {data.batch_size} is more than the {size} images of the data set. "
            f"Take at most {size}."
        )
    unlabelled = size - len(data.initial)
    if rounds and query_size > unlabelled:
        raise SettingError(
            f"--acquisition.query_size: {query_size} is more than the {unlabelled} images "
            f"that are unlabelled at the start. Take at most {unlabelled}, or fewer "
            "--data.initial_labels."
        )


def check_module(pl_module: LightningModule, warm_start: bool) -> None:
    """Raise a SettingError if a module lacks what a round uses."""
    name = type(pl_module).__name__
    parts = ["network"] if warm_start else ["network", "reset_parameters"]
    if missing := [part for part in parts if not hasattr(pl_module, part)]:
        raise SettingError(f"{name} lacks {' and '.join(missing)}, see ActiveLearning.")
    if not is_overridden("validation_step", pl_module):
        raise SettingError(f"{name} lacks validation_step, by which a round is tested.")


def check_network(
    network: nn.Module, posterior: Posterior, mc_samples: int, data: PoolDataModule
) -> None:
    """Try a network on a few images of W.

    Raises:
        SettingError: If it does not take them, tells another number of classes apart, or all draws
            of its posterior agree.
    """
    name, images = type(network).__name__, data.train.images[:8]
    try:
        log_probs_N_T_C = posterior(network, 8, torch.Generator())(to_unit_interval(images))
    except Exception as error:
        raise SettingError(
            f"--model.network: for images of shape {tuple(images.shape[1:])}: {error}"
        ) from error
    try:
        posterior(network, mc_samples, torch.Generator())(to_unit_interval(images[:1]))
    except RuntimeError as error:
        raise SettingError(
            f"--acquisition.mc_samples: {mc_samples} draws do not fit into the memory ({error}). "
            "Take fewer."
        ) from error
    classes, expected = log_probs_N_T_C.shape[-1], len(data.classes)
    if classes != expected:
        raise SettingError(
            f"--model.network: {name} tells {classes} classes apart, the data set has {expected}. "
            "Set its num_classes."
        )
    if torch.equal(log_probs_N_T_C[:, :1].expand_as(log_probs_N_T_C), log_probs_N_T_C):
        raise SettingError(
            f"--model.network: all posterior draws of {name} agree, so that BALD is 0 everywhere. "
            "Its nn.Dropout layers must take part in forward."
        )
    if hasattr(network, "trunk") and hasattr(network, "head"):
        with eval_mode(network), torch.no_grad():
            whole = network(to_unit_interval(images)).log_softmax(-1)
            parts = network.head(network.trunk(to_unit_interval(images))).log_softmax(-1)  # type: ignore[operator]
        if not torch.allclose(whole, parts, atol=1e-4):
            raise SettingError(
                f"--model.network: forward of {name} is not head(trunk(images)), by which it would "
                "be scored. Make it so, or rename one of the two to be scored by whole passes."
            )


def check_function(function: AcquisitionFunction | None, data: PoolDataModule) -> None:
    """Raise a SettingError if an acquisition function does not score made-up log-probabilities."""
    if function is None:
        return
    chance = torch.Generator().manual_seed(0)
    logits_N_T_C = torch.randn(8, 4, len(data.classes), generator=chance)
    with refused("--acquisition.function"):
        scores_N = function(logits_N_T_C.log_softmax(-1))
    if not isinstance(scores_N, Tensor) or scores_N.shape != (8,) or not scores_N.isfinite().all():
        shape = f"a tensor of shape {tuple(scores_N.shape)}" * isinstance(scores_N, Tensor)
        raise SettingError(
            "--acquisition.function: for log-probabilities of 8 images under 4 draws it gives "
            f"{shape or type(scores_N).__name__}. It must give a tensor of 8 finite scores."
        )


def check_finite(setting: str, value: float) -> None:
    """Raise a SettingError for an infinite number."""
    if isinf(value):
        raise SettingError(f"{setting}: {value} is no number to work with. Take a finite one.")


def check_vae(generate: Callable[[Tensor, torch.Generator], Tensor], images: Tensor) -> None:
    """Raise a SettingError if complements of these images cannot be made."""
    try:
        complements = generate(images, torch.Generator())
    except Exception as error:
        raise SettingError(
            f"--vae.network: for images of shape {tuple(images.shape[1:])}: {error}"
        ) from error
    if complements.shape != images.shape:
        raise SettingError(
            f"--vae.network: it makes images of shape {tuple(complements.shape[1:])}, the data "
            f"set's are {tuple(images.shape[1:])}. Set its image_shape."
        )


def check_weights(module: nn.Module, when: str, setting: str) -> None:
    """Raise a SettingError if training has led to weights that are NaN or infinite."""
    if not all(bool(weight.isfinite().all()) for weight in module.parameters()):
        raise diverged(when, setting)


def diverged(when: str, setting: str) -> SettingError:
    """Return what to say of a training that has come to nothing."""
    return SettingError(
        f"{setting}: the loss has become NaN or infinite {when}. Take a lower learning rate, "
        "--trainer.precision 32-true, or --trainer.gradient_clip_val 1."
    )


def check_scores(scores_N: Tensor, priorities_N: Tensor, round: int, ranked: bool) -> None:
    """Raise a SettingError if scores are no numbers, or are all 0 and were to rank by."""
    if scores_N.isfinite().all() and not priorities_N.isfinite().all():
        raise SettingError(
            f"--acquisition.function: its scores of round {round} are not finite. Mend it: a "
            "probability may be 0, and its logarithm -inf."
        )
    if not scores_N.isfinite().all():
        raise SettingError(
            f"--trainer.precision: the scores of round {round} are not finite, as the network's "
            "outputs overflow. Take 32-true or bf16-mixed, or a lower learning rate."
        )
    if ranked and scores_N.max() == 0:
        raise SettingError(
            f"--model.network: after round {round} all posterior draws agree on every image, so "
            "that there is nothing to rank them by. Take more dropout or a lower learning rate."
        )


def check_agreement(trainer: Trainer, pool: Pool) -> None:
    """Raise a RuntimeError if the processes do not hold the same pools."""
    if trainer.world_size == 1:
        return
    own = pool.digest()
    if trainer.strategy.broadcast(own) != own:
        raise RuntimeError(
            f"after round {trainer.current_epoch} process {trainer.global_rank} holds other pools "
            "than process 0; this is a bug of baldvae or of the oracle, acquisition function or "
            "posterior that was given"
        )
