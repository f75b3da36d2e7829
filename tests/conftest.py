"""Shared by all tests: real data, a small run, and the command in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SMALL = [
    "fit",
    "--config=digits.yaml",
    "--data.steps_per_round=8",
    "--data.initial_labels=15",
    "--acquisition.query_size=25",
    "--acquisition.mc_samples=4",
    "--acquisition.rounds=3",
    "--vae.epochs=1",
    "--trainer.log_every_n_steps=4",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]
"""A run of seconds on real digits, undertrained enough for complements to occur."""


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)  # small tensors: two threads would only wait for each other


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with MNIST, from BALDVAE_DATA."""
    if "BALDVAE_DATA" not in os.environ:
        pytest.skip("BALDVAE_DATA names no folder with MNIST")
    return Path(os.environ["BALDVAE_DATA"])


def baldvae(*args: str, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "baldvae_pl", *args],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def rounds_of(run: Path) -> pd.DataFrame:
    """rounds.csv but for the timing columns."""
    rounds = pd.read_csv(run / "rounds.csv")
    return rounds[[column for column in rounds if not column.startswith("seconds")]]


def scalars_of(run: Path) -> dict[str, dict[int, float]]:
    """The last value of each TensorBoard tag and step, but for timings."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("seconds/")]
    return {tag: {point.step: point.value for point in events.Scalars(tag)} for tag in tags}


def assert_same_run(one: Path, other: Path) -> None:
    """The same rows, purchases, curves, pools and weights, bit for bit."""
    pd.testing.assert_frame_equal(rounds_of(one), rounds_of(other), check_exact=True)
    names = [run / "acquisitions.csv" for run in (one, other)]
    assert names[0].read_bytes() == names[1].read_bytes()
    assert scalars_of(one) == scalars_of(other)
    last = [torch.load(r / "checkpoints" / "last.ckpt", weights_only=True) for r in (one, other)]
    for key in ("state_dict", "PoolDataModule"):
        assert_same_state(last[0][key], last[1][key])


def assert_same_state(one: object, other: object) -> None:
    """Nested dicts of tensors and plain values, equal to the bit."""
    if isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys()
        for key in one:
            assert_same_state(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    else:
        assert one == other
