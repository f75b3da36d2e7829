"""Draw the README's curves: python docs/plot.py."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from baldvae_pl.summary import curves, interval

HERE = Path(__file__).parent
SINGLE = {
    "MNIST, 100 labels a round (figure 2)": {"bald_vae": "mnist"},
    "CIFAR-10 (JPEG copy), 1,000 a round (figure 4)": {
        "bald_vae": "cifar10_jpeg",
        "bald_o": "cifar10_jpeg+bald_o",
    },
}
STYLES = {"bald_vae": "o-", "bald_o": "s--", "vae_all": "^:", "random": "v-.", "duplicate": "d:"}

figure, axes = plt.subplots(1, 3, figsize=(14, 3.6), layout="constrained")
for axis, (title, runs) in zip(axes[::2], SINGLE.items(), strict=True):
    for method, run in runs.items():
        rounds = pd.read_csv(HERE / "results" / f"{run}.csv")
        accuracy = 100 * rounds["test_acc"]
        axis.plot(rounds["labelled"], accuracy, STYLES[method], label=method, ms=4)
    axis.set(title=f"{title}, one seed")
rounds = pd.read_csv(HERE / "results" / "figure3" / "runs.csv")
for method, table in curves(rounds).items():
    mean, width = 100 * table.mean(axis=1), 100 * table.apply(interval, axis=1, raw=True)
    (line,) = axes[1].plot(table.index, mean, STYLES[method], label=method, ms=4)
    axes[1].fill_between(table.index, mean - width, mean + width, color=line.get_color(), alpha=0.1)
axes[1].set(title="MNIST, 500 labels a round (figure 3), five seeds, 95 %")
for axis in axes:
    axis.set(xlabel="labels")
    axis.grid(alpha=0.3)
    axis.legend()
axes[0].set_ylabel("test accuracy (%)")
figure.savefig(HERE / "curves.png", dpi=120)
