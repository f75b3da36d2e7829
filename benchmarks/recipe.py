"""The limits of accuracy with few labels: python benchmarks/recipe.py DATA.

Networks, steps and batch sizes on random labels of MNIST's training images, measured on 4,000 other
training images, so nothing is chosen by test images. Writes docs/results/recipe.csv.
"""

import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.datasets import MNIST

from baldvae_pl.networks import LeNet, MNISTNet

RECIPES = [
    *((MNISTNet, 300, 64), (MNISTNet, 300, 32), (MNISTNet, 1200, 32)),
    *((LeNet, 300, 32), (LeNet, 1000, 32)),
]
SEEDS = 3


def accuracy(
    build: Callable[[], nn.Module], labels: int, steps: int, batch: int, seed: int
) -> float:
    """Train as a round does, by Adam on whole batches of each epoch's order."""
    chance = torch.Generator().manual_seed(seed)
    order = torch.randperm(50_000, generator=chance)[:labels]
    torch.manual_seed(seed)
    network = build().to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(network.parameters())
    for step in range(steps):
        place = step % (labels // batch)
        if place == 0:
            order = order[torch.randperm(labels, generator=chance)]
        chosen = order[place * batch : (place + 1) * batch]
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(network(images[chosen]).float(), classes[chosen])
        adam.zero_grad()
        loss.backward()
        adam.step()
    network.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = torch.cat([network(part).argmax(1) for part in images[50_000:54_000].split(1000)])
    return (found == classes[50_000:54_000]).float().mean().item()


data = MNIST(sys.argv[1], train=True)
images, classes = data.data[:, None].float() / 255, data.targets
rows = []
for labels, (build, steps, batch) in product((64, 200), RECIPES):
    found = [accuracy(build, labels, steps, batch, seed) for seed in range(SEEDS)]
    mean, spread = 100 * pd.Series(found).mean(), 100 * pd.Series(found).std()
    rows.append([labels, build.__name__, steps, batch, SEEDS, round(mean, 1), round(spread, 1)])
    print(*rows[-1], flush=True)
columns = ["labels", "network", "steps", "batch", "seeds", "accuracy", "standard deviation"]
pd.DataFrame(rows, columns=columns).to_csv(
    Path(__file__).parent.parent / "docs" / "results" / "recipe.csv", index=False
)
