"""Draw the README's curves: python docs/plot.py (needs the `dev` extra)."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

HERE = Path(__file__).parent
PANELS = {
    "MNIST, 100 labels a round (figure 2)": {"BALD-VAE": "mnist"},
    "MNIST, 500 labels a round (figure 3)": {
        "BALD-VAE": "mnist_top500",
        "BALD-O": "mnist_top500+bald_o",
        "VAE-All": "mnist_top500+vae_all",
    },
    "CIFAR-10 (JPEG copy), 1,000 a round (figure 4)": {
        "BALD-VAE": "cifar10_jpeg",
        "BALD-O": "cifar10_jpeg+bald_o",
    },
}

figure, axes = plt.subplots(1, 3, figsize=(14, 3.6), layout="constrained")
for axis, (title, runs) in zip(axes, PANELS.items(), strict=True):
    for (method, run), style in zip(runs.items(), ("o-", "s--", "^:"), strict=False):
        rounds = pd.read_csv(HERE / "results" / f"{run}.csv")
        axis.plot(rounds["labelled"], 100 * rounds["test_acc"], style, label=method, ms=4)
    axis.set(title=title, xlabel="labels")
    axis.grid(alpha=0.3)
    axis.legend()
axes[0].set_ylabel("test accuracy (%)")
figure.savefig(HERE / "curves.png", dpi=120)
