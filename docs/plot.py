"""Draw the README's curves: python docs/plot.py."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from baldvae_pl.compare import METHODS
from baldvae_pl.report import GATHERED, draw_curves

HERE = Path(__file__).parent
PANELS = {
    "figure2": "MNIST, 100 labels a round (figure 2)",
    "figure3": "MNIST, 500 labels a round (figure 3)",
    "figure4": "CIFAR-10 (JPEG copy), 1,000 a round (figure 4)",
}

figure = Figure(figsize=(14, 4), layout="constrained")
for axis, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
    rounds = pd.read_csv(HERE / "results" / name / GATHERED)
    seeds = rounds.groupby("method")["seed"].nunique().max()
    draw_curves(axis, rounds, f"{title}, {seeds} seeds", METHODS)
figure.savefig(HERE / "curves.png", dpi=120)
