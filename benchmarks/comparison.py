"""What runs cost together in a comparison, against a command for each."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from timing import as_usual, timed

BALDVAE = [sys.executable, "-W", "ignore", "-m", "baldvae_pl"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
DIGITS = [
    *("--data.steps_per_round=20", "--acquisition.rounds=1", "--acquisition.mc_samples=4"),
    *QUIET,
]
MNIST = [*("--data.source.subset=10000", "--acquisition.rounds=4", "--vae.epochs=5"), *QUIET]
"""Figure 3 in small: a sixth of W, and a network that is three times as fast."""


def run(commands: Sequence[Sequence[str]], options: Sequence[str]) -> None:
    """Run commands one after another in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        for command in commands:
            subprocess.run(
                [*BALDVAE, *command, *options],
                cwd=folder,
                env=as_usual() | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )


def grid(
    configs: Sequence[str], methods: Sequence[str], seeds: Sequence[str], options: Sequence[str]
) -> dict[str, Callable[[], None]]:
    """Return the two ways to make the runs of a comparison, one at a time."""
    together = ["compare", f"--configs={'+'.join(configs)}", "--methods", *methods]
    overlays = [f"--config={name}.yaml" for name in configs]
    each = [
        ["fit", *overlays, f"--config={method}.yaml", f"--seed_everything={seed}"]
        for seed in seeds
        for method in methods
    ]
    return {
        "ours, a comparison with its report": lambda: run(
            [[*together, "--seeds", *seeds]], options
        ),
        "each by a command of its own": lambda: run(each, options),
    }


def comparison(data: Path) -> pd.DataFrame:
    """Small runs, of which starting takes the most, and the methods of figure 3."""
    figure3 = ["bald_vae", "bald_o", "vae_all", "random", "duplicate"]
    root = f"--data.root={data.absolute()}"
    rows = []
    for what, ways in (
        ("2 methods x 2 seeds, 2 rounds of 20 steps on digits",
         grid(["digits"], ["bald_o", "margin"], ["0", "1"], DIGITS)),
        ("5 methods, 5 rounds of mnist_top500 and lenet on 10,000 images",
         grid(["mnist_top500", "lenet"], figure3, ["0"], [root, *MNIST])),
    ):  # fmt: skip
        times = {way: timed(make)[0] for way, make in ways.items()}
        ours = next(iter(times.values()))
        rows += [[what, way, round(took, 1), round(took / ours, 2)] for way, took in times.items()]
    return pd.DataFrame(rows, columns=["what", "way", "seconds", "times ours"])
