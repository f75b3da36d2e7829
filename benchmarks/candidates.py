"""Whether BatchBALD's candidates suffice: python benchmarks/candidates.py DATA LABELS SEED.

It chooses among the 4,096 highest BALD scores; here once more among all 60,000 images of MNIST.
"""

import sys
from pathlib import Path

import torch
from torch.nn import functional as F

from baldvae_pl import MNIST
from baldvae_pl.acquisition import bald
from baldvae_pl.networks import LeNet
from baldvae_pl.posterior import DropoutDraws
from baldvae_pl.selection import MOST_CANDIDATES, greedy_batch

labels, seed = int(sys.argv[2]), int(sys.argv[3])
train = MNIST()(Path(sys.argv[1])).train
images, classes = train.images.float() / 255, train.labels
chance = torch.Generator().manual_seed(seed)
labelled = torch.randperm(len(images), generator=chance)[:labels]
torch.manual_seed(seed)
network = LeNet()
adam = torch.optim.Adam(network.parameters())
for _ in range(300):
    batch = labelled[torch.randperm(labels, generator=chance)[:32]]
    loss = F.cross_entropy(network(images[batch]), classes[batch])
    adam.zero_grad()
    loss.backward()
    adam.step()
draws = DropoutDraws(network, 100, torch.Generator().manual_seed(seed), nested=10)
with torch.autocast("cpu", torch.bfloat16):
    log_probs_N_T_C = torch.cat([draws(part) for part in images.split(2000)])  # noqa: N816
log_probs_N_T_C[labelled] = -torch.tensor(10.0).log()  # tells nothing, so that it is not chosen
order = bald(log_probs_N_T_C).argsort(descending=True, stable=True)


def choose(candidates: torch.Tensor, outcomes: int) -> set[int]:
    """Return ten of them; which joint outcomes are sampled is a matter of a seed."""
    sampled = torch.Generator().manual_seed(outcomes)
    return set(candidates[greedy_batch(log_probs_N_T_C[candidates], 10, sampled)].tolist())


few, everything = choose(order[:MOST_CANDIDATES], 0), choose(order, 0)
ranks = sorted((order == image).nonzero().item() + 1 for image in everything)
print(f"{labels} labels: {len(few & everything)} of 10 are the same among all images,")
print(f"{len(few & choose(order[:MOST_CANDIDATES], 1))} of 10 with other sampled outcomes.")
print("Ranks by BALD of those chosen among all:", *ranks)
