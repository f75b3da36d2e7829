"""Bayesian approximations: a network and images -> class log-probabilities under T draws.

`MCDropout` (Gal and Ghahramani 2016) with consistent masks: a draw is one set of dropout masks,
the same for every image, hence one function drawn from the posterior.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MCDropout"]

DRAWS_AT_ONCE = 10
"""Draws folded into one matrix product: bounds memory whatever T is."""

PASS = 64
"""Images in one pass through the trunk, or the network: bounds memory, and suits a CPU's caches."""

Draws = Callable[[Tensor], Tensor]
"""Float images in [0, 1] -> log_probs_N_T_C, under the same draws at every call."""

Posterior = Callable[[nn.Module, int, torch.Generator], Draws]
"""A network, a number of draws T and a CPU generator -> those draws."""

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus)


class MCDropout:
    """T draws of a network's weights by MC dropout, as one function of images.

    Only dropout is random: everything else, BatchNorm too, is in eval mode, and modes are restored
    after every call. The masks depend on the generator alone, not on the images, their batches or
    the device.

    Args:
        network: Maps images in [0, 1] to logits (or log-probabilities) of shape (n, C). If it has
            a ``trunk`` without dropout and a ``head``, the trunk runs once for all draws.
        mc_samples: Number of draws T.
        generator: CPU generator that the masks are drawn from.

    Raises:
        ValueError: If the network has no active dropout: all draws would agree.
    """

    def __init__(self, network: nn.Module, mc_samples: int, generator: torch.Generator) -> None:
        if not active_dropouts(network):
            raise ValueError(
                f"{type(network).__name__} has no active nn.Dropout layer, so that all posterior "
                "draws agree and BALD is 0 everywhere. Add nn.Dropout layers with p > 0; calls of "
                "torch.nn.functional.dropout are not seen."
            )
        self.network = network
        self.mc_samples = mc_samples
        self.generator = generator
        # One scaled mask of shape (T, *features) for each call of a dropout layer in a pass.
        self.masks: dict[tuple[nn.Module, int], Tensor] = {}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return log_probs_N_T_C in float32 for float images in [0, 1], shape (N, C, H, W)."""
        network: Any = self.network
        separate = hasattr(network, "trunk") and hasattr(network, "head")
        separate = separate and not active_dropouts(network.trunk)
        head = network.head if separate else network
        run = self._one_product if is_dropout_linear(head) else self._pass_by_pass
        draws_T = torch.arange(self.mc_samples).split(DRAWS_AT_ONCE)
        with eval_mode(network):
            parts = images.split(PASS)
            if separate:
                parts = (torch.cat([network.trunk(part) for part in parts]),)
            logits_N_T_C = torch.cat(
                [torch.cat([run(head, part, draws) for draws in draws_T], 1) for part in parts]
            )
        return logits_N_T_C.float().log_softmax(-1)

    def _pass_by_pass(self, head: nn.Module, features: Tensor, draws_T: Tensor) -> Tensor:
        """Run any head once per draw."""
        return torch.stack([self._run(head, features, t) for t in draws_T.tolist()], 1)

    def _one_product(self, head: nn.Sequential, features_N_D: Tensor, draws_T: Tensor) -> Tensor:
        """Run a Dropout -> Linear -> ... head for all draws as one matrix product.

        A mask on the features is a mask on the columns of the weights, and a unit that the next
        dropout drops needs no product at all.
        """
        first, linear, *rest = head
        assert isinstance(linear, nn.Linear)
        size = linear.out_features
        mask_T_D = self._mask(first, 0, features_N_D[0])[draws_T]
        alive_T_H = torch.ones(len(draws_T), size, dtype=torch.bool)
        for layer in rest:
            if isinstance(layer, DROPOUT) and layer.p > 0:
                alive_T_H = self._mask(layer, 0, linear.weight[:, 0])[draws_T].cpu() > 0
            if isinstance(layer, (nn.Linear, *DROPOUT)):
                break
        draw_R, unit_R = alive_T_H.to(features_N_D.device).nonzero(as_tuple=True)
        weight_R_D = linear.weight[unit_R] * mask_T_D.to(linear.weight.dtype)[draw_R]
        bias_R = None if linear.bias is None else linear.bias[unit_R]
        product_N_R = F.linear(features_N_D, weight_R_D, bias_R)
        hidden_N_T_H = product_N_R.new_zeros(len(features_N_D), len(draws_T), size)
        hidden_N_T_H[:, draw_R, unit_R] = product_N_R
        return self._run(nn.Sequential(*rest), hidden_N_T_H, draws_T)

    def _run(self, module: nn.Module, inputs: Tensor, draws: int | Tensor) -> Tensor:
        """Run a module with the masks of one draw, or of draws along dimension 1 of the inputs."""
        calls: Counter[nn.Module] = Counter()

        def drop(layer: nn.Module, _: tuple[Tensor], output: Tensor) -> Tensor:
            example = output[0] if isinstance(draws, int) else output[0, 0]
            mask = self._mask(layer, calls[layer], example)[draws]
            calls[layer] += 1
            return output * mask.to(output.dtype)

        hooks = [layer.register_forward_hook(drop) for layer in active_dropouts(module)]
        try:
            result: Tensor = module(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return result

    def _mask(self, layer: nn.Module, call: int, example: Tensor) -> Tensor:
        """Return the masks of all draws, shape (T, *features), drawn at the first use."""
        assert isinstance(layer, DROPOUT)
        if (layer, call) not in self.masks:
            shape = example.shape
            if not isinstance(layer, nn.Dropout):  # drops whole channels
                shape = torch.Size([shape[0]] + [1] * (len(shape) - 1))
            keep = torch.rand((self.mc_samples, *shape), generator=self.generator) >= layer.p
            self.masks[layer, call] = (keep / (1 - layer.p or 1)).to(example.device)
        return self.masks[layer, call]


def active_dropouts(module: nn.Module) -> list[nn.Module]:
    """Return the dropout layers with p > 0."""
    return [layer for layer in module.modules() if isinstance(layer, DROPOUT) and layer.p > 0]


def is_dropout_linear(head: nn.Module) -> bool:
    """Whether a head is Dropout -> Linear, then only layers that act on the last dimension."""
    return (
        type(head) is nn.Sequential  # a subclass may compute something else
        and len(head) > 1
        and type(head[0]) is nn.Dropout
        and head[0].p > 0
        and type(head[1]) is nn.Linear
        and all(type(layer) in (nn.Dropout, nn.Linear, *POINTWISE) for layer in head[2:])
        and len({id(layer) for layer in head}) == len(head)
    )


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Put every module into eval mode and afterwards back into its own."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
