"""Time and memory of whole rounds through the Trainer, and speed of training."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from lightning.pytorch import Trainer
from timing import QUIET
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl import (
    VAE,
    ActiveLearning,
    Classifier,
    Duplicate,
    Images,
    NoComplements,
    PoolDataModule,
    Source,
    train_vae,
)
from baldvae_pl.data.batches import Gather, to_floats
from baldvae_pl.networks import DenseVAE, MNISTNet


class Cheap:
    """A posterior that costs next to nothing, and says how much that is."""

    spent = 0.0

    def __init__(self, network: nn.Module, mc_samples: int, generator: torch.Generator) -> None:
        self.generator = generator

    def __call__(self, images: Tensor) -> Tensor:
        """Return random log-probabilities of two draws and two classes."""
        began = time.perf_counter()
        log_probs_N_T_C = torch.rand(len(images), 2, 2, generator=self.generator).log_softmax(-1)
        Cheap.spent += time.perf_counter() - began
        return log_probs_N_T_C


def mapped(size: int, shape: tuple[int, int, int], folder: str) -> Source:
    """A memory-mapped synthetic W; an image is 0 or 255 by its label."""
    numbers = shape[0] * shape[1] * shape[2]
    images = torch.from_file(
        f"{folder}/images", shared=True, size=size * numbers, dtype=torch.uint8
    ).view(size, *shape)
    labels = torch.arange(size) % 2
    test = Images(images[:256].clone(), labels[:256])
    return Source(Images(images, labels), test, ["even", "odd"], fingerprint="synthetic")


def round_of_a_pool(size: int) -> float:
    """Time of a round's end but for the network."""
    with tempfile.TemporaryDirectory() as folder:
        data = PoolDataModule(
            lambda root: mapped(size, (1, 8, 8), folder), initial_labels=100, steps_per_round=1
        )
        rounds = ActiveLearning(2, 100, complement=Duplicate(), posterior=Cheap)
        ends = []

        end = rounds.on_train_epoch_end

        def timed(trainer: Trainer, module: Classifier) -> None:
            before, Cheap.spent = time.perf_counter(), 0.0
            end(trainer, module)
            ends.append(time.perf_counter() - before - Cheap.spent)

        rounds.on_train_epoch_end = timed  # type: ignore[method-assign]
        net = lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 2))  # noqa: E731
        trainer = Trainer(**QUIET, default_root_dir=folder, callbacks=[rounds])
        trainer.fit(Classifier(net), datamodule=data)
    return ends[1]


def pools() -> pd.DataFrame:
    """Bookkeeping of a round: its time, and the peak memory of a run, for pools of five sizes.

    Images that are mapped count to a process's memory as far as they were read: all of them here.
    """
    rows, peaks = [], []
    # The last two tell what an image takes: up to 10⁶ the start of a run has the peak.
    sizes = [10**4, 10**5, 10**6, 10**7, 2 * 10**7]
    for size in sizes:
        spent, peak = in_process(f"round_of_a_pool({size})")
        rows.append([f"{size:,}", round(spent, 3), round(peak / 2**20)])
        peaks.append(peak)
    table = pd.DataFrame(rows, columns=["images in W", "seconds a round", "peak MiB"])
    an_image = (peaks[-1] - peaks[-2]) / (sizes[-1] - sizes[-2]) - 64
    print(f"beyond its own 64 bytes, an image takes {an_image:.0f} bytes")
    return table


def memory() -> pd.DataFrame:
    """Peak resident memory of runs with more and more draws."""
    rows = []
    for draws in (20, 100, 500, 2000):
        peaks = [in_process(f"memory_of_a_run({draws})")[1] for _ in range(3)]
        rows.append([draws, round(statistics.median(peaks) / 2**20)])
    return pd.DataFrame(rows, columns=["T", "peak MiB"])


def in_process(call: str) -> tuple[float, int]:
    """Return a result of a function of this file, and the peak memory of a process of its own."""
    # Not getrusage: a process inherits the peak of the one that started it.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import whole_rounds; "
        f"print(whole_rounds.{call}); print(open('/proc/self/status').read())"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result, status = done.stdout.split("Name:")
    peak = int(status.split("VmHWM:")[1].split()[0])
    return float(result.split()[-1]), peak * 1024


def memory_of_a_run(draws: int) -> float:
    """Score 10,000 synthetic 28×28 images once."""
    with tempfile.TemporaryDirectory() as folder:
        data = PoolDataModule(
            lambda root: mapped(10_000, (1, 28, 28), folder), initial_labels=10, steps_per_round=1
        )
        rounds = ActiveLearning(1, 10, complement=NoComplements(), mc_samples=draws)
        trainer = Trainer(**QUIET, default_root_dir=folder, callbacks=[rounds])
        trainer.fit(Classifier(lambda: MNISTNet(2)), datamodule=data)
    return 0.0


def training(source: Source) -> pd.DataFrame:
    """Speed of a round and of the VAE, as a share of a plain loop's on the same tensors."""
    steps, labelled, few = 100, torch.arange(500), Images(*(x[:6400] for x in source.train))

    def our_round() -> float:
        data = PoolDataModule(lambda root: source, initial_labels=500, steps_per_round=steps)
        rounds = ActiveLearning(0, 10, complement=NoComplements(), mc_samples=2)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(**QUIET, default_root_dir=folder, callbacks=[rounds])
            trainer.fit(Classifier(MNISTNet), datamodule=data)
        return rounds.history[0]["seconds/train"]

    def plain_round() -> float:
        net = MNISTNet().to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(net.parameters())
        images, labels = source.train
        began = time.perf_counter()
        order = torch.cat([labelled[torch.randperm(500)] for _ in range(steps * 64 // 500 + 1)])
        for batch in order[: steps * 64].split(64):
            loss = F.cross_entropy(net(to_floats(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return time.perf_counter() - began

    def vae() -> VAE:
        return VAE(lambda: DenseVAE((1, 28, 28), 400, 20), epochs=10)

    def our_vae() -> float:
        data = PoolDataModule(lambda root: source._replace(train=few))
        data.setup("fit")
        made, trainer = vae(), Trainer(**QUIET, max_epochs=10)
        began = time.perf_counter()
        train_vae(made, data, trainer)
        return time.perf_counter() - began

    def plain_vae() -> float:
        made = vae()
        made.on_train_epoch_start()
        optimizer, gather = torch.optim.Adam(made.parameters()), Gather(few)
        began = time.perf_counter()
        for _ in range(10):
            for number, batch in enumerate(torch.randperm(6400).split(128)):
                loss = made.training_step(gather[batch], number)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return time.perf_counter() - began

    rows = []
    for what, ours, plain in (
        ("a round, MNISTNet, batch 64", our_round, plain_round),
        ("the VAE of mnist.yaml, batch 128", our_vae, plain_vae),
    ):
        times = [(ours(), plain()) for _ in range(5)][1:]
        share = statistics.median(p / o for o, p in times)
        medians = [round(statistics.median(column), 2) for column in zip(*times, strict=True)]
        rows.append([what, *medians, round(share, 2)])
    return pd.DataFrame(rows, columns=["what", "ours (s)", "plain loop (s)", "speed of ours"])
