"""What a run costs to begin: a comparison of small runs, against a command for each."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import pandas as pd
from timing import seconds

BALDVAE = [sys.executable, "-W", "ignore", "-m", "baldvae_pl"]
METHODS = ["bald_o", "margin"]
SEEDS = ["0", "1"]
OPTIONS = [
    *("--data.steps_per_round=20", "--acquisition.rounds=1", "--acquisition.mc_samples=4"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
]


def run(commands: Sequence[Sequence[str]]) -> None:
    """Run commands one after another in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        for command in commands:
            subprocess.run(
                [*BALDVAE, *command, *OPTIONS],
                cwd=folder,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )


def comparison() -> pd.DataFrame:
    """Four runs of two small rounds on digits, one at a time."""
    together = ["compare", "--configs=digits", "--methods", *METHODS, "--seeds", *SEEDS]
    each = [
        ["fit", "--config=digits.yaml", f"--config={method}.yaml", f"--seed_everything={seed}"]
        for seed in SEEDS
        for method in METHODS
    ]
    ways = {
        "ours, a comparison with its report": lambda: run([together]),
        "each by a command of its own": lambda: run(each),
    }
    times = seconds(ways, 3)
    ours = next(iter(times.values()))
    rows = [[way, round(time, 1), round(time / ours, 2)] for way, time in times.items()]
    return pd.DataFrame(rows, columns=["way", "seconds", "times ours"])
