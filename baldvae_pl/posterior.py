"""Posteriors: a trained network -> T draws, each from images to class log-probabilities.

`MCDropout` (Gal and Ghahramani 2016) with consistent masks: a draw is one set of dropout masks,
the same for every image, hence one function drawn from the posterior.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl.errors import SettingError
from baldvae_pl.products import masked_products

WEIGHTS = 2**26
"""Weights of a head that its masks may hold at once, whatever T is: 256 MiB in float32."""

ROWS = 2**18
"""Units of a first layer that they may hold at once for an image: 64 MiB for 64 images."""

PASS = 128
"""Images in one pass through the trunk, or the network: bounds memory, and suits a CPU's caches."""

Draws = Callable[[Tensor], Tensor]
"""Float images in [0, 1] -> log_probs_N_T_C, under the same draws at every call."""

PosteriorFunction = Callable[[nn.Module, int, torch.Generator], Draws]
"""A network, a number of draws T and a CPU generator -> those draws."""


class Posterior(ABC):
    """Makes the draws of a round. Options of a subclass are the parameters of its ``__init__``.

    One that is fitted while the network trains (SWAG, snapshots) or afterwards (Laplace) overrides
    the hooks, and says in ``state_dict`` what it has fitted, so that a run can go on.
    """

    def on_train_start(self, network: nn.Module) -> None:
        """Forget the round before; called before a round's first step."""

    def on_train_step(self, network: nn.Module, step: int, steps: int) -> None:
        """Look at the weights after step ``step`` (from 0) of ``steps``."""

    def fit(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        """Fit to what the network was trained with, after its last step.

        Args:
            network: Trained, in eval mode, on the accelerator.
            images: Of L and G, as W holds them, on the CPU.
            labels: Theirs.
        """

    @abstractmethod
    def __call__(self, network: nn.Module, mc_samples: int, generator: torch.Generator) -> Draws:
        """Return T draws; ``generator`` is a CPU generator of the round."""

    def state_dict(self) -> dict[str, Any]:
        """Return the fitted state: tensors and plain values only."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state that :meth:`state_dict` returned."""


class MCDropout(Posterior):
    """T sets of dropout masks, each the same for every image.

    Args:
        nested: In a Dropout -> Linear -> ... -> Dropout -> ... head, the number of successive draws
            that share the masks of its first dropout layer, whose product is the costly one. With 1
            all draws are independent, as they are in any other network.
    """

    def __init__(self, nested: int = 10) -> None:
        if nested < 1:
            raise SettingError(f"--acquisition.posterior.nested: must be at least 1, got {nested}.")
        self.nested = nested

    def __call__(self, network: nn.Module, mc_samples: int, generator: torch.Generator) -> Draws:
        """Return the draws; see `DropoutDraws`."""
        return DropoutDraws(network, mc_samples, generator, self.nested)


class Deterministic(Posterior):
    """One pass with dropout off: for functions that need no disagreement, on any network."""

    def __call__(self, network: nn.Module, mc_samples: int, generator: torch.Generator) -> Draws:
        """Return the one draw, whatever ``mc_samples`` is."""
        del mc_samples, generator

        @torch.no_grad()
        def draw(images: Tensor) -> Tensor:
            with eval_mode(network):
                parts = [network(part).float() for part in images.split(PASS)]
            return torch.cat(parts).log_softmax(-1)[:, None]

        return draw


DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus)


