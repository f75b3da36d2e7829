"""Scoring shared by two processes, beside two that know nothing of each other."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

COMMAND = [
    *(sys.executable, "-W", "ignore", "-m", "baldvae_pl", "fit", "--config=mnist.yaml"),
    *("--acquisition.complement=NoComplements", "--acquisition.rounds=3"),
    *("--acquisition.mc_samples=20", "--data.steps_per_round=1"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_checkpointing=false"),
]
TOGETHER = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]


def score_at_once(data: Path, number: int, *options: str) -> list[float]:
    """Start so many runs at once; return the seconds that each scored all of MNIST in.

    The median of three times, since the first takes two seconds more whatever the number.
    """
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder, str(number)) for number in range(number)]
        runs = []
        for place in places:
            place.mkdir()
            runs.append(
                subprocess.Popen(
                    [*COMMAND, f"--data.root={data.absolute()}", *options],
                    cwd=place,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        if any(run.wait() != 0 for run in runs):
            raise RuntimeError("a run has failed")
        tables = [next(place.rglob("rounds.csv")) for place in places]
        return [pd.read_csv(table)["seconds_score"].median() for table in tables]


def processes(data: Path) -> pd.DataFrame:
    """Images a second: two single-thread processes of one run against two runs of one process."""
    apart = sum(60_000 / seconds for seconds in score_at_once(data, 2))
    together = 60_000 / score_at_once(data, 1, *TOGETHER)[0]
    columns = ["apart (images/s)", "together (images/s)", "share"]
    row = [round(apart), round(together), round(together / apart, 2)]
    return pd.DataFrame([row], columns=columns)
