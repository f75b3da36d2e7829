"""How fast and how frugal it is, against the alternatives, in one process run.

    python tests/benchmarks/speed.py --data folder_with_MNIST [--only scoring memory ...]

needs the `test` extra. Tables: scoring, limit, resnet18, memory, pools, training. Alternatives run
in turn, several times; a row is the median. What is slow runs on fewer images, scaled linearly
(marked ~). Tables are printed and written as CSV.
"""

import argparse
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from baal.bayesian.caching_utils import patch_module as cache_layers
from baal.bayesian.dropout import patch_module as baal_dropout
from baal.modelwrapper import ModelWrapper, TrainingArgs
from batchbald_redux.consistent_mc_dropout import BayesianModule, ConsistentMCDropout
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from baldvae_pl.acquisition import bald
from baldvae_pl.batches import Gather, to_unit_interval
from baldvae_pl.data import PoolDataModule
from baldvae_pl.datasets import MNIST, Images, Source
from baldvae_pl.modules import VAE, Classifier, train_vae
from baldvae_pl.networks import DenseVAE, MNISTNet, ResNet18
from baldvae_pl.posterior import PRODUCTS_AT_ONCE, MCDropout
from baldvae_pl.rounds import ActiveLearning

Way = tuple[Callable[[Tensor], Any], int]  # how, and how many images it is timed on

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def seconds(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Run all in turn, several times after a first one; the median of each."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if repeat > 0:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


# (a) Scoring


def redux_head(head: nn.Sequential) -> BayesianModule:
    """The head with batchbald_redux's consistent dropout, to be run on features."""
    layers = [ConsistentMCDropout(x.p) if isinstance(x, nn.Dropout) else x for x in head]

    class Head(BayesianModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*layers)

        def mc_forward_impl(self, features_BK: Tensor) -> Tensor:
            return self.layers(features_BK).log_softmax(-1)

    return Head()


def scoring(images: Tensor, make: Callable[[], nn.Module], few: int, repeats: int) -> pd.DataFrame:
    """Time of scoring by BALD, as a multiple of one deterministic pass at its best batch size."""
    net = make().to(memory_format=torch.channels_last).eval()
    dataset = TensorDataset(to_unit_interval(images[:few]), torch.zeros(few))
    baal_net = baal_dropout(make().to(memory_format=torch.channels_last), inplace=True)
    cached_net = cache_layers(baal_dropout(make(), inplace=True), inplace=True)
    args = TrainingArgs(batch_size=32, use_cuda=False, workers=0)
    redux = redux_head(net.head)

    @torch.no_grad()
    def one_pass(size: int, images: Tensor) -> None:
        for part in images.split(size):
            net(to_unit_interval(part)).softmax(-1)

    def ours(draws: int, nested: int, images: Tensor) -> None:
        posterior = MCDropout(net, draws, torch.Generator().manual_seed(0), nested)
        for part in images.split(4096):
            bald(posterior(to_unit_interval(part)))

    @torch.no_grad()
    def plain(draws: int, images: Tensor) -> None:
        for part in images.split(64):
            x = to_unit_interval(part)
            net.head.train()
            bald(torch.stack([net(x).float().log_softmax(-1) for _ in range(draws)], 1))
            net.head.eval()

    @torch.no_grad()
    def by_redux(draws: int, images: Tensor) -> None:
        for part in images.split(64):
            bald(redux(net.trunk(to_unit_interval(part)), draws).float())

    def by_baal(model: nn.Module, draws: int, replicate: bool, _: Tensor) -> None:
        args.replicate_in_memory = replicate
        ModelWrapper(model, args).predict_on_dataset(dataset, draws, verbose=False)

    sizes = (32, 64, 128, 256, 512)
    all_of_them = len(images)
    ways: dict[str, Way] = {
        **{f"one pass, batch {s}": (lambda x, s=s: one_pass(s, x), all_of_them) for s in sizes},
        "ours, T = 20 independent": (lambda x: ours(20, 1, x), all_of_them),
        "ours, T = 100 as 10 x 10 (default)": (lambda x: ours(100, 10, x), all_of_them),
        "ours, T = 100 as 20 x 5": (lambda x: ours(100, 5, x), all_of_them),
        "ours, T = 100 independent": (lambda x: ours(100, 1, x), all_of_them),
        "batchbald_redux, trunk once, T = 20": (lambda x: by_redux(20, x), few),
        "plain passes, T = 20": (lambda x: plain(20, x), few),
        "Baal 2.1, T = 20": (lambda x: by_baal(baal_net, 20, True, x), few),
        "Baal 2.1 with its cache, T = 20": (lambda x: by_baal(cached_net, 20, False, x), few),
    }
    rows = []
    for precision in ("float32", "bfloat16"):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            runs = {name: (lambda w=way, n=n: w(images[:n])) for name, (way, n) in ways.items()}
            if precision == "bfloat16":  # the peers are timed as they come
                runs = {k: v for k, v in runs.items() if "Baal" not in k and "redux" not in k}
            times = seconds(runs, repeats)
        per_image = {name: times[name] / ways[name][1] for name in times}
        floor = min(value for name, value in per_image.items() if name.startswith("one pass"))
        for name, value in per_image.items():
            mark = "~" if ways[name][1] < all_of_them else ""
            rows.append([precision, name, f"{mark}{value * 1e6:.0f}", round(value / floor, 2)])
    return pd.DataFrame(rows, columns=["precision", "way", "µs an image", "times one pass"])


def product_rate(size: int = 4096) -> pd.DataFrame:
    """The wide product of T = 20 beside a large square one, in GFLOP/s: what limits scoring."""
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        features = torch.rand(size, 9216).to(dtype)
        folded = torch.rand(PRODUCTS_AT_ONCE * 64, 9216).to(dtype)
        square = torch.rand(size, size).to(dtype)
        times = seconds({"ours": lambda f=features, w=folded: F.linear(f, w),
                         "square": lambda s=square: s @ s}, 5)  # fmt: skip
        rates = (2 * size * 9216 * len(folded) / times["ours"], 2 * size**3 / times["square"])
        rows.append([str(dtype), *(round(rate / 1e9) for rate in rates)])
    return pd.DataFrame(rows, columns=["precision", "scoring's product", "square product"])


# (c) Memory, (d) pools: whole rounds through the Trainer


class Cheap:
    """A posterior that costs next to nothing, and says how much that is."""

    spent = 0.0

    def __init__(self, network: nn.Module, mc_samples: int, generator: torch.Generator) -> None:
        self.generator = generator

    def __call__(self, images: Tensor) -> Tensor:
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


def round_of_a_pool(size: int) -> list[Any]:
    """Time of a round's end but for the network."""
    with tempfile.TemporaryDirectory() as folder:
        data = PoolDataModule(
            lambda root: mapped(size, (1, 8, 8), folder), initial_labels=100, steps_per_round=1
        )
        rounds = ActiveLearning(2, 100, complement="duplicate", posterior=Cheap)
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
    return [f"{size:,}", round(ends[1], 3)]


def pools() -> pd.DataFrame:
    """Bookkeeping: all that is done at the end of a round but for the network."""
    rows = [round_of_a_pool(10**power) for power in (4, 5, 6, 7)]
    return pd.DataFrame(rows, columns=["images in W", "seconds a round"])


def memory() -> pd.DataFrame:
    """Peak resident memory of a run with two rounds, each in a process of its own."""
    rows = []
    for size, draws in ((10_000, 20), (10_000, 100), (10_000, 500), (60_000, 100)):
        code = (
            "import sys, resource; sys.path.insert(0, sys.argv[1]); import speed; "
            f"speed.memory_of_a_run({size}, {draws}); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-W", "ignore", "-c", code, str(Path(__file__).parent)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append([f"{size:,}", draws, round(int(done.stdout.split()[-1]) / 1024)])
    table = pd.DataFrame(rows, columns=["images in W", "T", "peak MiB"])
    more = table["peak MiB"].iloc[3] - table["peak MiB"].iloc[1]
    print(f"beyond its 784 bytes, an image of W takes {more * 2**20 / 50_000 - 784:.0f} bytes")
    return table


def memory_of_a_run(size: int, draws: int) -> None:
    """Score a synthetic W of 28×28 images once."""
    with tempfile.TemporaryDirectory() as folder:
        data = PoolDataModule(
            lambda root: mapped(size, (1, 28, 28), folder), initial_labels=10, steps_per_round=1
        )
        rounds = ActiveLearning(1, 10, complement="none", mc_samples=draws)
        trainer = Trainer(**QUIET, default_root_dir=folder, callbacks=[rounds])
        trainer.fit(Classifier(lambda: MNISTNet(2)), datamodule=data)


# Training


def training(source: Source) -> pd.DataFrame:
    """Speed of a round and of the VAE, as a share of a plain loop's on the same tensors."""
    steps, labelled, few = 100, torch.arange(500), Images(*(x[:6400] for x in source.train))

    def our_round() -> float:
        data = PoolDataModule(lambda root: source, initial_labels=500, steps_per_round=steps)
        rounds = ActiveLearning(0, 10, complement="none", mc_samples=2)
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
            loss = F.cross_entropy(net(to_unit_interval(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return time.perf_counter() - began

    def vae() -> VAE:
        return VAE(lambda: DenseVAE((1, 28, 28), 400, 20), epochs=2)

    def our_vae() -> float:
        data = PoolDataModule(lambda root: source._replace(train=few))
        data.setup("fit")
        made, trainer = vae(), Trainer(**QUIET, max_epochs=2)
        began = time.perf_counter()
        train_vae(made, data, trainer)
        return time.perf_counter() - began

    def plain_vae() -> float:
        made = vae()
        made.log_dict = made.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
        optimizer, gather = torch.optim.Adam(made.parameters()), Gather(few)
        began = time.perf_counter()
        for _ in range(2):
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
        times = [(ours(), plain()) for _ in range(6)][1:]
        share = statistics.median(p / o for o, p in times)
        medians = [round(statistics.median(column), 2) for column in zip(*times, strict=True)]
        rows.append([what, *medians, round(share, 2)])
    return pd.DataFrame(rows, columns=["what", "ours (s)", "plain loop (s)", "speed of ours"])


def main() -> None:
    """Run what was asked for, print it and write it beside this file's results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with MNIST")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    source = MNIST(chosen.data)
    digits = source.train.images[:4096]
    colour = torch.randint(0, 256, (1000, 3, 32, 32), dtype=torch.uint8)
    tables: dict[str, Callable[[], pd.DataFrame]] = {
        "scoring": lambda: scoring(digits, MNISTNet, 256, 3),
        "resnet18": lambda: scoring(colour, ResNet18, 32, 1),
        "limit": product_rate,
        "memory": memory,
        "pools": pools,
        "training": lambda: training(source),
    }
    for name, table in tables.items():
        if name in (chosen.only or tables):
            torch.manual_seed(0)
            print(f"\n{name}", flush=True)
            found = table()
            print(found.to_string(index=False), flush=True)
            found.to_csv(chosen.out / f"speed_{name}.csv", index=False)


if __name__ == "__main__":
    main()
