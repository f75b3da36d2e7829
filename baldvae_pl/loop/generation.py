"""Complements of 8-bit images: on any accelerator, the same on every process."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from baldvae_pl.complement import Complement
from baldvae_pl.data.batches import to_8_bit, to_unit_interval
from baldvae_pl.data.module import data_of
from baldvae_pl.posterior import eval_mode


def complements_of(
    trainer: Trainer,
    pl_module: LightningModule,
    policy: Complement,
    vae: nn.Module | None,
    parents: Tensor,
    chance: torch.Generator | None,
) -> Tensor:
    """Return the complements of these images, a batch at a time, on the CPU of every process."""
    if vae is not None:
        vae.to(pl_module.device)
    # Made once: on different machines they might differ.
    made = [
        generate(policy, vae, part.to(pl_module.device), chance)
        for part in parents.split(data_of(trainer).eval_batch_size)
        if trainer.is_global_zero
    ]
    complements: Tensor = trainer.strategy.broadcast(torch.cat(made or [parents]))
    return complements


@torch.no_grad()
def generate(
    policy: Complement, vae: Any, images: Tensor, chance: torch.Generator | None
) -> Tensor:
    """Return the complements of a batch on the VAE's device."""
    with eval_mode(vae or nn.Identity()):
        return to_8_bit(policy.generate(to_unit_interval(images), vae, chance))
