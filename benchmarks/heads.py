"""Posterior draws on networks whose head is no chain of dropout and linear layers."""

from copy import deepcopy
from typing import Any

import pandas as pd
import torch
from timing import seconds
from torch import Tensor, nn
from torch.func import functional_call

from baldvae_pl.acquisition import bald
from baldvae_pl.data.batches import to_floats
from baldvae_pl.posterior import Draws, DropoutDraws


def convolutions(dropout: float = 0.0) -> list[nn.Module]:
    """Return the layers that these networks begin with: colour images of 32 x 32 to 128 x 4 x 4."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Dropout2d(dropout)] if dropout else []
    return layers


def between() -> nn.Module:
    """Return a network with dropout between its convolutions: no part is the same for all draws."""
    return nn.Sequential(*convolutions(0.2), nn.Flatten(), nn.Linear(128 * 16, 10))


class InTwo(nn.Module):
    """A network whose trunk is without dropout."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        return self.head(self.trunk(images))


def attention() -> nn.Module:
    """Return a network whose head is two layers of a transformer, with dropout."""
    layer = nn.TransformerEncoderLayer(128, 4, 256, 0.2, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    trunk = nn.Sequential(*convolutions(), nn.Flatten(2))
    return InTwo(trunk, nn.Sequential(Transposed(), encoder, Mean(), nn.Linear(128, 10)))


def plain_head() -> nn.Module:
    """Return a network whose head is one linear layer, without dropout."""
    return InTwo(nn.Sequential(*convolutions(), nn.Flatten()), nn.Linear(128 * 16, 10))


class Transposed(nn.Module):
    """Channels of places become tokens."""

    def forward(self, features: Tensor) -> Tensor:
        """Return tokens of shape (n, places, channels)."""
        return features.transpose(1, 2)


class Mean(nn.Module):
    """The mean of all tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Return one vector an image."""
        return tokens.mean(1)


def last_layers(network: Any, count: int, generator: torch.Generator) -> Draws:
    """Return draws as of a Laplace approximation of the last layer; any variance takes as long."""
    weight = network.head.weight
    noise = torch.randn(count, *weight.shape, generator=generator)
    weights = (weight + 0.01 * noise).flatten(0, 1).detach()

    @torch.no_grad()
    def draw(images: Tensor) -> Tensor:
        logits = network.trunk(images) @ weights.T + network.head.bias.repeat(count)
        return logits.view(len(images), count, -1).log_softmax(-1)

    return draw


def members(network: nn.Module, count: int, _: torch.Generator) -> Draws:
    """Return draws as of an ensemble, by the weights of each of its members."""
    weights = [deepcopy(network.state_dict()) for _ in range(count)]

    @torch.no_grad()
    def draw(images: Tensor) -> Tensor:
        logits = [functional_call(network, each, (images,)) for each in weights]
        return torch.stack(logits, 1).log_softmax(-1)

    return draw


def heads(images: Tensor) -> pd.DataFrame:
    """Time of T = 20 draws on networks whose head is no chain of dropout and linear layers."""
    rows = []
    x = to_floats(images)
    for name, network, posterior in (
        ("dropout between convolutions", between(), DropoutDraws),
        ("transformer as head", attention(), DropoutDraws),
        ("last layer of 20 draws, as Laplace's", plain_head(), last_layers),
        ("ensemble of 20", plain_head(), members),
    ):
        draws = posterior(network, 20, torch.Generator().manual_seed(0))

        def ours(network: nn.Module = network, draws: Draws = draws) -> None:
            network.eval()
            for part in x.split(256):
                bald(draws(part))

        @torch.no_grad()
        def plain(network: nn.Module = network) -> None:
            network.train()
            for part in x.split(256):
                bald(torch.stack([network(part).log_softmax(-1) for _ in range(20)], 1))

        @torch.no_grad()
        def one_pass(network: nn.Module = network) -> None:
            network.eval()
            for part in x.split(256):
                network(part).softmax(-1)

        times = seconds({"one": one_pass, "ours": ours, "plain": plain}, 3)
        per_image = [round(1e6 * times[way] / len(x)) for way in ("one", "ours", "plain")]
        speed = round(times["plain"] / times["ours"], 2)
        rows.append([name, *per_image, round(times["ours"] / times["one"], 1), speed])
    columns = ["what", "one pass, µs an image", "ours, T = 20", "20 plain passes"]
    return pd.DataFrame(rows, columns=[*columns, "times one pass", "speed of ours"])
