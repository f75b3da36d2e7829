"""Draw the README's curves: python docs/plot.py."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from baldvae_pl.experiments.arguments import GATHERED
from baldvae_pl.experiments.writing import draw_curves

HERE = Path(__file__).parent
PANELS = {
    "figure2": "Figure 2: MNIST, K = 100",
    "figure3": "Figure 3: MNIST, K = 500",
    "figure4": "Figure 4: CIFAR-10 (JPEG copy), K = 1,000",
}


def runs(name: str) -> pd.DataFrame:
    """Return all rounds of a comparison."""
    return pd.read_csv(HERE / "results" / name / GATHERED)


figure = Figure(figsize=(14, 4), layout="constrained")
for axis, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
    rounds = runs(name)
    seeds = rounds.groupby("method")["seed"].nunique().max()
    draw_curves(axis, rounds, f"{title}, {seeds} seeds")
figure.savefig(HERE / "curves.png", dpi=120)

figure = Figure(figsize=(7, 4), layout="constrained")
draw_curves(figure.subplots(), runs("few_labels"), "MNIST from few labels")
figure.savefig(HERE / "few_labels.png", dpi=120)
