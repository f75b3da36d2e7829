"""What is tried before anything expensive begins, so that it cannot fail in the middle."""

from collections.abc import Callable

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from baldvae_pl.batches import to_unit_interval
from baldvae_pl.data import PoolDataModule
from baldvae_pl.posterior import Posterior, eval_mode
from baldvae_pl.settings import SettingError

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


def check_network(network: nn.Module, posterior: Posterior, data: PoolDataModule) -> None:
    """Try a network on a few images of W.

    Raises:
        SettingError: If it does not take them, tells another number of classes apart, or all draws
            of its posterior agree.
    """
    name, images = type(network).__name__, data.train.images[:8]
    try:
        log_probs_N_T_C = posterior(network, 8, torch.Generator())(to_unit_interval(images))
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise SettingError(
            f"--model.network: for images of shape {tuple(images.shape[1:])}: {error}"
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


def check_vae(generate: Callable[[Tensor, torch.Generator], Tensor], images: Tensor) -> None:
    """Raise a SettingError if complements of these images cannot be made."""
    try:
        complements = generate(images, torch.Generator())
    except (RuntimeError, ValueError, TypeError) as error:
        raise SettingError(
            f"--vae.network: for images of shape {tuple(images.shape[1:])}: {error}"
        ) from error
    if complements.shape != images.shape:
        raise SettingError(
            f"--vae.network: it makes images of shape {tuple(complements.shape[1:])}, the data "
            f"set's are {tuple(images.shape[1:])}. Set its image_shape."
        )
