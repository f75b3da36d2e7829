"""How many classes the first labels hold: python benchmarks/first_labels.py DATA VAE.ckpt ...

MNIST, latents of VAEs that runs of few_labels.yaml have left (checkpoints/vae.ckpt), two seeds for
each of them. Classes are looked at for counting alone. Writes docs/results/first_labels.csv.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from baldvae_pl import MNIST, ProbCover, RandomSubset, Typical, Unexplored
from baldvae_pl.networks import DenseVAE
from baldvae_pl.pool import Pool
from baldvae_pl.selection import Candidates

SELECTIONS = [RandomSubset(), Typical(), ProbCover(), Unexplored()]
LABELS = [10, 20, 30]

train = MNIST()(Path(sys.argv[1])).train
rows = []
for number, path in enumerate(sys.argv[2:]):
    vae = DenseVAE((1, 28, 28), 400, 20).eval()
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    vae.load_state_dict({name.removeprefix("network."): x for name, x in state.items()})

    def look(function: Callable[[Tensor], Tensor], indices: Tensor) -> Tensor:
        """Apply a function to these images of W."""
        with torch.no_grad():
            parts = [function(x.float() / 255) for x in train.images[indices].split(4096)]
        return torch.cat(parts)

    pool = Pool(len(train.labels), (1, 28, 28), torch.uint8)
    for seed in range(2):
        for selection in SELECTIONS:
            for labels in LABELS:
                among = Candidates(
                    priorities_N=torch.zeros(len(train.labels)),
                    labelled=pool.labelled,
                    query_size=labels,
                    highest=pool.highest_unlabelled,
                    map=look,
                    generator=torch.Generator().manual_seed(2 * number + seed),
                    autoencoder=vae,
                    image_shape=(1, 28, 28),
                )
                classes = len(train.labels[selection(among)].unique())
                rows.append([type(selection).__name__, labels, 2 * number + seed, classes])
                print(*rows[-1], flush=True)
table = pd.DataFrame(rows, columns=["selection", "labels", "seed", "classes"])
results = Path(__file__).parent.parent / "docs" / "results"
table.to_csv(results / "first_labels.csv", index=False)
print(table.groupby(["selection", "labels"])["classes"].agg(["mean", "min", "max"]))
