"""How well few or nested posterior draws rank, beside 1,000 independent ones."""

import itertools

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl import Images
from baldvae_pl.acquisition import bald
from baldvae_pl.data.batches import to_floats
from baldvae_pl.posterior import DropoutDraws


def trained(net: nn.Module, images: Images, steps: int) -> nn.Module:
    """Train a network as a round does: Adam, batches of 64."""
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters())
    for _ in range(steps):
        batch = torch.randint(len(images.labels), (64,))
        logits = net(to_floats(images.images[batch]))
        loss = F.cross_entropy(logits, images.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def quality(
    name: str, net: nn.Module, train: Images, labels: int, steps: int, repeats: int = 4
) -> pd.DataFrame:
    """Agreement of the 5 % highest scores of 2,000 images with those of 1,000 independent draws."""
    order = torch.randperm(len(train.labels))
    net = trained(net, Images(*(part[order[:labels]] for part in train)), steps)
    pool = to_floats(train.images[order[labels : labels + 2000]])
    top = len(pool) // 20
    seeds = itertools.count()

    def scores(draws: int, nested: int) -> Tensor:
        chance = torch.Generator().manual_seed(next(seeds))
        posterior = DropoutDraws(net, draws, chance, nested)
        return torch.cat([bald(posterior(part)) for part in pool.split(1000)])

    truth = scores(1000, 1)
    best = truth.topk(top).indices
    rows = []
    for draws, nested in ((20, 1), (100, 1), (100, 2), (100, 5), (100, 10), (200, 10), (1000, 1)):
        found = [scores(draws, nested) for _ in range(repeats if draws < 1000 else 2)]
        overlap = torch.tensor(
            [torch.isin(s.topk(top).indices, best).float().mean() * 100 for s in found]
        )
        error = torch.stack([((s - truth) ** 2).mean().sqrt() for s in found]).mean()
        way = "independent" if nested == 1 else f"{draws // nested} x {nested}"
        interval = 1.96 * overlap.std() / len(found) ** 0.5
        values = [round(overlap.mean().item(), 1), round(interval.item(), 1)]
        rows.append([name, labels, draws, way, *values, round(error.item(), 4)])
    columns = ["data", "labels", "T", "draws", "same top 5 % (%)", "±", "RMSE (nats)"]
    return pd.DataFrame(rows, columns=columns)