class DropoutDraws:
    """T draws of a network's weights by MC dropout, as one function of images.

    Only dropout is random: everything else, BatchNorm too, is in eval mode, and modes are restored
    after every call. The masks depend on the generator alone, not on the images, their batches or
    the device.

    Args:
        network: Maps images in [0, 1] to logits (or log-probabilities) of shape (n, C). If it has
            a ``trunk`` without dropout and a ``head``, the trunk runs once for all draws.
        mc_samples: Number of draws T.
        generator: CPU generator that the masks are drawn from.
        nested: See `MCDropout`.

    Raises:
        ValueError: If the network has no active dropout: all draws would agree.
    """

    def __init__(
        self, network: nn.Module, mc_samples: int, generator: torch.Generator, nested: int = 10
    ) -> None:
        if not active_dropouts(network):
            raise ValueError(
                f"{type(network).__name__} has no active nn.Dropout layer: all posterior draws "
                "agree and BALD is 0 everywhere. Add nn.Dropout layers with p > 0 (calls of "
                "torch.nn.functional.dropout are not seen), or take --acquisition.posterior "
                "Deterministic with a function such as margin"
            )
        self.network = network
        parts: Any = network
        separate = has_trunk_and_head(network) and not active_dropouts(parts.trunk)
        self.trunk: Any = parts.trunk if separate else None
        self.head: Any = parts.head if separate else parts
        self.folds = is_dropout_linear(self.head)
        self.nested = nested if self.folds and len(active_dropouts(self.head)) > 1 else 1
        self.mc_samples = mc_samples
        self.generator = generator
        self.buffer = torch.empty(0)
        # One scaled mask of shape (T, *features) for each call of a dropout layer in a pass.
        self.masks: dict[tuple[nn.Module, int], Tensor] = {}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return log_probs_N_T_C in float32 for float images in [0, 1], shape (N, C, H, W)."""
        run = self._products if self.folds else self._pass_by_pass
        draws_T = torch.arange(self.mc_samples).split(self._draws_at_once())
        with eval_mode(self.network):
            parts = images.split(PASS) if self.trunk is None else (self.features(images),)
            logits_N_T_C = torch.cat(
                [torch.cat([run(part, draws) for draws in draws_T], 1) for part in parts]
            )
        # As log_softmax, which takes three times as long over so few classes on a CPU.
        shifted_N_T_C = logits_N_T_C.float() - logits_N_T_C.float().amax(-1, keepdim=True)
        return shifted_N_T_C - shifted_N_T_C.exp().sum(-1, keepdim=True).log()

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Run the trunk, a pass at a time, into memory that the next call uses again."""
        passes = images.split(PASS)
        first = self.trunk(passes[0])
        shape = (len(images), *first.shape[1:])
        fits = self.buffer.shape[1:] == shape[1:] and self.buffer.dtype == first.dtype
        if not fits or len(self.buffer) < len(images):
            self.buffer = first.new_empty(shape)
        features = self.buffer[: len(images)]
        features[:PASS] = first
        for number, part in enumerate(passes[1:], 1):
            features[number * PASS : (number + 1) * PASS] = self.trunk(part)
        return features

    def _pass_by_pass(self, features: Tensor, draws_T: Tensor) -> Tensor:
        """Run any head once per draw."""
        return torch.stack([self._run(self.head, features, t) for t in draws_T.tolist()], 1)

    def _draws_at_once(self) -> int:
        """Return of how many draws the masked weights fit into memory: whole nests."""
        if not self.folds:
            return self.mc_samples
        _, linear, _, rest = split_head(self.head)
        weights = linear.weight.numel()
        if folds_twice(rest):
            weights += self.nested * rest[1].weight.numel()
        masks: int = min(WEIGHTS // weights, ROWS // linear.out_features)
        return self.nested * max(1, masks)

    def _products(self, features_N_D: Tensor, draws_T: Tensor) -> Tensor:
        """Run a Dropout -> Linear -> ... head for these draws, with one product a first mask.

        Draws that share their first mask share its product, and a unit that the next dropout layer
        drops in all of them needs none.
        """
        first, linear, _, rest = split_head(self.head)
        nests = draws_T.split(self.nested)
        mask_M_D = self._mask(first, 0, features_N_D[0])[draws_T[:: self.nested]]
        mask_T_H = torch.ones(self.mc_samples, linear.out_features, device=mask_M_D.device)
        if folds_twice(rest):
            mask_T_H = self._mask(rest[0], 0, linear.weight[:, 0])
        units_M = [mask_T_H[nest].sum(0).nonzero().flatten() for nest in nests]
        after_M = [
            self._after_product(mask_T_H, units, nest)
            for units, nest in zip(units_M, nests, strict=True)
        ]
        # Scaled before it is rounded to the features' precision; what is left of a mask is 0 or 1.
        weight_H_D = (linear.weight * mask_M_D.amax()).to(features_N_D.dtype)
        parts = [
            torch.cat([run(hidden) for run, hidden in zip(after_M, hidden_M, strict=True)], 1)
            for hidden_M in masked_products(features_N_D, weight_H_D, mask_M_D > 0, units_M)
        ]
        return torch.cat(parts)

    def _after_product(
        self, mask_T_H: Tensor, units: Tensor, nest: Tensor
    ) -> Callable[[Tensor], Tensor]:
        """Return what follows a first mask's product: hidden_U_N -> logits_N_T_C of its draws."""
        _, linear, between, rest = split_head(self.head)
        bias = None if linear.bias is None else linear.bias[units, None]
        activation = nn.Sequential(*between)

        remaining = nn.Sequential(*rest)
        if folds := folds_twice(rest):
            weight = rest[1].weight[:, units]
            weight_T_H_U = weight * mask_T_H[nest][:, None, units].to(weight.dtype)
            weight_R_U, bias_H, remaining = weight_T_H_U.flatten(0, 1), rest[1].bias, remaining[2:]

        def run(hidden_U_N: Tensor) -> Tensor:
            if bias is not None:
                hidden_U_N = hidden_U_N + bias.to(hidden_U_N.dtype)
            hidden_N_U = activation(hidden_U_N).t()
            if folds:
                hidden = F.linear(hidden_N_U, weight_R_U).unflatten(1, (len(nest), -1))
                hidden = hidden if bias_H is None else hidden + bias_H
            else:
                hidden = hidden_N_U[:, None].expand(-1, len(nest), -1)
            return self._run(remaining, hidden, nest)

        return run

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
            draws = self.mc_samples if self.masks else -(-self.mc_samples // self.nested)
            keep = torch.rand((draws, *shape), generator=self.generator) >= layer.p
            if not self.masks:
                keep = keep.repeat_interleave(self.nested, 0)[: self.mc_samples]
            self.masks[layer, call] = (keep / (1 - layer.p or 1)).to(example.device)
        return self.masks[layer, call]


def has_trunk_and_head(network: nn.Module) -> bool:
    """Whether a network says that it is ``head(trunk(images))``."""
    return hasattr(network, "trunk") and hasattr(network, "head")


def is_idle(layer: nn.Module) -> bool:
    """Whether a layer is a dropout layer that drops nothing."""
    return isinstance(layer, DROPOUT) and layer.p == 0


def active_dropouts(module: nn.Module) -> list[nn.Module]:
    """Return the dropout layers with p > 0."""
    return [layer for layer in module.modules() if isinstance(layer, DROPOUT) and layer.p > 0]


def is_dropout_linear(head: nn.Module) -> bool:
    """Whether a head is Dropout -> Linear, then only layers that act on the last dimension."""
    if type(head) is not nn.Sequential:  # a subclass may compute something else
        return False
    layers = [layer for layer in head if not is_idle(layer)]
    return (
        [type(layer) for layer in layers[:2]] == [nn.Dropout, nn.Linear]
        and all(type(layer) in (nn.Dropout, nn.Linear, *POINTWISE) for layer in layers)
        and len({id(layer) for layer in layers}) == len(layers)
    )


def split_head(head: nn.Module) -> tuple[nn.Module, Any, list[Any], list[Any]]:
    """Return the first dropout and linear layer, the pointwise layers that follow, and the rest."""
    assert isinstance(head, nn.Sequential)
    first, linear, *rest = (layer for layer in head if not is_idle(layer))
    stop = next((i for i, x in enumerate(rest) if type(x) not in POINTWISE), len(rest))
    return first, linear, rest[:stop], rest[stop:]


def folds_twice(rest: list[Any]) -> bool:
    """Whether after the first product comes a second one whose inputs are masked."""
    return [type(layer) for layer in rest[:2]] == [nn.Dropout, nn.Linear]


@contextmanager
def eval_mode(network: Any) -> Iterator[None]:
    """Put every module into eval mode and afterwards back into its own; others have no mode."""
    if not isinstance(network, nn.Module):
        yield
        return
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
