"""Batch normalisation after a training with views: it has to know images as they are."""

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from baldvae_pl.data.batches import images_at_once
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.loop.processes import Processes

FOR_STATISTICS = 4096
"""From so many images the statistics are taken."""


def retake_statistics(
    each: Processes, network: nn.Module, data: PoolDataModule, generator: torch.Generator
) -> None:
    """Take the running statistics of batch normalisation anew, from some images as they are.

    They were those of moved images; the same on every process. A network without batch
    normalisation is left alone, and so is what is trained beside it, which these images do not
    pass.
    """
    beside = getattr(network, "beside", nn.Module())
    kept = {name: value.clone() for name, value in beside.state_dict().items()}
    rows = data.pool.trainable
    some = rows[torch.randperm(len(rows), generator=generator)[:FOR_STATISTICS]]
    # Of one size, since each counts as much as another.
    parts = some.tensor_split(-(-len(some) // images_at_once(data.train.images[0].numel())))
    with each.trainer.precision_plugin.forward_context():
        update_bn((each.floats(data.train.images[part]) for part in parts), network)
    beside.load_state_dict(kept)
