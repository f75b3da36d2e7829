"""Images whose labels would move the network's last layer far, each in another direction."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl.errors import SettingError
from baldvae_pl.posterior import eval_mode
from baldvae_pl.selection import Candidates, Selection


class BADGE(Selection):
    """Batches that are diverse and uncertain at once, by the gradients of the last layer.

    BADGE (Ash et al. 2020, "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower
    Bounds", ICLR). An image stands for the gradient of its loss, were the predicted class its
    label, by the weights of the last linear layer: a ⊗ h with a = p - onehot(argmax p), where h are
    the inputs of that layer and p the prediction, both with dropout off. The first image is that
    of the longest gradient; each next one is drawn with a probability proportional to the squared
    distance to the nearest gradient of those chosen, the seeding of k-means++. It looks at no
    scores, and at all of U.
    """

    ranks = False
    needs_network = True

    def __call__(self, candidates: Candidates) -> Tensor:
        """Return their indices."""
        network, unlabelled = candidates.network, candidates.unlabelled
        assert network is not None
        linear = last_linear(network)
        both = candidates.map(lambda images: gradient_factors(network, linear, images), unlabelled)
        errors_N_C, inputs_N_H = both.split([linear.out_features, linear.in_features], 1)
        count = min(candidates.query_size, len(unlabelled))
        return unlabelled[spread_out(errors_N_C, inputs_N_H, count, candidates.generator)]


def last_linear(network: nn.Module) -> nn.Linear:
    """Return the linear layer that was added to a network last, which makes its outputs.

    What is trained beside a network has no part in it.

    Raises:
        SettingError: If it has none.
    """
    layers = [
        layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and not name.startswith("beside.")
    ]
    if not layers:
        raise SettingError(
            f"--acquisition.selection: BADGE needs the gradients of a linear layer, and "
            f"{type(network).__name__} has none. Choose another selection."
        )
    return layers[-1]


def gradient_factors(network: nn.Module, linear: nn.Linear, images: Tensor) -> Tensor:
    """Return a and h of each image side by side, shape (n, C + H); see `BADGE`."""
    inputs: list[Tensor] = []
    hook = linear.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        with eval_mode(network):
            probs_N_C = network(images).float().softmax(1)
    finally:
        hook.remove()
    errors_N_C = probs_N_C - F.one_hot(probs_N_C.argmax(1), probs_N_C.shape[1])
    return torch.cat([errors_N_C, inputs[0].float()], 1)


def spread_out(
    errors_N_C: Tensor, inputs_N_H: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Return positions in N by the seeding of k-means++ on the gradients a ⊗ h; see `BADGE`.

    No gradient is ever formed: the inner product of two is (a · a') (h · h').
    """
    squares_N = errors_N_C.square().sum(1) * inputs_N_H.square().sum(1)
    chosen = [int(squares_N.argmax())]
    nearest_N = torch.full_like(squares_N, torch.inf)
    while len(chosen) < count:
        last = chosen[-1]
        products_N = (errors_N_C @ errors_N_C[last]) * (inputs_N_H @ inputs_N_H[last])
        distances_N = squares_N + squares_N[last] - 2 * products_N
        nearest_N = nearest_N.minimum(distances_N.clamp(min=0))
        nearest_N[chosen] = 0
        weights_N = nearest_N.double()
        if not weights_N.any():  # all that is left is like what is chosen
            weights_N = torch.ones_like(weights_N).index_fill(0, torch.tensor(chosen), 0)
        below_N = weights_N.cumsum(0)
        place = below_N[-1] * torch.rand((), generator=generator, dtype=torch.double)
        chosen.append(int(torch.searchsorted(below_N, place, right=True)))
    return torch.tensor(chosen)
