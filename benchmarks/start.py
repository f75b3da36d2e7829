"""From the command to the first step: what Python's imports take, a plain script, and ours."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from timing import as_usual, seconds

PLAIN = """
import torch
from lightning.pytorch import LightningModule, Trainer
from sklearn.datasets import load_digits
from first_step import EndAtFirstStep
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

class Plain(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    def training_step(self, batch):
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())

digits = load_digits()
images, labels = torch.tensor(digits.images, dtype=torch.float32), torch.tensor(digits.target)
Trainer(callbacks=[EndAtFirstStep()], max_epochs=1).fit(
    Plain(), DataLoader(TensorDataset(images, labels), batch_size=64)
)
"""


def start() -> pd.DataFrame:
    """Seconds until the first step has been made, each by a process of its own."""
    ours = ["-m", "baldvae_pl", "fit", "--config=digits.yaml", "--config=bald_o.yaml"]
    commands = {
        "ours, fit on digits": [*ours, "--trainer.callbacks+=first_step.EndAtFirstStep"],
        "plain Lightning on digits": ["-c", PLAIN],
        "import lightning": ["-c", "import lightning"],
        "import torch": ["-c", "import torch"],
    }
    with tempfile.TemporaryDirectory() as folder:
        environment = as_usual() | {"PYTHONPATH": str(Path(__file__).parent)}

        def run(command: list[str]) -> None:
            subprocess.run(
                [sys.executable, "-W", "ignore", *command],
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )

        ways = {name: lambda command=command: run(command) for name, command in commands.items()}
        times = seconds(ways, 5)
    ours_took = next(iter(times.values()))
    rows = [[way, round(took, 1), round(took / ours_took, 2)] for way, took in times.items()]
    return pd.DataFrame(rows, columns=["way", "seconds", "times ours"])
