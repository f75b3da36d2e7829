"""Products of a linear layer under many masks on its inputs: what most of a head's time goes into.

M masks, N images, D inputs, H units. Of each mask's product, only the units are made that its draws
need.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

CACHED = 2**21
"""Inputs that a CPU keeps near while mask after mask is applied to them."""

TILE = 64
"""Images of which a part is a multiple: products of odd sizes are a tenth slower."""

WORTH = 160
"""Products spared for each input that is gathered, from which on a CPU is faster so, in float32."""


def masked_products(
    inputs_N_D: Tensor, weight_H_D: Tensor, keep_M_D: Tensor, units_M: Sequence[Tensor]
) -> Iterator[Sequence[Tensor]]:
    """Yield for a part of the images after the other each mask's product, of shape (units, part).

    Args:
        inputs_N_D: Of the linear layer, before any mask.
        weight_H_D: Its weights, in the precision of the inputs.
        keep_M_D: Whether a mask keeps an input.
        units_M: Indices of the units that are needed under each mask.
    """
    if inputs_N_D.device.type == "cpu" and inputs_N_D.dtype == torch.float32:
        kept = keep_M_D.float().mean().item()
        fewer = min(kept, 1 - kept)
        if len(weight_H_D) * (1 - fewer) > WORTH * fewer:
            yield from with_fewer_inputs(inputs_N_D, weight_H_D, keep_M_D, units_M)
            return
    yield with_masked_weights(inputs_N_D, weight_H_D, keep_M_D, units_M)


def with_masked_weights(
    inputs_N_D: Tensor, weight_H_D: Tensor, keep_M_D: Tensor, units_M: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Return all masks' products as one: a mask on inputs is a mask on the columns of weights."""
    kept = zip(units_M, keep_M_D.to(weight_H_D.dtype), strict=True)
    weight_R_D = torch.cat([weight_H_D.index_select(0, units) * keep_D for units, keep_D in kept])
    return torch.split(weight_R_D @ inputs_N_D.t(), [len(units) for units in units_M])


def with_fewer_inputs(
    inputs_N_D: Tensor, weight_H_D: Tensor, keep_M_D: Tensor, units_M: Sequence[Tensor]
) -> Iterator[Sequence[Tensor]]:
    """Yield each mask's product by the inputs that it drops, or keeps if these are fewer.

    What it drops is taken off the product with all inputs, which is made once for all masks: for
    p = 1/4 a quarter of the work.
    """
    masks = []
    for keep_D, units in zip(keep_M_D, units_M, strict=True):
        drops = bool(2 * keep_D.sum() > len(keep_D))
        few = (keep_D ^ drops).nonzero().flatten()
        weight = weight_H_D.index_select(0, units).gather(1, few.expand(len(units), -1))
        masks.append((units, few, -weight if drops else weight, float(drops)))
    tiles = max(1, CACHED // TILE // inputs_N_D.shape[1])
    for part_N_D in inputs_N_D.split(tiles * TILE):
        part_D_N = part_N_D.t().contiguous()  # so that an input is a row, which is copied fast
        all_H_N = weight_H_D @ part_D_N
        yield [
            torch.addmm(
                all_H_N.index_select(0, units), weight, part_D_N.index_select(0, few), beta=drops
            )
            for units, few, weight, drops in masks
        ]
