"""Shared by tests: a small run, the command in a process of its own, and what is the same run."""

import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from baldvae_pl.main import main

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

UNTRAINED = [
    *SMALL,
    *("--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0"),
    *("--data.steps_per_round=1", "--acquisition.complement=Duplicate"),
    "--data.scoring_batch_size=9",  # 1,297 images: 145 batches, uneven for 2 and 3 processes
]
"""The same weights whatever the number of processes, so that all else must be the same."""

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]

RUN = Path("lightning_logs/digits/version_0")
"""Where the first run on digits is, below where it was started."""


def baldvae(*args: str, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "baldvae_pl", *args],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def rounds_of(run: Path) -> pd.DataFrame:
    """rounds.csv but for the timing columns, and for the check sum, which they enter."""
    rounds = pd.read_csv(run / "rounds.csv", dtype={"checksum": str})
    timing = ("seconds", "checksum")
    return rounds[[column for column in rounds if not column.startswith(timing)]]


def scalars_of(run: Path) -> dict[str, dict[int, float]]:
    """The last value of each TensorBoard tag and step, but for timings."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    plain = {tag: tag.split(" ")[-1] for tag in events.Tags()["scalars"]}  # without the number
    return {
        name: {point.step: point.value for point in events.Scalars(tag)}
        for tag, name in plain.items()
        if not name.startswith("seconds/")
    }


def assert_same_run(one: Path, other: Path) -> None:
    """The same rows, purchases, curves, pools and weights, bit for bit."""
    assert scalars_of(one) == scalars_of(other)
    assert_same_results(one, other)


def assert_same_results(one: Path, other: Path) -> None:
    """The same rows, purchases, pools and weights, bit for bit."""
    pd.testing.assert_frame_equal(rounds_of(one), rounds_of(other), check_exact=True)
    names = [run / "acquisitions.csv" for run in (one, other)]
    assert names[0].read_bytes() == names[1].read_bytes()
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


def refusal(*arguments: str) -> str:
    """The one sentence that the command ends with in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", said := io.StringIO())
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
    assert caught.value.code not in (0, None)
    sentence = caught.value.code if isinstance(caught.value.code, str) else said.getvalue()
    sentence = sentence.strip().split("baldvae: error: ")[-1]
    assert len(sentence.splitlines()) == 1, sentence
    return sentence


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write a file in the format of MNIST's."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


def write_fashion_mnist(root: Path, train: int = 100, test: int = 20) -> dict[str, np.ndarray]:
    """Write a small Fashion-MNIST of noise."""
    chance, written = np.random.default_rng(0), {}
    for part, size in (("train", train), ("t10k", test)):
        written[f"{part}-images-idx3-ubyte"] = chance.integers(0, 256, (size, 28, 28), np.uint8)
        written[f"{part}-labels-idx1-ubyte"] = (np.arange(size) % 10).astype(np.uint8)
    for name, array in written.items():
        write_idx(root / "FashionMNIST" / "raw" / name, array)
    return written


def write_tree(root: Path, train: int, test: int, classes: Sequence[str]) -> None:
    """Write a class-per-folder tree of small colour photographs, so to speak: tinted noise."""
    chance = np.random.default_rng(0)
    for part, size in (("train", train), ("test", test)):
        for number in range(size):
            tint = number % len(classes)
            pixels = chance.integers(0, 128, (36, 40, 3), np.uint8)
            pixels[..., tint % 3] += 100
            folder = root / part / classes[tint]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number:04}.jpg")
