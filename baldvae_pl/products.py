"""Products of a linear layer under many masks on its inputs: what most of a head's time goes into.

M masks, N images, D inputs, H units. Of each mask's product, only the U units are made that its
draws need.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

AT_ONCE = 2**24
"""Masked weights (twice while they are joined), or products, held at a time: 64 MiB in float32."""

CACHED = 2**21
"""Inputs, or products, that a CPU's caches hold beside all else: 8 MiB in float32."""

TILE = 64
"""Images of which a part is a multiple: products of odd sizes are a tenth slower."""

WORTH = 80
"""Products that must be spared for each input that is gathered, for a CPU to be faster so."""


def masked_products(
    inputs_N_D: Tensor, weight_H_D: Tensor, keep_M_D: Tensor, units_M: Sequence[Tensor]
) -> Iterator[Sequence[Tensor]]:
    """Return the products of a linear layer under each mask, without its bias.

    Args:
        inputs_N_D: Before any mask.
        weight_H_D: Of the layer, in the precision of the inputs.
        keep_M_D: Whether a mask keeps an input.
        units_M: Indices of the units that are needed under each mask.

    Yields:
        For one part of the images after the other, of n images, each mask's hidden_U_n.
    """
    in_float32 = inputs_N_D.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if inputs_N_D.device.type == "cpu" and in_float32:
        kept = keep_M_D.float().mean().item()
        fewer = min(kept, 1 - kept)
        spared = (1 - fewer) * sum(map(len, units_M)) - (len(weight_H_D) if kept > 0.5 else 0)
        if spared > WORTH * fewer * len(units_M):
            return with_fewer_inputs(inputs_N_D, weight_H_D, keep_M_D, units_M)
    return with_masked_weights(inputs_N_D, weight_H_D, keep_M_D, units_M)


def with_masked_weights(
    inputs_N_D: Tensor, weight_H_D: Tensor, keep_M_D: Tensor, units_M: Sequence[Tensor]
) -> Iterator[Sequence[Tensor]]:
    """Make the products of many masks as one: a mask on inputs is a mask on columns of weights."""
    rows, masks = sum(map(len, units_M)), max(1, AT_ONCE // weight_H_D.numel())
    for part_N_D in inputs_N_D.split(max(TILE, AT_ONCE // max(1, rows))):
        hidden_M: list[Tensor] = []
        for first in range(0, len(units_M), masks):
            these = slice(first, first + masks)
            weights = [
                weight_H_D.index_select(0, units) * keep_D.to(weight_H_D.dtype)
                for units, keep_D in zip(units_M[these], keep_M_D[these], strict=True)
            ]
            hidden_R_N = torch.cat(weights) @ part_N_D.t()
            hidden_M += torch.split(hidden_R_N, [len(weight) for weight in weights])
        yield hidden_M


def with_fewer_inputs(
    inputs_N_D: Tensor, weight_H_D: Tensor, keep_M_D: Tensor, units_M: Sequence[Tensor]
) -> Iterator[Sequence[Tensor]]:
    """Make each mask's product by the inputs that it drops, or keeps if these are fewer.

    What it drops is taken off the product with all inputs, which is made once for all masks: for
    p = 1/4 a quarter of the work.
    """
    masks = []
    for keep_D, units in zip(keep_M_D, units_M, strict=True):
        drops = bool(2 * keep_D.sum() > len(keep_D))
        few = (keep_D ^ drops).nonzero().flatten()
        weight = weight_H_D.index_select(0, units).gather(1, few.expand(len(units), -1))
        masks.append((units, few, weight, drops))
    widest = max(inputs_N_D.shape[1], sum(map(len, units_M)))
    for part_N_D in inputs_N_D.split(TILE * max(1, CACHED // TILE // widest)):
        part_D_N = part_N_D.t().contiguous()  # so that an input is a row, which is copied fast
        all_H_N = weight_H_D @ part_D_N if any(drops for *_, drops in masks) else None
        hidden_M = []
        for units, few, weight, drops in masks:
            few_D_N = part_D_N.index_select(0, few)
            if all_H_N is not None and drops:
                kept_U_N = torch.addmm(all_H_N.index_select(0, units), weight, few_D_N, alpha=-1)
            else:
                kept_U_N = weight @ few_D_N
            hidden_M.append(kept_U_N)
        yield hidden_M
